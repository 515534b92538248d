"""The gateway's Prometheus metrics: seconds, `_total`, labels `model, version, stage, code`."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)

Metric = TypeVar("Metric", Counter, Gauge, Histogram)


def of_labels(metric: Metric) -> Callable[..., Metric]:
    """Labels' values → what counts them. The library's own look-up costs as much as counting does."""
    return functools.cache(metric.labels)


class Metrics:
    """Every metric of one gateway process, and the page that adds up all worker processes'."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = of_labels(
            Counter(
                "sightread_requests_total", "HTTP requests answered", ["model", "version", "code"], registry=registry
            )
        )
        self.request_seconds = of_labels(
            Histogram(
                "sightread_request_seconds",
                "From a request's headers to its answer",
                ["model"],
                buckets=SECONDS,
                registry=registry,
            )
        )
        self.stage_seconds = of_labels(
            Histogram(
                "sightread_stage_seconds",
                "Time in one stage: decode (one item), queue (one item), predict (one batch), explain_queue (one "
                "item), explain (one batch), encode (one response), prove (one version)",
                ["model", "stage"],
                buckets=SECONDS,
                registry=registry,
            )
        )
        self.batch_rows = of_labels(
            Histogram(
                "sightread_batch_rows",
                "Rows in one call to the model server",
                ["model"],
                buckets=ROWS,
                registry=registry,
            )
        )
        self.in_flight = Gauge(
            "sightread_requests_in_flight",
            "HTTP requests accepted and not yet answered",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.shed = of_labels(
            Counter(
                "sightread_shed_total",
                "Items refused because a queue was full, or too long for their deadline",
                ["model"],
                registry=registry,
            )
        )
        self.proof_failures = of_labels(
            Counter(
                "sightread_proof_failures_total",
                "Versions kept out because they did not prove themselves",
                ["model", "version"],
                registry=registry,
            )
        )
        self.version_proven = of_labels(
            Gauge(
                "sightread_version_proven",
                "1: the version proved itself and takes traffic; 0: it does not",
                ["model", "version"],
                multiprocess_mode="livemin",
                registry=registry,
            )
        )

        self.retries = of_labels(
            Counter("sightread_retries_total", "Calls to the model server made once more", ["model"], registry=registry)
        )
        self.predictions = of_labels(
            Counter(
                "sightread_predictions_total",
                "Items by their best label",
                ["model", "version", "label"],
                registry=registry,
            )
        )
        self.confidence = of_labels(
            Histogram(
                "sightread_confidence",
                "Probability of an item's best label",
                ["model", "version"],
                buckets=SHARES,
                registry=registry,
            )
        )
        self.drift = of_labels(
            Gauge(
                "sightread_drift",
                "Distance (0 to 1, Jensen and Shannon) of the recent answers from what the version was trained on, by "
                "labels, confidence, brightness or unknown_tokens",
                ["model", "version", "of"],
                multiprocess_mode="livemax",
                registry=registry,
            )
        )
        self.shadow_answers = of_labels(
            Counter(
                "sightread_shadow_answers_total",
                "Items that a shadow answered, too: same, different, failed, or dropped",
                ["model", "version", "shadow", "answer"],
                registry=registry,
            )
        )

    def predicted(self, model: str, version: int, label: str, confidence: float) -> None:
        """Count one item's answer."""
        self.predictions(model, version, label).inc()
        self.confidence(model, version).observe(confidence)

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        # a worker that was killed could not say that nothing of its is in flight any more
        for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("gauge_live*.db"):
            worker = int(file.stem.rpartition("_")[2])
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                mark_process_dead(worker)  # type: ignore[no-untyped-call]
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)

"""The gateway's Prometheus metrics: seconds, `_total`, labels `model, version, stage, code`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Every metric of one gateway process, and the page that adds up all worker processes'."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "sightread_requests_total", "HTTP requests answered", ["model", "version", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "sightread_request_seconds",
            "From a request's headers to its answer",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "sightread_stage_seconds",
            "Time in one stage: decode (one item), queue (one item), predict (one batch), explain_queue (one item), "
            "explain (one batch), prove (one version)",
            ["model", "stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "sightread_batch_rows", "Rows in one call to the model server", ["model"], buckets=ROWS, registry=registry
        )
        self.in_flight = Gauge(
            "sightread_requests_in_flight",
            "HTTP requests accepted and not yet answered",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.shed = Counter(
            "sightread_shed_total", "Items refused because a queue was full", ["model"], registry=registry
        )
        self.proof_failures = Counter(
            "sightread_proof_failures_total",
            "Versions kept out because they did not prove themselves",
            ["model", "version"],
            registry=registry,
        )
        self.version_proven = Gauge(
            "sightread_version_proven",
            "1: the version proved itself and takes traffic; 0: it does not",
            ["model", "version"],
            multiprocess_mode="livemin",
            registry=registry,
        )

    @contextmanager
    def stage(self, model: str, stage: str) -> Iterator[None]:
        """Measure one stage of the way."""
        start = perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(model, stage).observe(perf_counter() - start)

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

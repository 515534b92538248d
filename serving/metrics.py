"""The gateway's Prometheus metrics: seconds, `_total`, labels `model, version, stage, code`."""

import asyncio
import functools
import os
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)

GaugeMode = Literal["livemin", "livemax"]
"""How the processes' values make one."""


WRITTEN_AFTER = 0.02
"""Seconds until what was counted is written, with all else that was counted meanwhile."""


class Unwritten:
    """What was counted, and is written a moment later.

    To write one number takes the library some microseconds, and a request has a dozen. Those of all requests that are
    answered meanwhile are written together.
    """

    def __init__(self) -> None:
        self._counted: list[Counted] = []
        self._is_due = False

    def hold(self, counted: "Counted") -> None:
        """Have it written in a moment."""
        if not self._is_due:
            asyncio.get_running_loop().call_later(WRITTEN_AFTER, self.write)
            self._is_due = True
        self._counted.append(counted)

    def write(self) -> None:
        """Write what was counted so far."""
        self._is_due = False
        while self._counted:
            self._counted.pop().write()


class Counted(ABC):
    """What is held until then."""

    @abstractmethod
    def write(self) -> None:
        """Hand it on to the library."""


class Counter(Counted):
    """Counts for a moment, and then in the library's counter."""

    def __init__(self, counter: prometheus_client.Counter, unwritten: Unwritten) -> None:
        self._counter = counter
        self._unwritten = unwritten
        self._amount = 0

    def inc(self, amount: int = 1) -> None:
        """Count so many more."""
        if not self._amount:
            self._unwritten.hold(self)
        self._amount += amount

    def write(self) -> None:
        amount, self._amount = self._amount, 0
        self._counter.inc(amount)


class Level(Counted):
    """How many there are, for a moment here, and then in the library's gauge."""

    def __init__(self, gauge: Gauge, unwritten: Unwritten) -> None:
        self._gauge = gauge
        self._unwritten = unwritten
        self._level = 0
        self._is_held = False

    def add(self, difference: int) -> None:
        """There are so many more."""
        if not self._is_held:
            self._unwritten.hold(self)
            self._is_held = True
        self._level += difference

    def write(self) -> None:
        self._is_held = False
        self._gauge.set(self._level)


class ManyHistogram(prometheus_client.Histogram):
    """The library's, which also takes many observations at once."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """As `observe` for each."""
        self._sum.inc(sum(amounts))
        counts: dict[int, int] = {}  # `collections.Counter` takes several times as long for the few that there are
        for amount in amounts:
            bucket = bisect_left(self._upper_bounds, amount)
            counts[bucket] = counts.get(bucket, 0) + 1
        for bucket, count in counts.items():
            self._buckets[bucket].inc(count)


class Histogram(Counted):
    """Observes for a moment, and then in the library's histogram."""

    def __init__(self, histogram: ManyHistogram, unwritten: Unwritten) -> None:
        self._histogram = histogram
        self._unwritten = unwritten
        self._amounts: list[float] = []

    def observe(self, amount: float) -> None:
        """Note one."""
        if not self._amounts:
            self._unwritten.hold(self)
        self._amounts.append(amount)

    def time(self) -> "Timing":
        """Observe the seconds that the context takes."""
        return Timing(self)

    def write(self) -> None:
        amounts, self._amounts = self._amounts, []
        self._histogram.observe_all(amounts)


class Timing:
    """A context whose seconds a histogram observes; one made of a generator would take several times as long."""

    __slots__ = ("_histogram", "_start")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._histogram.observe(perf_counter() - self._start)


class Metrics:
    """Every metric of one gateway process, and the page that adds up all worker processes'."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        unwritten = self.unwritten = Unwritten()

        # each remembers what counts for which labels: the library's own look-up costs as much as counting does

        def counter(name: str, about: str, *labels: str) -> Callable[..., Counter]:
            family = prometheus_client.Counter(name, about, labels, registry=registry)
            return functools.cache(lambda *values: Counter(family.labels(*values), unwritten))

        def histogram(name: str, about: str, *labels: str, buckets: Sequence[float]) -> Callable[..., Histogram]:
            family = ManyHistogram(name, about, labels, buckets=buckets, registry=registry)
            return functools.cache(lambda *values: Histogram(family.labels(*values), unwritten))

        def gauge(name: str, about: str, *labels: str, mode: GaugeMode) -> Callable[..., Gauge]:
            return functools.cache(Gauge(name, about, labels, multiprocess_mode=mode, registry=registry).labels)

        self.requests = counter("sightread_requests_total", "HTTP requests answered", "model", "version", "code")
        self.request_seconds = histogram(
            "sightread_request_seconds", "From a request's headers to its answer", "model", buckets=SECONDS
        )
        self.stage_seconds = histogram(
            "sightread_stage_seconds",
            "Time in one stage: turn (one item that had to wait for one), decode (one item), queue (one item), "
            "predict (one batch), explain_queue (one item), explain (one batch), encode (one response), "
            "prove (one version)",
            "model",
            "stage",
            buckets=SECONDS,
        )
        self.batch_rows = histogram(
            "sightread_batch_rows", "Rows in one call to the model server", "model", buckets=ROWS
        )
        in_flight = Gauge(
            "sightread_requests_in_flight",
            "HTTP requests accepted and not yet answered",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.in_flight = Level(in_flight, unwritten)
        self.shed = counter(
            "sightread_shed_total", "Items refused because a queue was full, or too long for their deadline", "model"
        )
        self.proof_failures = counter(
            "sightread_proof_failures_total",
            "Versions kept out because they did not prove themselves",
            "model",
            "version",
        )
        self.model_ready = gauge(
            "sightread_model_ready",
            "1: a version of the model takes traffic; 0: none does",
            "model",
            mode="livemin",
        )
        self.version_proven = gauge(
            "sightread_version_proven",
            "1: the version proved itself and takes traffic; 0: it does not",
            "model",
            "version",
            mode="livemin",
        )
        self.retries = counter("sightread_retries_total", "Calls to the model server made once more", "model")
        self.predictions = counter(
            "sightread_predictions_total", "Items by their best label", "model", "version", "label"
        )
        self.confidence = histogram(
            "sightread_confidence", "Probability of an item's best label", "model", "version", buckets=SHARES
        )
        self.drift = gauge(
            "sightread_drift",
            "Distance (0 to 1, Jensen and Shannon) of the recent answers from what the version was trained on, by "
            "labels, confidence, brightness or unknown_tokens",
            "model",
            "version",
            "of",
            mode="livemax",
        )
        self.shadow_answers = counter(
            "sightread_shadow_answers_total",
            "Items that a shadow answered, too: same, different, failed, or dropped",
            "model",
            "version",
            "shadow",
            "answer",
        )

    def predicted(self, model: str, version: int, label: str, confidence: float) -> None:
        """Count one item's answer."""
        self.predictions(model, version, label).inc()
        self.confidence(model, version).observe(confidence)

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        self.unwritten.write()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        # a worker that was killed could not say that nothing of its is in flight any more
        for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("gauge_live*.db"):
            worker = int(file.stem.rpartition("_")[2])
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                with suppress(FileNotFoundError):  # another worker's page did so meanwhile
                    mark_process_dead(worker)  # type: ignore[no-untyped-call]
        everyone = CollectorRegistry()
        everyone.register(EveryWorker())
        return generate_latest(everyone)


class EveryWorker(Collector):
    """The library's sum over the workers' files, but for those that are empty, which it cannot read.

    A file is so for a moment when a worker starts, and for ever when it is killed in that moment.
    """

    def collect(self) -> Iterable[Metric]:
        files = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("*.db")
        full = [str(file) for file in files if not is_empty(file)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(full)  # type: ignore[no-untyped-call]
        return merged


def is_empty(file: Path) -> bool:
    """Whether nothing is in it, be it that it is not there any more."""
    try:
        return file.stat().st_size == 0
    except FileNotFoundError:
        return True

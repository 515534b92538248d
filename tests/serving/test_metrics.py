"""What is counted in a turn of the event loop reaches the page as if the library had been told at once."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import SECONDS, ManyHistogram, Metrics


def samples(page: bytes, name: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.name.startswith(name) and not sample.name.endswith("_created")
    }


def test_many_observations_at_once_are_counted_as_one_by_one() -> None:
    amounts = [*SECONDS, 0.0, 11.0, *np.random.default_rng(7).exponential(0.05, 500)]
    registry = CollectorRegistry()
    one_by_one = prometheus_client.Histogram("one", "", buckets=SECONDS, registry=registry)
    at_once = ManyHistogram("all", "", buckets=SECONDS, registry=registry)
    for amount in amounts:
        one_by_one.observe(amount)
    at_once.observe_all(amounts[:100])
    at_once.observe_all(amounts[100:])
    page = generate_latest(registry)
    expected = [round(value, 6) for value in samples(page, "one").values()]
    assert [round(value, 6) for value in samples(page, "all").values()] == expected
    assert sum(expected) > 0


def test_the_page_tells_what_the_present_turn_counted_and_the_next_turn_counts_nothing_twice() -> None:
    async def count() -> tuple[Metrics, bytes]:
        metrics = Metrics()
        for _ in range(3):
            metrics.requests("m", 1, 200).inc()
            metrics.in_flight.add(1)
        metrics.shadow_answers("m", 1, "", "dropped").inc(5)
        metrics.in_flight.add(-1)
        with metrics.stage_seconds("m", "encode").time():
            pass
        page = metrics.page()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        metrics.requests("m", 1, 200).inc()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return metrics, page

    metrics, page = asyncio.run(count())
    assert samples(page, "sightread_requests_total") == {("sightread_requests_total", "200", "m", "1"): 3}
    assert samples(page, "sightread_requests_in_flight") == {("sightread_requests_in_flight",): 2}
    assert list(samples(page, "sightread_shadow_answers").values()) == [5]
    assert samples(page, "sightread_stage_seconds")["sightread_stage_seconds_count", "m", "encode"] == 1
    # the loop ended, and so did its last turn: it was written then and not by the page
    assert samples(metrics.page(), "sightread_requests_total") == {("sightread_requests_total", "200", "m", "1"): 4}


def test_the_page_does_without_a_worker_that_was_killed_before_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    gone = subprocess.run(["sh", "-c", "echo $$"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / f"counter_{gone}.db").touch()
    (tmp_path / f"gauge_livesum_{gone}.db").touch()
    count = "import prometheus_client as p; p.Counter('sightread_requests', '').inc(3)"
    subprocess.run([sys.executable, "-c", count], check=True)
    page = Metrics().page()
    assert samples(page, "sightread_requests_total") == {("sightread_requests_total",): 3}

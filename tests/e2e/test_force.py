"""Mutated requests and mixed traffic, bounded: `python -m fuzz.requests` and `python -m fuzz.soak` go on for longer."""

import pytest

from fuzz.requests import run
from fuzz.soak import soak, verdict
from tests.e2e.processes import Service

pytestmark = pytest.mark.slow


def test_of_ten_thousand_mutated_requests_none_gets_a_5xx_and_no_good_one_suffers(service: Service) -> None:
    assert run(service.url, count=10_000, seed=5, deadline=2) == []


def test_mixed_traffic_leaves_memory_threads_files_and_latency_as_they_were(service: Service) -> None:
    record = soak(service.url, service.process.pid, seconds=16, seed=7, deadline=5)
    assert [*verdict(record, 16), *record.wrong] == []
    assert len(record.latencies) > 50

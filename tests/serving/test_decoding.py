"""Large inputs are prepared in threads, and none is taken that would be late."""

import asyncio
import math
import os
import time
from pathlib import Path

import pytest

from serving.decoding import Decoders, cores
from serving.pace import STRAINED_SECONDS
from serving.problems import Overloaded


def test_what_would_be_late_or_only_just_in_time_is_refused() -> None:
    async def scenario() -> None:
        decoders = Decoders(2)
        now = asyncio.get_running_loop().time
        decoders.check(deadline=now() + 0.001, ahead=1000)  # nothing is known yet
        await decoders.run(lambda: time.sleep(0.2), deadline=math.inf, ahead=0)
        assert decoders.waiting == 0
        with pytest.raises(Overloaded) as refused:
            decoders.check(deadline=now() + 1.2, ahead=10)  # five turns of 0.2 seconds
        assert refused.value.retry_after is not None
        assert refused.value.retry_after >= 1
        decoders.check(deadline=now() + 60, ahead=10)
        decoders.close()

    asyncio.run(scenario())


def test_while_some_have_to_be_refused_the_queue_is_kept_short() -> None:
    async def scenario() -> None:
        decoders = Decoders(2)
        now = asyncio.get_running_loop().time
        await decoders.run(lambda: time.sleep(0.2), deadline=math.inf, ahead=0)
        decoders.check(deadline=now() + 2, ahead=10)  # a second is foretold
        with pytest.raises(Overloaded):
            decoders.check(deadline=now() + 2.1, ahead=20)
        with pytest.raises(Overloaded):
            decoders.check(deadline=now() + 2, ahead=10)
        decoders.check(deadline=now() + 2, ahead=3)  # the threads are to be kept busy
        decoders.check(deadline=now() + 3, ahead=10)  # who has more time has it still
        await decoders.run(lambda: None, deadline=now() + 2, ahead=10)  # nor is anybody who was let in
        await asyncio.sleep(STRAINED_SECONDS + 0.1)
        decoders.check(deadline=now() + 2, ahead=10)
        decoders.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("quota", "wanted"), [("100000 100000\n", 1), ("150000 100000\n", 2), ("10000 100000\n", 1), ("800000 100000\n", 8)]
)
def test_a_container_s_limit_counts_where_it_is_below_the_machine_s_cores(
    quota: str, wanted: int, tmp_path: Path
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert cores(file) == min(wanted, cores(tmp_path / "none"))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux keeps a process to some cores")
def test_without_a_limit_the_cores_are_those_that_the_process_may_use(tmp_path: Path) -> None:
    unlimited = tmp_path / "cpu.max"
    unlimited.write_text("max 100000\n")
    allowed = os.sched_getaffinity(0)
    assert cores(unlimited) == cores(tmp_path / "none") == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert cores(unlimited) == 1
    finally:
        os.sched_setaffinity(0, allowed)

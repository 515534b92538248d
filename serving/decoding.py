"""Threads for what would hold up the event loop: large pictures, and long texts, on all cores."""

import asyncio
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from serving.pace import HEADROOM, Pace, Strain
from serving.problems import Overloaded

Prepared = TypeVar("Prepared")

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Linux's (cgroup v2), in a container: microseconds on processors within each period of so many, or "max"."""

KEPT_AHEAD = 2
"""Pieces for each thread that may wait although others had to be refused."""


def own_processors() -> int:
    """How many of the machine's this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores(quota: Path = QUOTA) -> int:
    """How many this process may use: a container may have fewer than the machine."""
    count = own_processors()
    with suppress(OSError, ValueError):  # there is none
        microseconds, period = map(int, quota.read_text().split())
        count = min(count, math.ceil(microseconds / period))
    return count


class Decoders:
    """A fixed number of threads, and a queue before them that takes nothing which it could not finish in time.

    Args:
        threads: pieces of work at once.

    Attributes:
        threads: pieces of work at once.
        waiting: pieces that are not done yet.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.waiting = 0
        self._pace = Pace()
        self._strain = Strain()

    @property
    def is_busy(self) -> bool:
        """Whether a further piece would wait for a thread."""
        return self.waiting >= self.threads

    async def run(self, work: Callable[[], Prepared], *, deadline: float, ahead: int) -> Prepared:
        """Do a piece of work on one of the threads. Whoever gives up before it began costs no thread's time.

        Args:
            work: what to do.
            deadline: by the event loop's clock.
            ahead: pieces of others that have to be done before.

        Raises:
            Overloaded: so much waits already that it would not be done before the deadline.
        """
        self._check(deadline - asyncio.get_running_loop().time(), ahead, HEADROOM)

        def timed() -> Prepared:
            start = perf_counter()
            try:
                return work()
            finally:
                self._pace.learn(1, perf_counter() - start)

        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, timed)
        finally:
            self.waiting -= 1

    def check(self, *, deadline: float, ahead: int) -> None:
        """Before a piece of work comes, refuse it where it would not be done in time.

        Raises:
            Overloaded: so much waits already that it would not be done before the deadline.
        """
        now = asyncio.get_running_loop().time()
        seconds = deadline - now
        # with fewer ahead than that, a thread might have nothing to do until the next one comes
        headroom = self._strain.headroom(now, seconds) if ahead >= KEPT_AHEAD * self.threads else HEADROOM
        try:
            self._check(seconds, ahead, headroom)
        except Overloaded:
            self._strain.refused(now, seconds)
            raise

    def _check(self, seconds: float, ahead: int, headroom: float) -> None:
        self._pace.check(ahead, seconds, "to be decoded", at_once=self.threads, headroom=headroom)

    def close(self) -> None:
        """End the threads; what has not begun is given up."""
        self._executor.shutdown(wait=False, cancel_futures=True)

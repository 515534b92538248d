"""`python -m fuzz.soak`: good and hostile traffic at once, and whether the gateway stays as it was."""

import argparse
import itertools
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from urllib.parse import urlsplit

from fuzz.gateway import Client, Footprint, GoodRequests, add_options, gateway
from fuzz.mutation import Asked, Mutations
from fuzz.seeds import pictures

HOSTILE_THREADS = 2
GOOD_PAUSE_SECONDS = 0.02
MOST_GROWTH_MEGABYTES = 40
"""Allocators keep some of what they got; a leak of a kilobyte for each request is soon beyond this."""
MOST_GROWTH_FILES = 20
MOST_GROWTH_THREADS = 5
LARGE = pictures((3000, 2000))[:8]


@dataclass
class Record:
    """What was seen."""

    started: float = field(default_factory=time.monotonic)
    footprints: list[tuple[float, Footprint]] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


def mutated(client: Client, record: Record, seed: int) -> Callable[[], None]:
    """Requests that were valid once."""
    mutations = Mutations(seed)

    def attack() -> None:
        answer = client.ask(mutations.next())
        record.statuses[answer.status] += 1
        if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            record.wrong.append(f"a hostile request (seed {seed}) got 500")

    return attack


def rude(url: str, client: Client, record: Record) -> Callable[[], None]:
    """Connections that leave in the middle, large pictures, floods of JSON."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    head = b"POST /classify-image HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"

    def leave(data: bytes) -> None:
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(data)

    def ask(asked: Asked) -> None:
        record.statuses[client.ask(asked).status] += 1

    ways: list[Callable[[], None]] = [
        lambda: leave(head + b"\x89PNG"),
        lambda: leave(head[:30]),
        lambda: leave(b"\x16\x03\x01" * 100),
        lambda: leave(b"GET /" + b"a" * 60_000),
        lambda: leave(b"POST /classify-text HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n{"),
        lambda: ask(Asked("/classify-text", b'{"texts": [' + b"1," * 200_000 + b"1]}", "application/json")),
        lambda: ask(Asked("/classify-text", b"[" * 1_000_000, "application/json")),
        *(lambda picture=picture: ask(Asked("/classify-image", picture, "image/png")) for picture in LARGE),
        *(lambda picture=picture: ask(Asked("/classify-image", picture[:-999], "image/png")) for picture in LARGE),
    ]
    following = itertools.cycle(ways)

    def attack() -> None:
        next(following)()

    return attack


def soak(url: str, pid: int, *, seconds: float, seed: int, deadline: float) -> Record:
    """Traffic for so long; the gateway is looked at ten times a second."""
    record, good = Record(), GoodRequests(url)
    stop = threading.Event()

    def attack(once: Callable[[], None]) -> None:
        while not stop.is_set():
            with suppress(OSError, HTTPException):
                once()

    def behave(client: Client) -> None:
        while not stop.wait(GOOD_PAUSE_SECONDS):
            try:
                took, fault = good.check(client, deadline)
            except (OSError, HTTPException) as error:
                record.wrong.append(f"a good request got no answer: {error!r}")
                continue
            record.latencies.append((record.now(), took))
            if fault:
                record.wrong.append(fault)

    with ExitStack() as stack:
        polite, rough, *others = [stack.enter_context(closing(Client(url))) for _ in range(2 + HOSTILE_THREADS)]
        attacks = [rude(url, rough, record)]
        attacks += [mutated(client, record, seed + number) for number, client in enumerate(others)]
        threads = [threading.Thread(target=attack, args=(once,)) for once in attacks]
        threads.append(threading.Thread(target=behave, args=(polite,)))
        for thread in threads:
            thread.start()
        while record.now() < seconds:
            record.footprints.append((record.now(), Footprint.of(pid)))
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
    return record


def verdict(record: Record, seconds: float) -> list[str]:
    """Print the table of four quarters; return what is not flat. The first quarter is the warming up."""
    print(f"{'':>12}{'MB':>8}{'threads':>9}{'files':>7}{'good':>8}{'median ms':>11}{'p99 ms':>9}")  # noqa: T201
    quarters = []
    for number in range(4):
        start, end = number * seconds / 4, (number + 1) * seconds / 4
        seen = [footprint for at, footprint in record.footprints if start <= at < end]
        times = sorted(took * 1000 for at, took in record.latencies if start <= at < end)
        quarter = Footprint(
            statistics.median(footprint.megabytes for footprint in seen),
            max(footprint.threads for footprint in seen),
            int(statistics.median(footprint.files for footprint in seen)),
        )
        quarters.append((quarter, _percentile(times, 0.99)))
        print(  # noqa: T201
            f"{start:4.0f} – {end:3.0f} s{quarter.megabytes:>9.1f}{quarter.threads:>9}{quarter.files:>7}"
            f"{len(times):>8}{_percentile(times, 0.5):>11.1f}{_percentile(times, 0.99):>9.1f}"
        )
    print("hostile:", ", ".join(f"{times:,} × {status}" for status, times in sorted(record.statuses.items())))  # noqa: T201
    (_, _), (before, p99_before), _, (after, p99_after) = quarters
    return [
        f"{what} grew from {old:.1f} to {new:.1f} (at most {most:g} more)"
        for what, old, new, most in [
            ("memory (MB)", before.megabytes, after.megabytes, MOST_GROWTH_MEGABYTES),
            ("threads", before.threads, after.threads, MOST_GROWTH_THREADS),
            ("open files", before.files, after.files, MOST_GROWTH_FILES),
            ("the 99th percentile of good requests (ms)", p99_before, p99_after, max(100, p99_before)),
        ]
        if new > old + most
    ]


def _percentile(times: Sequence[float], share: float) -> float:
    return times[int(share * (len(times) - 1))] if times else float("nan")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.soak", description=__doc__)
    add_options(parser)
    parser.add_argument("seconds", nargs="?", type=float, default=60, help="for how long (%(default)s)")
    parser.add_argument("--seed", type=int, default=5, help="where the mutations start (%(default)s)")
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds for a good request (%(default)s)")
    arguments = parser.parse_args()
    with gateway(arguments) as (url, pid):
        if pid is None:
            parser.error("--url needs --pid: whose memory is to be watched?")
        record = soak(url, pid, seconds=arguments.seconds, seed=arguments.seed, deadline=arguments.deadline)
    wrong = [*verdict(record, arguments.seconds), *record.wrong]
    for line in wrong[:20]:
        print(line, file=sys.stderr)  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Several times the load that a server can carry: what it still answers, how soon it refuses the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.inputs import Input
from benchmarks.load import Measurement, closed_loop, open_loop
from benchmarks.servers import Server

CONNECTIONS = 32
"""Of the closed loop that finds the best rate."""
DEADLINE = 1.0
"""Seconds that each request may take: what would come later is refused."""
SECONDS = 8.0
"""That the overload lasts: in the first one the gateway learns what it can take."""


@dataclass(frozen=True)
class Overload:
    """What came of it.

    Attributes:
        server: whose.
        what: the input's name.
        best: right answers a second without overload.
        offered: requests a second.
        measured: what came of those.
        memory: megabytes that the server's processes held before and after; None where no /proc tells it.
    """

    server: str
    what: str
    best: float
    offered: float
    measured: Measurement
    memory: tuple[float, float] | None


def overload(server: Server, sent: Input, *, times: float, seconds: float, newest: bool = False) -> Overload:
    """Find a server's best rate, then ask so many times as often.

    Args:
        server: who is asked.
        sent: what.
        times: its best rate.
        seconds: in which that is found.
        newest: ask no certain version, as most clients do, instead of the one that all servers are compared by.

    Raises:
        LoadProblem: the load cannot be made, or there was no right answer at all.
    """
    url, name = server.urls[sent.kind], sent.name
    if newest:
        url, name = url.partition("?")[0], f"{name}, newest version"
    best = closed_loop(url, sent, connections=CONNECTIONS, seconds=seconds).rate
    before = _megabytes(server.processes[sent.kind])
    measured = open_loop(url, sent, rate=times * best, seconds=SECONDS, deadline=DEADLINE)
    after = _megabytes(server.processes[sent.kind])
    memory = None if before is None or after is None else (before, after)
    return Overload(server.name, name, best, times * best, measured, memory)


def table(overloads: Sequence[Overload]) -> str:
    """The overloads in Markdown."""
    columns = ["what", "server", "best rate", "offered", "answered", "of the best", "p99 of the answered", "refused"]
    columns += ["p50, p99 of the refusals", "failed otherwise", "memory"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in overloads:
        measured = one.measured
        memory = "" if one.memory is None else "{:,.0f} → {:,.0f} MB".format(*one.memory)
        lines.append(
            f"| {one.what} | {one.server} | {one.best:,.0f}/s | {one.offered:,.0f}/s | {measured.rate:,.0f}/s "
            f"| {measured.rate / one.best:.0%} | {measured.p99:,.0f} ms | {measured.refused:,} "
            f"| {measured.refused_p50:,.0f}, {measured.refused_p99:,.0f} ms "
            f"| {measured.failed - measured.refused:,} | {memory} |"
        )
    return "\n".join(lines)


def _megabytes(process: int) -> float | None:
    """What a process and its children hold in memory."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    own = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
    return own + sum(_megabytes(int(child)) or 0.0 for child in children)

"""The load: a closed loop by wrk, where each connection asks again when it was answered, and an open one of our own."""

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvloop

from benchmarks.inputs import Input

SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method, wrk.body = "POST", file:read("*all")
file:close()
wrk.headers["Content-Type"] = "{content_type}"
done = function(summary, latency)
    local errors = summary.errors
    io.write(string.format('\\n{{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "failed": %d}}\\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""
"""For wrk, which runs it as Lua: what to send, and what to tell at the end, as JSON."""
THREADS = 1
"""Of wrk: one keeps up with every server here, and leaves them the rest of the machine."""
TIMEOUT = 30
OK, TOO_MANY = b"HTTP/1.1 200", b"HTTP/1.1 429"


class LoadProblem(Exception):
    """The load could not be made, or was not answered."""


@dataclass(frozen=True)
class Measurement:
    """What came of it.

    Attributes:
        rate: right answers a second.
        p50: milliseconds that half of the answers took at most.
        p99: milliseconds that all but a hundredth took at most.
        failed: requests without a right answer.
        refused: those of them that were told to come back later.
        refused_p99: milliseconds that all but a hundredth of the refusals took at most.
    """

    rate: float
    p50: float
    p99: float
    failed: int
    refused: int = 0
    refused_p99: float = 0.0


def closed_loop(url: str, sent: Input, *, connections: int, seconds: float) -> Measurement:
    """So many connections, each of which asks again as soon as it was answered.

    Raises:
        LoadProblem: wrk is missing or fails, or there was no right answer at all.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise LoadProblem("wrk makes the load, and it is missing: apt-get install wrk, or brew install wrk.")
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "post.lua")
        body.write_bytes(sent.body)
        script.write_text(SCRIPT.format(body=body, content_type=sent.content_type))
        command = [wrk, f"-t{THREADS}", f"-c{connections}", f"-d{seconds:g}s", f"--timeout={TIMEOUT}s"]
        done = subprocess.run([*command, "-s", str(script), url], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadProblem(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    right = told["requests"] - told["failed"]
    if right <= 0:
        raise LoadProblem(f"{url} gave no right answer to {sent.name}.")
    return Measurement(1e6 * right / told["microseconds"], told["p50"] / 1e3, told["p99"] / 1e3, told["failed"])


def open_loop(url: str, sent: Input, *, rate: float, seconds: float, deadline: float | None = None) -> Measurement:
    """So many requests a second, come what may; latency counts from when a request was due, not from when it left.

    Args:
        url: whom to ask.
        sent: what.
        rate: requests a second.
        seconds: for how long.
        deadline: seconds that each request says it may take; None: it says nothing.

    Raises:
        LoadProblem: there was no right answer at all.
    """
    return uvloop.run(_open_loop(url, sent, rate, seconds, deadline))


async def _open_loop(url: str, sent: Input, rate: float, seconds: float, deadline: float | None) -> Measurement:
    place = urlsplit(url)
    host, port = place.hostname or "127.0.0.1", place.port or 80
    target = f"{place.path}?{place.query}" if place.query else place.path
    head = f"POST {target} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {sent.content_type}\r\n"
    if deadline is not None:
        head += f"X-Request-Timeout: {deadline:g}\r\n"
    request = f"{head}Content-Length: {len(sent.body)}\r\n\r\n".encode() + sent.body
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    latencies: list[float] = []
    refusals: list[float] = []
    failed = 0

    async def ask(due: float) -> None:
        nonlocal failed
        try:
            reader, writer = idle.pop() if idle else await asyncio.open_connection(host, port)
            writer.write(request)
            header = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
            length = next(line for line in header.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        except (OSError, EOFError, TimeoutError, StopIteration):
            failed += 1
            return
        if not header.startswith(OK):
            failed += 1
            if header.startswith(TOO_MANY):
                refusals.append(time.perf_counter() - due)
            writer.close()
            return
        idle.append((reader, writer))
        latencies.append(time.perf_counter() - due)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(ask(due))
    took = time.perf_counter() - start
    for _, writer in idle:
        writer.close()
    if not latencies:
        raise LoadProblem(f"{url} gave no right answer to {sent.name}.")
    p50, p99 = np.quantile(latencies, [0.5, 0.99]) * 1e3
    refused_p99 = float(np.quantile(refusals, 0.99)) * 1e3 if refusals else 0.0
    return Measurement(len(latencies) / took, float(p50), float(p99), failed, len(refusals), refused_p99)

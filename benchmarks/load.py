"""The load: a closed loop by wrk, where each connection asks again when it was answered, and an open one of our own."""

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast
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
LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
OK, TOO_MANY, CLOSE = b"HTTP/1.1 200", b"HTTP/1.1 429", b"\r\nconnection: close\r\n"


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
    target = f"{place.path}?{place.query}" if place.query else place.path
    head = f"POST {target} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {sent.content_type}\r\n"
    if deadline is not None:
        head += f"X-Request-Timeout: {deadline:g}\r\n"
    request = f"{head}Content-Length: {len(sent.body)}\r\n\r\n".encode() + sent.body
    connections = _Connections(place.hostname or "127.0.0.1", place.port or 80)
    latencies: list[float] = []
    refusals: list[float] = []

    last = 0.0

    async def ask(due: float) -> None:
        nonlocal last
        with suppress(OSError):
            answer = await connections.ask(request)
            if answer.startswith((OK, TOO_MANY)):
                (latencies if answer.startswith(OK) else refusals).append(time.perf_counter() - due)
            last = time.perf_counter()

    start = time.perf_counter()
    asked = round(rate * seconds)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds + TIMEOUT), asyncio.TaskGroup() as group:
            for number in range(asked):
                due = start + number / rate
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                # the loop's clock of milliseconds may have ended the sleep too soon
                group.create_task(ask(min(due, time.perf_counter())))
    took = last - start
    connections.close()
    if not latencies:
        raise LoadProblem(f"{url} gave no right answer to {sent.name}.")
    p50, p99 = np.quantile(latencies, [0.5, 0.99]) * 1e3
    refused_p99 = float(np.quantile(refusals, 0.99)) * 1e3 if refusals else 0.0
    failed = asked - len(latencies)
    return Measurement(len(latencies) / took, float(p50), float(p99), failed, len(refusals), refused_p99)


class _Connections:
    """As many as are needed for all that is asked at once; each is used again."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: list[_Connection] = []

    async def ask(self, request: bytes) -> bytes:
        """A request → its answer. Raises OSError: there was none."""
        connection = self._reusable()
        if connection is None:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, self._host, self._port)
        answer = await connection.ask(request)
        if CLOSE in answer.lower():
            connection.close()
        self._idle.append(connection)
        return answer

    def _reusable(self) -> "_Connection | None":
        while self._idle:
            if not (connection := self._idle.pop()).is_closing():
                return connection
        return None

    def close(self) -> None:
        """Ask no more."""
        for connection in self._idle:
            connection.close()


class _Connection(asyncio.Protocol):
    """One that asks a request at a time. Streams cost several times as much, which the servers would lack."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._received = b""
        self._answer: asyncio.Future[bytes] | None = None

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send it → its answer. Raises OSError: the connection was closed instead."""
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or self._answer is None or self._answer.done():
            return
        length = LENGTH.search(head)
        if length is None:
            self._answer.set_exception(ConnectionError("an answer of unknown length"))
        elif len(body) >= int(length[1]):
            self._answer.set_result(self._received)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("closed before its answer"))

    def is_closing(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Ask no more."""
        self._transport.close()

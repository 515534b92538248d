"""The load: a closed loop by wrk, where each connection asks again when it was answered, and an open one of our own."""

import json
import math
import re
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

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
SETTLE_SECONDS = 120
AT_ONCE = 64
"""Requests that the open loop sends before it looks for answers again."""
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
        refused_p50: milliseconds that half of the refusals took at most.
        refused_p99: milliseconds that all but a hundredth of the refusals took at most.
    """

    rate: float
    p50: float
    p99: float
    failed: int
    refused: int = 0
    refused_p50: float = 0.0
    refused_p99: float = 0.0


def ask_once(url: str, sent: Input, *, timeout: float) -> None:
    """Send one request, and wait for its answer for so many seconds.

    Raises:
        OSError: there is none, or it tells of an error.
    """
    request = urllib.request.Request(url, sent.body, {"Content-Type": sent.content_type})  # noqa: S310  # http, see servers
    with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310  # as above
        pass


def settle(url: str, sent: Input) -> None:
    """Wait until a server has done with what it was asked before: it answers one more request.

    Raises:
        LoadProblem: it does not.
    """
    try:
        ask_once(url, sent, timeout=SETTLE_SECONDS)
    except OSError as error:
        raise LoadProblem(f"{url} does not answer {sent.name} ({error}).") from error


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
    place = urlsplit(url)
    target = f"{place.path}?{place.query}" if place.query else place.path
    head = f"POST {target} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {sent.content_type}\r\n"
    if deadline is not None:
        head += f"X-Request-Timeout: {deadline:g}\r\n"
    request = f"{head}Content-Length: {len(sent.body)}\r\n\r\n".encode() + sent.body
    asked = round(rate * seconds)
    with _Crowd(place.hostname or "127.0.0.1", place.port or 80, request) as crowd:
        start = time.perf_counter()
        begun = 0
        while (begun < asked or crowd.waiting) and (now := time.perf_counter()) < start + seconds + TIMEOUT:
            due = min(asked, math.ceil((now - start) * rate))
            for number in range(begun, min(due, begun + AT_ONCE)):
                crowd.ask(start + number / rate)
                begun = number + 1
            crowd.hear(start + begun / rate - now if begun < asked else TIMEOUT)
        took = crowd.last - start
    latencies, refusals = crowd.latencies, crowd.refusals
    if not latencies:
        raise LoadProblem(f"{url} gave no right answer to {sent.name}.")
    p50, p99 = np.quantile(latencies, [0.5, 0.99]) * 1e3
    refused = np.quantile(refusals, [0.5, 0.99]) * 1e3 if refusals else (0.0, 0.0)
    failed = asked - len(latencies)
    return Measurement(len(latencies) / took, float(p50), float(p99), failed, len(refusals), *map(float, refused))


class _Crowd:
    """Clients that ask one request each, over as many connections as that takes; each connection is used again.

    On bare sockets: an event loop's transports cost several times as much, which the servers would lack.

    Attributes:
        latencies: seconds from when a request was due to its right answer.
        refusals: the same of those that were told to come back later.
        waiting: clients that were not answered yet.
        last: when the last answer came.
    """

    def __init__(self, host: str, port: int, request: bytes) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._family: int = found[0]
        self._address: Any = found[4]
        self._request = request
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Connection] = []
        self.latencies: list[float] = []
        self.refusals: list[float] = []
        self.waiting = 0
        self.last = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()

    def ask(self, due: float) -> None:
        """Send a request that was due then."""
        self.waiting += 1
        try:
            connection = self._idle_one() or self._open()
        except OSError:
            self.waiting -= 1
            return
        connection.due, connection.received = due, b""
        connection.unsent = memoryview(self._request)
        if connection.is_open:
            self._send(connection)

    def _idle_one(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.socket.fileno() >= 0:
                return connection
        return None

    def _open(self) -> "_Connection":
        client = socket.socket(self._family, socket.SOCK_STREAM)
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect_ex(self._address)
        connection = _Connection(client)
        self._selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
        return connection

    def hear(self, seconds: float) -> None:
        """Take what was answered, and send on what did not fit; wait for it so long at most, if at all."""
        for key, events in self._selector.select(max(0, seconds)):
            if events & selectors.EVENT_WRITE:
                self._send(key.data)
            if events & selectors.EVENT_READ:
                self._receive(key.data)

    def _send(self, connection: "_Connection") -> None:
        try:
            sent = connection.socket.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost(connection)
            return
        connection.unsent = connection.unsent[sent:]
        if bool(connection.unsent) == connection.is_open:
            connection.is_open = not connection.unsent
            more = 0 if connection.is_open else selectors.EVENT_WRITE
            self._selector.modify(connection.socket, selectors.EVENT_READ | more, connection)
            if connection.is_open and connection.due is None:  # it was answered before all was sent
                self._idle.append(connection)

    def _receive(self, connection: "_Connection") -> None:
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.received += data
        answer = connection.received
        if not data or connection.due is None:
            self._lost(connection)
        elif _is_whole(answer):
            self.last = time.perf_counter()
            if answer.startswith((OK, TOO_MANY)):
                (self.latencies if answer.startswith(OK) else self.refusals).append(self.last - connection.due)
            if CLOSE in answer.lower():
                self._lost(connection)
            else:
                connection.due = None
                self.waiting -= 1
                if connection.is_open:
                    self._idle.append(connection)

    def _lost(self, connection: "_Connection") -> None:
        """It was closed, or says what nobody asked."""
        if connection.socket.fileno() < 0:
            return
        self.waiting -= connection.due is not None
        self._selector.unregister(connection.socket)
        connection.socket.close()


@dataclass(slots=True)
class _Connection:
    """A connection on which one request at a time is asked.

    Attributes:
        socket: which does not block.
        is_open: whether it can be written to, as far as is known.
        unsent: of the request.
        received: of the answer.
        due: when the request should have been sent; None: none is waiting.
    """

    socket: socket.socket
    is_open: bool = False
    unsent: bytes | memoryview = b""
    received: bytes = b""
    due: float | None = None


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = LENGTH.search(head) if end else None
    return length is not None and len(body) >= int(length[1])

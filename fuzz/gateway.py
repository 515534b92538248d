"""The gateway that is asked: one that runs already, or one started for it; and what of it can be watched."""

import argparse
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from fuzz.mutation import Asked, valid_requests

PATIENCE_SECONDS = 60


@dataclass
class Answer:
    """What came back, and how long it took."""

    status: int
    seconds: float
    body: bytes


class Client:
    """One connection to a gateway, made anew whenever it is gone."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_SECONDS)

    def ask(self, asked: Asked) -> Answer:
        """The answer, whatever it is. Raises OSError or HTTPException where there is none."""
        query = "&".join(f"{quote(name, safe='[]%')}={quote(value, safe='%')}" for name, value in asked.query)
        started = time.perf_counter()
        try:
            self._connection.putrequest(asked.method, asked.path + (f"?{query}" if query else ""))
            for name, value in [
                ("Content-Type", asked.content_type),
                ("Content-Length", str(len(asked.body))),
                *asked.headers,
            ]:
                self._connection.putheader(name, value.encode("latin-1"))
            self._connection.endheaders(asked.body)
            response = self._connection.getresponse()
            body = response.read()
        except BaseException:
            self._connection.close()
            raise
        return Answer(response.status, time.perf_counter() - started, body)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class GoodRequests:
    """Valid requests with the answers that they got while nobody disturbed."""

    def __init__(self, url: str) -> None:
        with closing(Client(url)) as client:
            self._expected = [(asked, _labels(client.ask(asked))) for asked in valid_requests()]
        self._at = 0

    def check(self, client: Client, deadline: float) -> tuple[float, str | None]:
        """Ask the next one: (seconds that it took, what was wrong with the answer)."""
        asked, expected = self._expected[self._at % len(self._expected)]
        self._at += 1
        answer = client.ask(asked)
        if answer.status != http.client.OK:
            return answer.seconds, f"a good request got {answer.status}: {answer.body[:300]!r}"
        if _labels(answer) != expected:
            return answer.seconds, f"a good request got {_labels(answer)} instead of {expected}"
        if answer.seconds > deadline:
            return answer.seconds, f"a good request took {answer.seconds:.3f} s"
        return answer.seconds, None


def _labels(answer: Answer) -> list[str | None]:
    document: dict[str, Any] = json.loads(answer.body)
    if answer.status != http.client.OK:
        raise RuntimeError(f"a valid request got {answer.status} before anything else was asked: {document}")
    return [result.get("label") for result in document.get("results", [document])]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags that say which gateway."""
    parser.add_argument("--url", help="a gateway that runs on this machine; unless given, one is started")
    parser.add_argument("--pid", type=int, help="its process, where its memory is to be watched")
    parser.add_argument("--models", type=Path, default=Path("models"), help="what a started one serves (%(default)s)")


@contextmanager
def gateway(arguments: argparse.Namespace) -> Iterator[tuple[str, int | None]]:
    """The URL and the process of the gateway that the flags name, ready."""
    if arguments.url:
        yield arguments.url, arguments.pid
        return
    command = [sys.executable, "-m", "sightread", "serve", "--port", "0", "--log-level", "warning"]
    with subprocess.Popen([*command, "--models", str(arguments.models)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101
            url = process.stdout.readline().rpartition(" ")[2].strip()
            if not url:
                raise SystemExit("the gateway did not start")
            _wait_until_ready(url)
            yield url, process.pid
        finally:
            process.terminate()


def _wait_until_ready(url: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    with closing(Client(url)) as client:
        while client.ask(Asked("/readyz", b"", "", method="GET")).status != http.client.OK:
            if time.monotonic() > until:
                raise SystemExit(f"the gateway is not ready after {PATIENCE_SECONDS} s")
            time.sleep(0.1)


@dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    megabytes: float
    threads: int
    files: int

    @staticmethod
    def of(pid: int) -> "Footprint":
        """As /proc tells it."""
        folder = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return Footprint(
            int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), len(list((folder / "fd").iterdir()))
        )

"""Real programs on loopback, and how the tests talk to them."""

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PATIENCE = 180.0
LONG_PATIENCE = 300.0
UNSETTLED = {"start", "loading", "proving"}
CERTIFICATES = ssl.create_default_context()
"""Made once: httpx would read all certificates for every request, which takes longer than the request."""


@dataclass
class Service:
    """A running program: a gateway at a URL, or a model server at an address."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, verify=CERTIFICATES, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=30, verify=CERTIFICATES, **options)

    def versions(self, model: str = "cnn") -> dict[int, dict[str, Any]]:
        """What /models says of each version of a model."""
        (described,) = [entry for entry in self.get("/models").json()["models"] if entry["name"] == model]
        return {entry["version"]: entry for entry in described["versions"]}

    def is_ready(self) -> bool:
        return self.get("/readyz").status_code == 200

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; tell what the program said if it never gets so."""
        until = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"it ended:\n{self.log.read_text()}"
            assert time.monotonic() < until, f"waited {PATIENCE} s in vain:\n{self.log.read_text()}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until it is ready and its versions are proven or refused; those that ship take their time."""
        until = time.monotonic() + LONG_PATIENCE
        while not self._is_settled():
            assert self.process.poll() is None, f"it ended:\n{self.log.read_text()}"
            assert time.monotonic() < until, f"waited {LONG_PATIENCE} s in vain:\n{self.log.read_text()}"
            time.sleep(0.5)

    def _is_settled(self) -> bool:
        answer = self.get("/readyz").json()
        states = {version["state"] for model in answer["models"] for version in model["versions"]}
        return bool(answer["ready"]) and not states & UNSETTLED

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def gateway(log: Path, *flags: str, environment: dict[str, str] | None = None) -> Iterator[Service]:
    """`sightread serve` on a port of its own."""
    command = [sys.executable, "-m", "sightread", "serve", "--port", "0", *flags]
    # no load balancer has to see that it stops
    environment = {"SIGHTREAD_NOT_READY_SECONDS": "0", **(environment or {})}
    with started(command, "Sightread listens on ", log, environment) as service:
        yield service


@contextmanager
def model_server(
    log: Path, repository: Path, *, address: str = "127.0.0.1:0", flags: tuple[str, ...] = ()
) -> Iterator[Service]:
    """A local model server by itself; its `url` is its address."""
    command = [sys.executable, "-m", "serving.local_model_server", "--models", str(repository)]
    command += ["--address", address, "--poll-seconds", "0.2", *flags]
    with started(command, "listening on ", log) as service:
        yield service


@contextmanager
def started(
    command: list[str],
    announcement: str,
    log: Path,
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[Service]:
    """A program in a session of its own that says on standard output where it listens."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
            cwd=folder,
        )
    assert process.stdout is not None
    try:
        # make may have something to say before
        line = next((line for line in process.stdout if line.startswith(announcement)), None)
        assert line is not None, log.read_text()
        yield Service(process, line.removeprefix(announcement).strip(), log)
    finally:
        process.stdout.close()
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            # whatever it left behind would spoil the next test
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

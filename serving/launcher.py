"""Starts the local model server as a process of its own, and ends it."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

GRACE_SECONDS = 10


class LocalModelServer:
    """A local model server on a Unix socket of its own, for as long as the context lasts.

    It ends with this process however that ends: its standard input is a pipe whose other end only we hold. If it ends
    by itself, this process is asked to stop (SIGTERM), and `ended` is true. Its log goes to `log`, or else to our
    standard error.
    """

    def __init__(self, models: Path, *, log: IO[str] | None = None) -> None:
        self._models = models
        self._log = log
        self._stopping = False
        self.ended = False

    @property
    def address(self) -> str:
        """The gRPC target."""
        return f"unix:{self._folder.name}/model-server.sock"

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="sightread-")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "serving.local_model_server",
                *("--models", str(self._models)),
                *("--address", self.address),
                "--exit-with-parent",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # it says there where it listens, and we told it
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for us: we stop it when we have drained
        )
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._folder.cleanup()

    def _watch(self) -> None:
        self._process.wait()
        if not self._stopping:
            self.ended = True
            os.kill(os.getpid(), signal.SIGTERM)

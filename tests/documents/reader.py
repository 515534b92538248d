"""Somebody who types what a page says, in a copy of the project, and looks whether it comes out as the page shows."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.documents.answers import agrees
from tests.documents.pages import ROOT, Command
from tests.e2e.processes import Service, started
from tests.training.made_data import write_sentences, write_shapes

SERVES = re.compile(r"(SIGHTREAD_\w+=\S+ )*(make serve|\.venv/bin/sightread serve)\b")
ADDRESS = "127.0.0.1:8080"
ANSWER_SECONDS = 20.0
"""A version that was just published or labelled answers within a second or two, pages say; here the machine is busy."""
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", ".schemathesis", "__pycache__", "runs")


class Reader:
    """Types one command after another; what serves goes on while the next ones are typed.

    Args:
        folder: the reader's copy of the project.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._serving = ExitStack()
        self._service: Service | None = None
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SIGHTREAD_")},
            # nothing of what make was told, if it runs the tests
            "FLAGS": "",
            "MAKEFLAGS": "",
            # what the reader's shell would find: no program of the virtual environment
            "PATH": os.environ["PATH"].replace(f"{Path(sys.executable).parent}:", ""),
            "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "client")]),
            "HOME": str(folder / "home"),
            "COLUMNS": "120",
        }

    def type(self, command: Command) -> None:
        """Do what a page says, and look whether it shows the truth.

        Raises:
            AssertionError: the command fails, or answers something else.
        """
        if SERVES.match(command.text):
            self.serve(command.text)
            return
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            done = self._run(command)
            assert done.returncode == 0, f"{command.text}\nexit status {done.returncode}\n{done.stdout}{done.stderr}"
            if command.answer is None or agrees(self._addressed(command.answer), done.stdout):
                return
            # asking twice harms nobody
            again = command.text.startswith("curl ") and time.monotonic() < until
            assert again, f"{command.text}\nis said to answer\n{command.answer}\nand answers\n{done.stdout}"
            time.sleep(0.5)

    def serve(self, text: str = "make serve") -> None:
        """Start a service in place of the one before, and wait until its versions are proven or refused."""
        self.stop()
        environment = {**self._environment, "SIGHTREAD_PORT": "0"}
        command = ["bash", "-c", text]
        log = self._folder / "service.log"
        service = self._serving.enter_context(
            started(command, "Sightread listens on ", log, environment, folder=self._folder)
        )
        service.settle()
        self._service = service

    def stop(self) -> None:
        """End what serves."""
        self._serving.close()
        self._service = None

    def _run(self, command: Command) -> subprocess.CompletedProcess[str]:
        program = [".venv/bin/python", "-c"] if command.language == "python" else ["bash", "-o", "pipefail", "-c"]
        text = self._addressed(command.text)
        if text.startswith("curl "):
            text = text.replace("curl ", "curl --silent --show-error ", 1)
        environment = dict(self._environment)
        if self._service is not None:
            environment |= {"SIGHTREAD_URL": self._service.url, "SIGHTREAD_PORT": self._service.url.rpartition(":")[2]}
        return subprocess.run(
            [*program, text],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def _addressed(self, text: str) -> str:
        return text.replace(ADDRESS, self._service.url.removeprefix("http://")) if self._service else text


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    """Somebody with a fresh copy of the project, its packages installed, and files of their own.

    Args:
        folder: where the copy goes; it must not be there.
    """
    shutil.copytree(ROOT, folder, ignore=NOT_COPIED)
    environment = folder / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        (environment / entry.name).symlink_to(entry)
    # `make` must not install anything into what the links lead to
    (environment / "ready").unlink(missing_ok=True)
    (environment / "ready").touch()
    write_shapes(folder / "photos", 60, seed=0)
    write_sentences(folder / "reviews.jsonl", 600, labels=3, seed=0)
    somebody = Reader(folder)
    try:
        yield somebody
    finally:
        somebody.stop()


def words(command: str) -> list[str]:
    """A command's words, without what the shell does with them."""
    return shlex.split(command.replace("\\\n", " "), comments=True)

"""Commands as they run in a pipe, and on a terminal of a certain width."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

SIGHTREAD = [sys.executable, "-m", "sightread"]
QUIET = {"NO_COLOR": "", "FORCE_COLOR": "", "COLUMNS": "", "SIGHTREAD_URL": "", "SIGHTREAD_API_KEY": ""}
"""What the environment of the tests must not decide; empty is unset."""


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote; a terminal shows both streams as one."""

    code: int
    out: str
    err: str = ""


def sightread(*arguments: str, stdin: bytes = b"", environment: dict[str, str] | None = None) -> Done:
    """Run a command between pipes."""
    done = subprocess.run(
        [*SIGHTREAD, *arguments], input=stdin, capture_output=True, check=False, env=_environment(environment)
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def sightread_on_terminal(*arguments: str, columns: int = 80, environment: dict[str, str] | None = None) -> Done:
    """Run a command on a terminal; nobody types."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    colours = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    options: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(
        [*SIGHTREAD, *arguments], **options, env=_environment(colours | (environment or {}))
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # how a terminal ends that nobody has open any more
            while read := os.read(ours, 65536):
                shown += read
        os.close(ours)
    return Done(process.returncode, shown.decode().replace("\r\n", "\n"))


def _environment(further: dict[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in {**os.environ, **QUIET, **(further or {})}.items() if value}

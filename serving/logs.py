"""Log lines: one an event, with its fields, for people or for machines. No line holds a text or a picture."""

import asyncio
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, Literal, TextIO

WRITTEN_AFTER = 0.005
"""Seconds until a request's line is written: whoever was just answered often asks again at once, and would wait for it.
A process that is killed in between leaves no word of what it answered last."""
STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What an event tells besides its message."""
    return {name: value for name, value in vars(record).items() if name not in STANDARD_FIELDS}


class TextFormatter(logging.Formatter):
    """`time level message key=value …`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, its extra fields last, and below it where an exception came from."""
        line = self.line(record.created, record.levelname, record.name, record.getMessage(), fields(record))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line

    def line(self, at: float, level: str, logger: str, message: str, told: Mapping[str, Any]) -> str:
        """One event as a line."""
        del logger
        words = [f"{name}={_printable(value)}" for name, value in told.items()]
        return " ".join([f"{_time(int(at))[11:19]} {level:<7} {message}", *words])


class JsonFormatter(logging.Formatter):
    """One JSON object a line. A library's, which can be told much more, took as long as decoding a small picture."""

    def format(self, record: logging.LogRecord) -> str:
        """The object: time, level, logger, message, and the event's fields."""
        told = fields(record)
        if record.exc_info:
            told["exc_info"] = self.formatException(record.exc_info)
        return self.line(record.created, record.levelname, record.name, record.getMessage(), told)

    def line(self, at: float, level: str, logger: str, message: str, told: Mapping[str, Any]) -> str:
        """One event as a line."""
        members = [f', "{name}": {_json(value)}' for name, value in told.items()]
        return f"{_opening(int(at), level, logger, message)}{''.join(members)}}}"


class Lines(logging.StreamHandler[TextIO]):
    """Writes lines to standard error; those of requests a moment later, and together."""

    def __init__(self, style: TextFormatter | JsonFormatter) -> None:
        super().__init__()
        self.setFormatter(style)
        self._style = style
        self._held: list[tuple[float, str, str, str, Mapping[str, Any]]] = []

    def hold(self, logger: str, message: str, told: Mapping[str, Any]) -> None:
        """Have an event's line written in a moment."""
        with self._locked():
            if not self._held:
                asyncio.get_running_loop().call_later(WRITTEN_AFTER, self.flush)
            self._held.append((time.time(), "INFO", logger, message, told))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, after those that are held: they came before."""
        self.flush()
        super().emit(record)

    def flush(self) -> None:
        """Write what is held."""
        # whoever read the log may be gone, and at the end of the process so may the stream
        with self._locked(), suppress(OSError, ValueError):
            held, self._held = self._held, []
            if held:
                self.stream.write("".join([self._style.line(*event) + self.terminator for event in held]))
            super().flush()

    def _locked(self) -> AbstractContextManager[Any]:
        assert self.lock is not None, "a handler has a lock"  # noqa: S101
        return self.lock


def log_request(logger: logging.Logger, told: Mapping[str, Any]) -> None:
    """What `logger.info("request", extra=told)` does, for a small part of its cost: this comes with every request."""
    if not logger.isEnabledFor(logging.INFO):
        return
    match logging.root.handlers:
        case [Lines() as lines]:
            lines.hold(logger.name, "request", told)
        case _:  # somebody embeds the gateway, and has set up logging in another way
            logger.info("request", extra=told)


def write_lines() -> None:
    """Write what is held: after this the process may end by a signal, which asks nobody."""
    for handler in logging.root.handlers:
        handler.flush()


@lru_cache(maxsize=8)
def _opening(at: int, level: str, logger: str, message: str) -> str:
    """What all lines of one kind and one second have in common."""
    first = {"time": _time(at), "level": level, "logger": logger, "message": message}
    return json.dumps(first).removesuffix("}")


@lru_cache(maxsize=1)
def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))


def _json(value: object) -> str:
    """As `json.dumps` writes it, which sets up an encoder for each value."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return repr(value)
    return json.dumps(value, default=str)


def _printable(value: object) -> str:
    """What a client chose must not make a line of its own, or colour the terminal."""
    text = str(value)
    return text if text.isprintable() else ascii(text)


def configure_logging(style: Literal["auto", "text", "json"], level: str) -> None:
    """Send this process's log lines to standard error in one style."""
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    lines = Lines(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[lines], force=True)
    # no line tells these, and to find them out takes longer than to write it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # the way that the logging HOWTO names, under "Optimization"
    logging.captureWarnings(capture=True)
    warnings.filterwarnings("ignore", module="PIL")  # its remarks on odd files would be clients' to write
    logging.getLogger("asyncio").setLevel("WARNING")
    logging.getLogger("python_multipart").setLevel("ERROR")  # its warnings are clients' to cause
    logging.getLogger("uvicorn").setLevel("ERROR")  # it would repeat what our own lines say, as often as clients like

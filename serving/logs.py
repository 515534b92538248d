"""Log lines: one an event, with its fields, for people or for machines. No line holds a text or a picture."""

import json
import logging
import sys
import time
import warnings
from functools import lru_cache
from typing import Any, Literal

STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What an event tells besides its message."""
    return {name: value for name, value in vars(record).items() if name not in STANDARD_FIELDS}


class TextFormatter(logging.Formatter):
    """`time level message key=value …`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the standard library's name
        """The line, its extra fields last."""
        told = [f"{name}={_printable(value)}" for name, value in fields(record).items()]
        return " ".join([super().formatMessage(record), *told])


class JsonFormatter(logging.Formatter):
    """One JSON object a line. A library's, which can be told much more, took as long as decoding a small picture."""

    def format(self, record: logging.LogRecord) -> str:
        """The object: time, level, logger, message, and the event's fields."""
        line = {
            "time": _time(int(record.created)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields(record),
        }
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@lru_cache(maxsize=1)
def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))


def _printable(value: object) -> str:
    """What a client chose must not make a line of its own, or colour the terminal."""
    text = str(value)
    return text if text.isprintable() else ascii(text)


def configure_logging(style: Literal["auto", "text", "json"], level: str) -> None:
    """Send this process's log lines to standard error in one style."""
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # no line tells these, and to find them out takes longer than to write it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  # the way that the logging HOWTO names, under "Optimization"
    logging.captureWarnings(capture=True)
    warnings.filterwarnings("ignore", module="PIL")  # its remarks on odd files would be clients' to write
    logging.getLogger("asyncio").setLevel("WARNING")
    logging.getLogger("python_multipart").setLevel("ERROR")  # its warnings are clients' to cause
    logging.getLogger("uvicorn").setLevel("ERROR")  # it would repeat what our own lines say, as often as clients like

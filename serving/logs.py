"""Log lines: one an event, with its fields, for people or for machines. No line holds a text or a picture."""

import logging
import sys
import warnings
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """`time level message key=value …`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the standard library's name
        """The line, its extra fields last."""
        fields = [f"{key}={_printable(value)}" for key, value in vars(record).items() if key not in STANDARD_FIELDS]
        return " ".join([super().formatMessage(record), *fields])


def _printable(value: object) -> str:
    """What a client chose must not make a line of its own, or colour the terminal."""
    text = str(value)
    return text if text.isprintable() else ascii(text)


def configure_logging(style: Literal["auto", "text", "json"], level: str) -> None:
    """Send this process's log lines to standard error in one style."""
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler()
    if style == "json":
        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    warnings.filterwarnings("ignore", module="PIL")  # its remarks on odd files would be clients' to write
    logging.getLogger("asyncio").setLevel("WARNING")
    logging.getLogger("python_multipart").setLevel("ERROR")  # its warnings are clients' to cause
    logging.getLogger("uvicorn").setLevel("ERROR")  # it would repeat what our own lines say, as often as clients like

"""Log lines: their looks, and that those of requests are held for a moment and not lost."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest

from serving.logs import JsonFormatter, Lines, TextFormatter, log_request
from tests.serving.test_accepting import until

TOLD = {
    "request_id": 'a"b\\',
    "path": "/\x1b[31mé\u2028",
    "status": 200,
    "seconds": 0.25,
    "lost": float("nan"),
    "on": True,
}
logger = logging.getLogger("sightread.test")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    root.setLevel("INFO")
    yield root
    root.handlers[:] = before
    root.setLevel(level)


def lines_to(stream: io.StringIO, root: logging.Logger, style: TextFormatter | JsonFormatter) -> Lines:
    lines = Lines(style)
    lines.setStream(stream)
    root.handlers[:] = [lines]  # without those that the test runner has put there since
    return lines


def test_a_request_is_told_as_any_other_event(root: logging.Logger) -> None:
    stream = io.StringIO()
    lines_to(stream, root, JsonFormatter())

    async def tell() -> None:
        log_request(logger, TOLD)
        assert not stream.getvalue(), "held for a moment"
        logger.info("request", extra=TOLD)

    asyncio.run(tell())
    told, by_the_library = (json.loads(line) for line in stream.getvalue().splitlines())
    assert str(told.pop("lost")) == str(by_the_library.pop("lost")) == "nan"
    assert told | {"time": 0} == by_the_library | {"time": 0}
    assert datetime.fromisoformat(told.pop("time")).tzinfo
    assert told == {
        "level": "INFO",
        "logger": "sightread.test",
        "message": "request",
        **{name: value for name, value in TOLD.items() if name != "lost"},
    }
    assert stream.getvalue().isascii()


def test_lines_stay_in_order_and_come_in_a_moment(root: logging.Logger) -> None:
    stream = io.StringIO()
    lines_to(stream, root, TextFormatter())

    async def tell() -> None:
        log_request(logger, {"number": 1})
        log_request(logger, {"number": 2})
        logger.warning("between")
        log_request(logger, {"number": 3})
        assert "number=3" not in stream.getvalue()
        await until(lambda: "number=3" in stream.getvalue())

    asyncio.run(tell())
    words = [line.split(maxsplit=1)[1].split() for line in stream.getvalue().splitlines()]
    assert words == [
        ["INFO", "request", "number=1"],
        ["INFO", "request", "number=2"],
        ["WARNING", "between"],
        ["INFO", "request", "number=3"],
    ]


def test_a_client_makes_no_line_of_its_own_and_colours_no_terminal(root: logging.Logger) -> None:
    stream = io.StringIO()
    lines = lines_to(stream, root, TextFormatter())

    async def tell() -> None:
        log_request(logger, {"path": "/a\nFAKE", "id": "\x1b[31m"})
        lines.flush()

    asyncio.run(tell())
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_nobody_who_reads_the_log_is_no_reason_to_fail(root: logging.Logger) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    lines = lines_to(Gone(), root, JsonFormatter())

    async def tell() -> None:
        log_request(logger, {"number": 1})
        logger.warning("another event")
        log_request(logger, {"number": 2})
        lines.flush()

    asyncio.run(tell())


def test_below_its_level_nothing_is_held(root: logging.Logger) -> None:
    stream = io.StringIO()
    lines_to(stream, root, JsonFormatter())
    root.setLevel("WARNING")

    async def tell() -> None:
        log_request(logger, {"number": 1})

    asyncio.run(tell())
    assert not stream.getvalue()


@pytest.mark.parametrize("beside_ours", [False, True])
def test_who_embeds_the_gateway_gets_records(root: logging.Logger, *, beside_ours: bool) -> None:
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    if beside_ours:
        lines_to(io.StringIO(), root, JsonFormatter())
    root.addHandler(Collector())
    log_request(logger, {"number": 1})
    (record,) = records
    assert (record.getMessage(), vars(record)["number"]) == ("request", 1)


def test_an_exception_is_told(root: logging.Logger) -> None:
    for style in (JsonFormatter(), TextFormatter()):
        stream = io.StringIO()
        lines_to(stream, root, style)
        try:
            int("gone")
        except ValueError:
            logger.exception("broken")
        assert "ValueError: invalid literal" in stream.getvalue()

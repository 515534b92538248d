"""Plain requests are answered without parser and application; what else a client does ends as it would there."""

import asyncio
import gc
import hashlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import uvloop
from uvicorn.server import ServerState

from serving.classification import Classification, Classifier
from serving.http.connections import LINGER_SECONDS, PLAIN_WAY, limited_connection
from serving.http.endpoints import image_endpoint, text_endpoint
from serving.http.exchange import Exchange
from serving.http.middleware import Bodies
from serving.http.plain_way import PlainWay
from serving.http.requests import LARGE_PICTURE
from serving.metrics import Metrics
from serving.problems import Overloaded, Unprocessable
from serving.settings import Settings
from serving.tracing import TRACEPARENT
from serving.turns import Turns
from tests.serving.plain_requests import PICTURE, PLAIN, TEXT, Named, with_header
from tests.serving.test_accepting import until
from tests.serving.test_exchange import answering, serve

DEADLINE = 0.5
HEAD = PLAIN.removesuffix(TEXT)
LIVENESS = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Version:
    """Stands for one: its number."""

    number: int = 7


@dataclass
class Reader:
    """Stands for a classifier: what a text says is done."""

    model: Named = field(default_factory=Named)
    queued: int = 0
    traces: list[str | None] = field(default_factory=list)
    was_given_up: bool = False
    decodes: bool = True

    def check(self, _: float, *, is_large_picture: bool) -> None:
        if is_large_picture and not self.decodes:
            raise Overloaded("Pictures wait to be decoded already.", retry_after=1)

    def encoding(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def classify(self, items: Sequence[str | bytes], **_: object) -> Classification:
        self.traces.append(TRACEPARENT.get())
        (text,) = items
        match text:
            case bytes():
                text = hashlib.sha256(text).hexdigest()
            case "slow":
                await asyncio.sleep(0.2)
            case "never":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.was_given_up = True
                    raise
            case "unspeakable":
                raise Unprocessable("\ud800 cannot be written")
            case "defect":
                raise ValueError("a secret of the inside")
        outcome = Unprocessable("The text is bad.") if text == "bad" else {"label": text}
        return Classification(cast("Any", Version()), [outcome], {})


@dataclass
class Served:
    """A server of which nothing but plain requests reaches the classifier."""

    reader: Reader
    metrics: Metrics
    bodies: Bodies
    state: ServerState
    connect: Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

    def counted(self, code: int) -> bool:
        name = rf'sightread_requests_total{{code="{code}",model="lstm",version="\d*"}} 1\.0'
        return bool(re.search(name, self.metrics.page().decode()))


@asynccontextmanager
async def served(
    *, most_bytes: int = 1000, deadline: float = 60, idle: int = 60, **settings: Any
) -> AsyncIterator[Served]:
    reader, metrics, bodies = Reader(), Metrics(), Bodies(most_bytes)
    given = Settings(deadline_seconds=deadline, **settings)
    classifier = cast("Classifier", reader)
    endpoints = [text_endpoint(classifier), image_endpoint(classifier)]
    way = PlainWay(endpoints, keys=None, turns=Turns(), bodies=bodies, metrics=metrics, settings=given)
    server, state = await serve(limited_connection(given), answering(b"app"), {PLAIN_WAY: way}, timeout_keep_alive=idle)
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        stream, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        opened.append(writer)
        return stream, writer

    async with server:
        try:
            yield Served(reader, metrics, bodies, state, connect)
        finally:  # the server waits for its connections
            for writer in opened:
                writer.close()
        if state.tasks:
            await asyncio.wait(state.tasks)
        assert bodies._bytes == 0  # noqa: SLF001  # nothing else tells


def asking(text: str) -> bytes:
    body = json.dumps({"text": text}).encode()
    return PLAIN.replace(TEXT, body).replace(b"Length: 12", b"Length: %d" % len(body))


async def read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    status, *lines = head.strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(status.split()[1]), headers, body if body == b"app" else json.loads(body)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    uvloop.run(scenario)


def test_an_answer_comes_past_the_application_and_has_all_that_it_gives() -> None:
    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            for number in range(3):
                writer.write(with_header(b"X-Request-ID: %d" % number))
                status, headers, document = await read(reader)
                assert status == 200
                assert document == {"label": "a", "model": {"name": "lstm", "version": 7}}
                assert headers["x-request-id"] == str(number)
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["content-type"] == "application/json"
                assert headers["server-timing"].startswith("read;dur=")
            writer.write(LIVENESS)
            assert (await read(reader))[2] == b"app"

    run(scenario())


def test_a_body_may_come_in_pieces_and_the_next_request_after_it() -> None:
    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            for cut in range(len(TEXT)):
                writer.write(HEAD + TEXT[:cut])
                await asyncio.sleep(0.01)
                for piece in TEXT[cut:]:
                    writer.write(bytes([piece]))
                    await asyncio.sleep(0.001)
                assert (await read(reader))[2]["label"] == "a"
            writer.write(HEAD)
            await asyncio.sleep(0.01)
            writer.write(TEXT + LIVENESS)
            assert (await read(reader))[2]["label"] == "a"
            assert (await read(reader))[2] == b"app"

    run(scenario())


def test_who_asks_again_before_the_answer_is_answered_in_turn() -> None:
    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            writer.write(asking("slow"))
            await asyncio.sleep(0.05)
            writer.write(LIVENESS)
            await asyncio.sleep(0.05)
            writer.write(PLAIN)
            assert (await read(reader))[2]["label"] == "slow"
            assert (await read(reader))[2] == b"app"
            assert (await read(reader))[2]["label"] == "a"

    run(scenario())


@pytest.mark.parametrize(("text", "status"), [("bad", 422), ("", 200), ("defect", 500), ("never", 504)])
def test_what_goes_wrong_is_a_problem_and_the_connection_goes_on(text: str, status: int) -> None:
    async def scenario() -> None:
        async with served(deadline=DEADLINE) as server:
            reader, writer = await server.connect()
            writer.write(asking(text))
            got, headers, document = await read(reader)
            assert got == status
            assert server.counted(status)
            if status > 400:
                assert headers["content-type"] == "application/problem+json"
                assert document["instance"] == f"urn:request:{headers['x-request-id']}"
                assert "secret" not in json.dumps(document)
            writer.write(PLAIN)
            assert (await read(reader))[0] == 200

    run(scenario())


def test_a_body_that_is_no_json_is_told_so() -> None:
    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            writer.write(PLAIN.replace(TEXT, b"{" * len(TEXT)))
            assert (await read(reader))[0] == 400

    run(scenario())


def test_a_body_that_does_not_come_is_given_up_and_the_connection_after_a_moment() -> None:
    async def scenario() -> None:
        async with served(deadline=DEADLINE) as server:
            reader, writer = await server.connect()
            writer.write(HEAD + TEXT[:3])
            assert (await read(reader))[0] == 408
            start = asyncio.get_running_loop().time()
            assert await asyncio.wait_for(reader.read(), 10) == b""
            assert asyncio.get_running_loop().time() - start > LINGER_SECONDS / 2

    run(scenario())


def test_what_comes_of_a_body_after_its_answer_is_no_request() -> None:
    async def scenario() -> None:
        async with served(deadline=DEADLINE) as server:
            reader, writer = await server.connect()
            body = LIVENESS * 10
            writer.write(HEAD.replace(b"Length: 12", b"Length: %d" % len(body)) + body[:5])
            assert (await read(reader))[0] == 408
            writer.write(body[5:50])
            await asyncio.sleep(0.05)
            writer.write(body[50:] + PLAIN)
            assert (await read(reader))[2]["label"] == "a"
            await asyncio.sleep(LINGER_SECONDS / 2)
            assert reader.at_eof() or not reader._buffer  # type: ignore[attr-defined]  # noqa: SLF001  # it has no name

    run(scenario())


def test_bodies_that_are_too_many_are_told_so() -> None:
    async def scenario() -> None:
        async with served(most_bytes=20) as server:
            first, writer = await server.connect()
            second, other = await server.connect()
            writer.write(asking("slow"))
            await asyncio.sleep(0.05)
            other.write(PLAIN)
            assert (await read(second))[0] == 429
            assert (await read(first))[0] == 200
            other.write(PLAIN)
            assert (await read(second))[0] == 200

    run(scenario())


@pytest.mark.parametrize(("sent", "code"), [(asking("never"), 499), (HEAD + TEXT[:3], 400)])
def test_a_client_that_goes_away_costs_nothing_more(sent: bytes, code: int) -> None:
    async def scenario() -> None:
        async with served() as server:
            _, writer = await server.connect()
            writer.write(sent)
            await asyncio.sleep(0.05)
            writer.close()
            await asyncio.wait(server.state.tasks, timeout=5)
            assert server.counted(code)
            assert server.reader.was_given_up == (code == 499)

    run(scenario())


def test_a_stop_that_waits_no_longer_is_told() -> None:
    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            writer.write(asking("never"))
            await asyncio.sleep(0.05)
            (task,) = server.state.tasks
            task.cancel()
            assert (await read(reader))[0] == 503

    run(scenario())


def test_the_wish_to_be_told_to_go_on_is_another_requests() -> None:
    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na")
            assert (await read(reader))[2] == b"app"
            writer.write(HEAD)
            await asyncio.sleep(0.05)
            writer.write(TEXT)
            assert (await read(reader))[2]["label"] == "a"

    run(scenario())


def test_a_trace_is_followed_for_its_request_alone() -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"

    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            for sent in (with_header(f"traceparent: {trace}".encode()), PLAIN, with_header(b"traceparent: none")):
                writer.write(sent)
                assert (await read(reader))[0] == 200
            assert server.reader.traces == [trace, None, None]

    run(scenario())


def test_who_asks_nothing_more_is_let_go() -> None:
    async def scenario() -> None:
        async with served(idle=1) as server:
            reader, writer = await server.connect()
            writer.write(PLAIN)
            assert (await read(reader))[0] == 200
            assert await asyncio.wait_for(reader.read(), 10) == b""

    run(scenario())


def test_a_large_picture_is_whole_or_refused_before_its_bytes_come_and_its_connection_goes_on() -> None:
    async def scenario() -> None:
        picture = b"".join(b"%07d" % number for number in range(3 * LARGE_PICTURE // 7))
        head = PICTURE.replace(b"Length: 3", b"Length: %d" % len(picture))
        async with served(most_bytes=len(picture)) as server:
            reader, writer = await server.connect()
            for decodes in (True, False, True):
                server.reader.decodes = decodes
                writer.write(head + picture[:1000])
                if not decodes:
                    assert (await read(reader))[0] == 429
                    assert server.counted(429)
                writer.write(picture[1000:])
                if decodes:
                    _, _, document = await read(reader)
                    assert document["label"] == hashlib.sha256(picture).hexdigest()
            writer.write(PLAIN)
            assert (await read(reader))[2]["label"] == "a"

    run(scenario())


@pytest.mark.parametrize("end", ["gone", "late", "too much"])
def test_of_a_large_picture_that_never_comes_whole_nothing_is_held(end: str) -> None:
    async def scenario() -> None:
        head = PICTURE.replace(b"Length: 3", b"Length: %d" % (8 * LARGE_PICTURE))
        most = LARGE_PICTURE if end == "too much" else 8 * LARGE_PICTURE
        async with served(most_bytes=most, deadline=DEADLINE if end == "late" else 60) as server:
            reader, writer = await server.connect()
            writer.write(head + bytes(4 * LARGE_PICTURE))
            (connection,) = await until(lambda: list(server.state.connections))
            exchange = cast("Exchange", (await until(lambda: cast("Any", connection).cycle)))
            if end == "gone":
                await until(lambda: exchange.received >= 4 * LARGE_PICTURE)
                writer.transport.abort()
            else:
                assert (await read(reader))[0] == {"late": 408, "too much": 429}[end]
            await until(lambda: not server.bodies._bytes)  # noqa: SLF001  # nothing else tells
            assert not exchange._pieces  # noqa: SLF001  # as above
            if end == "too much":
                writer.write(bytes(4 * LARGE_PICTURE) + PLAIN)
                assert (await read(reader))[2]["label"] == "a"

    run(scenario())


def test_of_a_large_body_no_more_is_read_than_is_received() -> None:
    async def scenario() -> None:
        async with served(most_bytes=64 * LARGE_PICTURE) as server:
            reader, writer = await server.connect()
            writer.write(PICTURE.replace(b"Length: 3", b"Length: %d" % (32 * LARGE_PICTURE)))
            (connection,) = await until(lambda: list(server.state.connections))
            exchange = cast("Exchange", (await until(lambda: cast("Any", connection).cycle)))
            most = 0

            def watch(piece: bytes) -> None:
                nonlocal most
                taken(piece)
                most = max(most, sum(map(len, exchange._pieces)))  # noqa: SLF001  # nothing else tells

            taken, exchange.take = exchange.take, watch  # type: ignore[method-assign]  # to look on
            writer.write(bytes(32 * LARGE_PICTURE))
            assert (await read(reader))[0] == 200
            assert 0 < most <= LARGE_PICTURE

    run(scenario())


def test_empty_lines_between_requests_do_not_add_up() -> None:
    async def scenario() -> None:
        async with served(max_header_bytes=200) as server:
            reader, writer = await server.connect()
            for _ in range(150):
                writer.write(PLAIN)
                assert (await read(reader))[0] == 200
                writer.write(b"\r\n")
                await asyncio.sleep(0.002)

    run(scenario())


def test_what_cannot_be_written_is_a_500_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    # what cannot be written cannot be reported, either, by one process of tests to another
    caplog.set_level(logging.CRITICAL, "uvicorn.error")

    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            writer.write(asking("unspeakable"))
            assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 500 ")
            assert server.counted(500)

    run(scenario())


def test_an_exchange_is_gone_with_its_answer() -> None:
    async def scenario() -> None:
        async with served() as server:
            reader, writer = await server.connect()
            gc.collect()
            gc.disable()
            try:
                for text in ["a", "bad"] * 10:
                    writer.write(asking(text))
                    await read(reader)
                assert sum(isinstance(one, Exchange) for one in gc.get_objects()) <= 2
            finally:
                gc.enable()

    run(scenario())

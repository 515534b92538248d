"""At the door whoever would wait too long is told so, and all that is not a plain request is left to the parser."""

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.classification import LARGE_PICTURE, Classifier, Forecast
from serving.http.api_keys import ApiKeys
from serving.http.middleware import ACCEPTABLE_ID
from serving.http.schemas import ImageOptions, Options
from serving.http.shedding import CROWD, Endpoint, Refusal, Shedder
from serving.metrics import Metrics
from serving.pace import HEADROOM, STRAINED_SECONDS
from serving.settings import Settings

WAIT = 1.0
TEXT = b'{"text":"a"}'
PLAIN = (
    b"POST /classify-text HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n" + TEXT
)
PICTURE = b"POST /classify-image HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 3\r\n\r\n"


@dataclass
class Named:
    name: str = "lstm"


@dataclass
class Busy:
    """Stands for a classifier: what waits, and for how long."""

    wait: float = WAIT
    queued: int = CROWD
    is_full: bool = False
    model: Named = field(default_factory=Named)
    asked: list[tuple[int | None, int]] = field(default_factory=list)

    def foretell(self, version: int | None, to_come: int) -> Forecast:
        self.asked.append((version, to_come))
        return Forecast(0.0, self.wait, is_full=self.is_full)


@dataclass
class InTurn:
    """Stands for the turns: how many wait for theirs."""

    waiting: int = 0


def shedder(
    busy: Busy, *, idle: Busy | None = None, in_turn: int = 0, keys: ApiKeys | None = None, **settings: Any
) -> Shedder:
    endpoints = {
        "/classify-text": Endpoint(cast("Classifier", busy), Options),
        "/classify-image": Endpoint(cast("Classifier", idle or busy), ImageOptions),
    }
    turns: Any = InTurn(in_turn)
    given = Settings(**{"deadline_seconds": WAIT, **settings})
    return Shedder(endpoints, turns=turns, keys=keys, metrics=Metrics(), settings=given)


def told(sent: bytes, busy: Busy | None = None, **settings: Any) -> Refusal | None:
    async def scenario() -> Refusal | None:
        return shedder(busy or Busy(), **settings).refusal(sent, [(b"date", b"today")])

    return asyncio.run(scenario())


def with_header(header: bytes, sent: bytes = PLAIN) -> bytes:
    return sent.replace(b"Host: x\r\n", b"Host: x\r\n" + header + b"\r\n")


def test_who_would_wait_too_long_is_told_so_in_whole() -> None:
    refusal = told(with_header(b"X-Request-ID: mine"))
    assert refusal is not None
    head, _, body = refusal.answer.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    assert status == b"HTTP/1.1 429 Too Many Requests"
    assert {b"date: today", b"retry-after: 1", b"x-request-id: mine", b"content-length: %d" % len(body)} < set(headers)
    document = json.loads(body)
    assert document["status"] == 429
    assert document["instance"] == "urn:request:mine"
    assert document["detail"] == f"{CROWD} items wait for lstm already."
    assert refusal.body_to_come == 0


def test_an_id_of_our_own_is_another_one_for_each() -> None:
    async def scenario() -> None:
        door = shedder(Busy())
        answers = [refusal.answer for _ in range(3) if (refusal := door.refusal(PLAIN, []))]
        ids = {
            json.loads(answer.partition(b"\r\n\r\n")[2])["instance"].removeprefix("urn:request:") for answer in answers
        }
        assert len(ids) == 3
        assert all(answer.count(one.encode()) == 2 for answer in answers for one in ids if one.encode() in answer)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("timeout", "is_refused"), [(0.5 * HEADROOM * WAIT, True), (0.99 * HEADROOM * WAIT, True), (HEADROOM * WAIT, False)]
)
def test_who_has_time_to_wait_is_let_in(timeout: float, is_refused: bool) -> None:  # noqa: FBT001
    sent = with_header(b"x-request-timeout: %g" % timeout)
    assert bool(told(sent, deadline_seconds=60)) == is_refused


def test_without_room_nobody_is_let_in() -> None:
    full = Busy(wait=17.5, is_full=True)
    refusal = told(with_header(b"X-Request-Timeout: 59"), full, deadline_seconds=60)
    assert refusal is not None
    assert b"retry-after: 18\r\n" in refusal.answer


def test_after_a_refusal_the_queue_is_kept_short_for_who_has_no_more_time() -> None:
    def asks(seconds: float) -> bytes:
        return with_header(b"X-Request-Timeout: %g" % seconds)

    async def scenario() -> None:
        busy = Busy(wait=10)
        door = shedder(busy, deadline_seconds=60)
        assert door.refusal(asks(0.001), []) is not None
        busy.wait = WAIT
        door._end_turn()  # noqa: SLF001  # what was foretold before does not hold any more
        assert door.refusal(asks(3), []) is None  # who is in a hurry does not count
        busy.wait = 10
        door._end_turn()  # noqa: SLF001  # as above
        assert door.refusal(asks(3), []) is not None
        busy.wait = WAIT
        door._end_turn()  # noqa: SLF001  # as above
        assert door.refusal(asks(3), []) is not None
        assert door.refusal(asks(7), []) is None
        await asyncio.sleep(STRAINED_SECONDS + 0.1)
        assert door.refusal(asks(3), []) is None

    asyncio.run(scenario())


def test_a_model_that_is_full_costs_the_other_nothing() -> None:
    picture = with_header(b"X-Request-Timeout: 3", PICTURE)

    async def scenario() -> None:
        door = shedder(Busy(is_full=True), idle=Busy(queued=0), deadline_seconds=60)
        assert door.refusal(with_header(b"X-Request-Timeout: 60"), []) is not None
        assert door.refusal(picture, []) is None

    asyncio.run(scenario())


def test_the_door_stands_open_until_a_crowd_has_come() -> None:
    async def scenario() -> None:
        door = shedder(Busy(queued=3), idle=Busy(queued=2), in_turn=4)
        let_in = 0
        while door.lets_in():
            let_in += 1
        assert let_in == CROWD - 9
        await asyncio.sleep(0)  # they wait now, and are not counted twice
        assert door.lets_in()

    asyncio.run(scenario())


def test_those_who_were_let_in_before_count() -> None:
    async def scenario() -> None:
        busy = Busy(wait=0.01)
        door = shedder(busy)
        assert not door.lets_in()
        for _ in range(3):
            assert door.refusal(PLAIN.replace(b"-text ", b"-text?version=7 "), []) is None
        assert busy.asked == [(7, 0), (7, 1), (7, 2)]

    asyncio.run(scenario())


@pytest.mark.parametrize("came", [0, 1, 11])
def test_a_request_is_refused_at_its_head(came: int) -> None:
    refusal = told(PLAIN.removesuffix(TEXT) + TEXT[:came])
    assert refusal is not None
    assert refusal.body_to_come == len(TEXT) - came


NOT_PLAIN = {
    "of another method": PLAIN.replace(b"POST", b"PUT"),
    "of another path": PLAIN.replace(b"-text", b"-sound"),
    "of an older protocol": PLAIN.replace(b"1.1", b"1.0"),
    "whose lines end otherwise": PLAIN.replace(b"\r\n", b"\n"),
    "whose head is not all there": PLAIN[:60],
    "with another one behind": PLAIN * 2,
    "without a length": PLAIN.replace(b"Content-Length", b"X-Length"),
    "of a length that is none": PLAIN.replace(b": 12", b": +12"),
    "of a length that only looks like one": PLAIN.replace(b": 12", b": \xb2"),
    "with a control character": with_header(b"X-A: \x01"),
    "that is a proxy's last": with_header(b"Proxy-Connection: close"),
    "with two keys": with_header(b"X-API-Key: a\r\nX-API-Key: b"),
    "of two lengths": with_header(b"Content-Length: 12"),
    "of a header in two lines": with_header(b"X-A: b\r\n c"),
    "of a header with a blank before its colon": PLAIN.replace(b"Length:", b"Length :"),
    "in chunks": with_header(b"Transfer-Encoding: chunked"),
    "that waits to go on": with_header(b"Expect: 100-continue"),
    "for another protocol": with_header(b"Upgrade: h2c"),
    "that is its connection's last": with_header(b"Connection: close"),
    "that is compressed": with_header(b"Content-Encoding: gzip"),
    "of many texts": PLAIN.replace(TEXT, b'{"texts":[]}'),
    "of a form": PLAIN.replace(b"application/json", b"multipart/form-data; boundary=x"),
    "to be explained": PLAIN.replace(b"-text ", b"-text?explain=true "),
    "of a label": PLAIN.replace(b"-text ", b"-text?version_label=stable "),
    "of a query that is none": PLAIN.replace(b"-text ", b"-text?top_k=0 "),
    "of a time that is none": with_header(b"X-Request-Timeout: soon"),
    "that is large": PICTURE.replace(b": 3", b": %d" % LARGE_PICTURE),
}


@pytest.mark.parametrize("sent", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_a_request_is_left_to_the_parser(sent: bytes) -> None:
    assert told(sent) is None
    assert told(PLAIN) is not None


def test_headers_over_their_limit_are_left_to_who_refuses_them() -> None:
    long = with_header(b"X-A: " + b"a" * 4000)
    assert told(long, max_header_bytes=4000) is None
    assert told(long, max_header_bytes=5000) is not None


def test_another_origins_page_is_left_to_who_lets_it_read_the_answer() -> None:
    sent = with_header(b"Origin: http://x")
    assert told(sent, cors_origins="http://x") is None
    assert told(sent) is not None


def test_proxies_may_add_a_header_each() -> None:
    assert told(with_header(b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2")) is not None


def test_a_body_over_its_limit_is_left_to_who_refuses_it() -> None:
    assert told(PLAIN, max_body_bytes=11) is None
    assert told(PLAIN, max_body_bytes=12) is not None


def test_who_has_no_key_is_left_to_the_guard(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"somebody:{hashlib.sha256(b'secret').hexdigest()}\n")
    keys = ApiKeys(file)
    assert told(PLAIN, keys=keys) is None
    assert told(with_header(b"X-API-Key: wrong"), keys=keys) is None
    assert told(with_header(b"X-API-Key: secret"), keys=keys) is not None
    assert told(with_header(b"Authorization: Bearer secret"), keys=keys) is not None


class Parsed:
    """What the HTTP server's parser finds."""

    def __init__(self) -> None:
        self.url = b""
        self.bodies: list[bytes] = []
        self.complete = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.bodies.append(body)

    def on_message_complete(self) -> None:
        self.complete += 1


NAMES = st.sampled_from(
    [
        b"Host",
        b"Content-Length",
        b"content-length",
        b"Transfer-Encoding",
        b"X-A",
        b"Content-Length ",
        b" X",
        b"",
        b"A\0",
    ]
)
VALUES = st.one_of(
    st.sampled_from([b"12", b" 12 ", b"\t12", b"0", b"012", b"+12", b"12,12", b"chunked"]), st.binary(max_size=4)
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n "])


@given(
    st.lists(st.tuples(NAMES, st.sampled_from([b": ", b":", b" : "]), VALUES, ENDS), max_size=4),
    st.binary(max_size=14),
)
def test_the_door_takes_for_one_request_only_what_the_parser_does(
    headers: list[tuple[bytes, bytes, bytes, bytes]], body: bytes
) -> None:
    lines = b"".join(b"".join(header) for header in headers)
    sent = b"POST /classify-text?version=2 HTTP/1.1\r\n" + lines + b"\r\n" + body
    refusal = told(sent)
    if refusal is None:
        return
    parsed = Parsed()
    httptools.HttpRequestParser(parsed).feed_data(sent)
    assert parsed.url == b"/classify-text?version=2"
    assert b"".join(parsed.bodies) == body
    assert parsed.complete == (refusal.body_to_come == 0)


@pytest.mark.parametrize("sent", [b'a"b', b"a\\b", b"a b", "ä".encode()])
def test_a_clients_id_comes_back_where_it_may_stand(sent: bytes) -> None:
    refusal = told(with_header(b"X-Request-ID: " + sent))
    assert refusal is not None
    head, _, body = refusal.answer.partition(b"\r\n\r\n")
    request_id = json.loads(body)["instance"].removeprefix("urn:request:").encode()
    assert b"x-request-id: " + request_id in head.split(b"\r\n")
    assert (request_id == sent) == bool(ACCEPTABLE_ID.fullmatch(sent.decode("latin-1")))

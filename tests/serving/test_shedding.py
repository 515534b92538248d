"""Under overload whoever would wait too long is told so, and nobody else."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from serving.classification import Classifier, Forecast
from serving.http.endpoints import image_endpoint, text_endpoint
from serving.http.middleware import ACCEPTABLE_ID
from serving.http.plain_requests import PlainRequests
from serving.http.shedding import CROWD, CROWD_SECONDS, Shedder
from serving.metrics import Metrics
from serving.pace import HEADROOM, STRAINED_SECONDS
from serving.settings import Settings
from tests.serving.plain_requests import PICTURE, PLAIN, TEXT, Named, with_header

WAIT = 1.0


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
    """Stands for the turns: how many wait for theirs, and how long each takes."""

    waiting: int = 0
    seconds: float = 0.0

    def foretell(self, to_come: int) -> float:
        return self.seconds * (self.waiting + to_come)


class Door:
    """What plain requests come to."""

    def __init__(
        self, busy: Busy, *, idle: Busy | None = None, in_turn: InTurn | None = None, deadline: float = WAIT
    ) -> None:
        endpoints = [text_endpoint(cast("Classifier", busy)), image_endpoint(cast("Classifier", idle or busy))]
        turns: Any = in_turn or InTurn()
        self.shedder = Shedder(endpoints, turns=turns, metrics=Metrics())
        self._requests = PlainRequests(endpoints, keys=None, settings=Settings(deadline_seconds=deadline))

    def refusal(self, sent: bytes) -> bytes | None:
        request = self._requests.read(sent)
        assert request is not None
        return self.shedder.refusal(request, [(b"date", b"today")])


def told(sent: bytes, busy: Busy | None = None, deadline: float = WAIT) -> bytes | None:
    async def scenario() -> bytes | None:
        return Door(busy or Busy(), deadline=deadline).refusal(sent)

    return asyncio.run(scenario())


def test_who_would_wait_too_long_is_told_so_in_whole() -> None:
    refusal = told(with_header(b"X-Request-ID: mine"))
    assert refusal is not None
    head, _, body = refusal.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    assert status == b"HTTP/1.1 429 Too Many Requests"
    assert {b"date: today", b"retry-after: 1", b"x-request-id: mine", b"content-length: %d" % len(body)} < set(headers)
    document = json.loads(body)
    assert document["status"] == 429
    assert document["instance"] == "urn:request:mine"
    assert document["detail"] == f"{CROWD} items wait for lstm already."


def test_an_id_of_our_own_is_another_one_for_each() -> None:
    async def scenario() -> None:
        door = Door(Busy())
        answers = [refusal for _ in range(3) if (refusal := door.refusal(PLAIN))]
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
    assert bool(told(sent, deadline=60)) == is_refused


def test_without_room_nobody_is_let_in() -> None:
    full = Busy(wait=17.5, is_full=True)
    refusal = told(with_header(b"X-Request-Timeout: 59"), full, deadline=60)
    assert refusal is not None
    assert b"retry-after: 18\r\n" in refusal


def test_after_a_refusal_the_queue_is_kept_short_for_who_has_no_more_time() -> None:
    def asks(seconds: float) -> bytes:
        return with_header(b"X-Request-Timeout: %g" % seconds)

    async def scenario() -> None:
        busy = Busy(wait=10)
        door = Door(busy, deadline=60)
        assert door.refusal(asks(0.001)) is not None
        busy.wait = WAIT
        door.shedder._end_turn()  # noqa: SLF001  # what was foretold before does not hold any more
        assert door.refusal(asks(3)) is None  # who is in a hurry does not count
        busy.wait = 10
        door.shedder._end_turn()  # noqa: SLF001  # as above
        assert door.refusal(asks(3)) is not None
        busy.wait = WAIT
        door.shedder._end_turn()  # noqa: SLF001  # as above
        assert door.refusal(asks(3)) is not None
        assert door.refusal(asks(7)) is None
        await asyncio.sleep(STRAINED_SECONDS + 0.1)
        assert door.refusal(asks(3)) is None

    asyncio.run(scenario())


def test_a_model_that_is_full_costs_the_other_nothing() -> None:
    picture = with_header(b"X-Request-Timeout: 3", PICTURE)

    async def scenario() -> None:
        door = Door(Busy(is_full=True), idle=Busy(queued=0), deadline=60)
        assert door.refusal(with_header(b"X-Request-Timeout: 60")) is not None
        assert door.refusal(picture) is None

    asyncio.run(scenario())


@pytest.mark.parametrize(("seconds", "crowd"), [(0.0, CROWD), (0.0025, 5 + CROWD_SECONDS / 0.0025)])
def test_the_door_stands_open_until_a_crowd_has_come(seconds: float, crowd: float) -> None:
    async def scenario() -> None:
        door = Door(Busy(queued=3), idle=Busy(queued=2), in_turn=InTurn(4, seconds))
        let_in = 0
        while door.shedder.lets_in():
            let_in += 1
        assert let_in == crowd - 9
        await asyncio.sleep(0)  # they wait now, and are not counted twice
        assert door.shedder.lets_in()

    asyncio.run(scenario())


def test_those_who_were_let_in_before_count() -> None:
    async def scenario() -> None:
        busy = Busy(wait=0.01)
        door = Door(busy)
        assert not door.shedder.lets_in()
        for _ in range(3):
            assert door.refusal(PLAIN.replace(b"-text ", b"-text?version=7 ")) is None
        assert busy.asked == [(7, 0), (7, 1), (7, 2)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "sent",
    [
        PLAIN.replace(TEXT, b'{"texts":[]}'),
        PLAIN.replace(b"-text ", b"-text?explain=true "),
        PLAIN.replace(b"-text ", b"-text?version_label=stable "),
    ],
)
def test_what_costs_more_or_waits_elsewhere_is_not_refused_here(sent: bytes) -> None:
    assert told(sent) is None
    assert told(PLAIN) is not None


def test_a_request_is_refused_at_its_head() -> None:
    assert told(PLAIN.removesuffix(TEXT)) is not None


@pytest.mark.parametrize("sent", [b'a"b', b"a\\b", b"a b", "ä".encode()])
def test_a_clients_id_comes_back_where_it_may_stand(sent: bytes) -> None:
    refusal = told(with_header(b"X-Request-ID: " + sent))
    assert refusal is not None
    head, _, body = refusal.partition(b"\r\n\r\n")
    request_id = json.loads(body)["instance"].removeprefix("urn:request:").encode()
    assert b"x-request-id: " + request_id in head.split(b"\r\n")
    assert (request_id == sent) == bool(ACCEPTABLE_ID.fullmatch(sent.decode("latin-1")))

"""When the client asks again, how long it waits, and what it makes of what it gets."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from sightread_client import (
    AsyncClient,
    BadInput,
    Client,
    DeadlineExceeded,
    NotFound,
    NotReady,
    Overloaded,
    ServiceFault,
    SightreadError,
    TextAnswer,
    Unauthorized,
    Unreachable,
)
from sightread_client.errors import seconds_until
from sightread_client.retrying import LONGEST_PAUSE, pause_before
from tests.client.scripted import Handler, answers, drips, drips_its_head, hangs_up, scripted

Ask = Callable[..., TextAnswer]

GOOD = {
    "label": "positive",
    "score": 0.9,
    "predictions": [{"label": "positive", "score": 0.9}],
    "model": {"name": "lstm", "version": 2},
    "a member of a later version": 1,
}
PROBLEM = {"type": "/problems/x", "title": "X", "status": 400, "detail": "This is why.", "instance": "urn:request:4a5f"}


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Classify a text, with either client."""

    def sync(url: str, **options: Any) -> TextAnswer:
        with Client(url, **options) as client:
            return client.classify_text("good")

    async def asynchronous(url: str, **options: Any) -> TextAnswer:
        async with AsyncClient(url, **options) as client:
            return await client.classify_text("good")

    return sync if request.param == "sync" else lambda url, **options: asyncio.run(asynchronous(url, **options))


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_is_full_or_not_ready_is_asked_again(ask: Ask, status: int) -> None:
    refused = answers(status, PROBLEM, Retry_After="0")
    with scripted(refused, answers(status), answers(200, GOOD)) as server:
        assert ask(server.url).label == "positive"
    assert len(server.got) == 3


def test_a_connection_that_breaks_before_the_answer_is_made_again(ask: Ask) -> None:
    with scripted(hangs_up, hangs_up, answers(200, GOOD)) as server:
        assert ask(server.url).label == "positive"
    assert len(server.got) == 3


def test_it_is_asked_again_only_so_often(ask: Ask) -> None:
    with scripted(*[answers(503, PROBLEM, Retry_After="0")] * 9) as server:
        with pytest.raises(NotReady):
            ask(server.url, retries=2)
        assert len(server.got) == 3
        with pytest.raises(NotReady):
            ask(server.url, retries=0)
    assert len(server.got) == 4


def test_a_wait_that_would_pass_the_deadline_is_not_waited(ask: Ask) -> None:
    with scripted(answers(429, PROBLEM, Retry_After="3600")) as server, pytest.raises(Overloaded) as refused:
        ask(server.url)
    assert refused.value.retry_after == 3600
    assert len(server.got) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadInput),
        (401, Unauthorized),
        (404, NotFound),
        (408, BadInput),
        (413, BadInput),
        (415, BadInput),
        (422, BadInput),
        (500, ServiceFault),
        (504, DeadlineExceeded),
    ],
)
def test_what_would_come_out_the_same_is_asked_once(ask: Ask, status: int, kind: type[SightreadError]) -> None:
    with scripted(answers(status, PROBLEM, Retry_After="0")) as server, pytest.raises(kind) as caught:
        ask(server.url)
    assert len(server.got) == 1
    error = caught.value
    assert (error.status, error.type, error.title) == (status, "/problems/x", "X")
    assert error.detail == str(error) == "This is why."
    assert error.instance == "urn:request:4a5f"


@pytest.mark.parametrize(
    "strange",
    [
        answers(200, "<html>Welcome</html>"),
        answers(200, {"label": "positive"}),
        answers(200, []),
        answers(302, "", Location="/login"),
        answers(502, "<html>Bad gateway</html>"),
        answers(500, "[" * 100_000),
    ],
)
def test_an_answer_that_is_none_of_ours_is_named(ask: Ask, strange: Any) -> None:
    with scripted(strange) as server, pytest.raises(ServiceFault, match=server.url):
        ask(server.url)


def test_nobody_there_is_unreachable(ask: Ask) -> None:
    with scripted() as server:
        pass
    with pytest.raises(Unreachable, match=server.url) as caught:
        ask(server.url, retries=1)
    assert caught.value.status is None


@pytest.mark.parametrize("slow", [drips, lambda handler: handler.rfile.read(1)])
def test_an_answer_that_does_not_end_ends_with_the_deadline(ask: Ask, slow: Any) -> None:
    with scripted(slow) as server, pytest.raises(DeadlineExceeded, match=r"0\.2 seconds"):
        ask(server.url, timeout=0.2)
    assert len(server.got) == 1


def test_an_answer_whose_head_drips_is_late(ask: Ask) -> None:
    with scripted(drips_its_head) as server, pytest.raises(DeadlineExceeded, match=r"0\.2 seconds"):
        ask(server.url, timeout=0.2)
    assert len(server.got) == 1


def test_the_async_client_does_not_wait_for_a_head_that_drips() -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url, timeout=0.2) as client:
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await client.classify_text("good")
            assert time.monotonic() - start < 0.8

    with scripted(drips_its_head) as server:
        asyncio.run(ask(server.url))


def test_the_service_is_told_how_much_time_is_left_and_the_key(ask: Ask) -> None:
    with scripted(answers(503, PROBLEM, Retry_After="0"), answers(200, GOOD)) as server:
        ask(server.url, timeout=7, api_key="sr_key")
    first, second = (float(headers["X-Request-Timeout"]) for headers in server.got)
    assert 7 >= first >= second > 0
    assert {headers["X-API-Key"] for headers in server.got} == {"sr_key"}


@pytest.fixture(params=["sync", "async"])
def ask_many(request: pytest.FixtureRequest) -> Callable[[str, list[str]], Any]:
    """Classify a list of texts, with either client."""

    def sync(url: str, texts: list[str]) -> Any:
        with Client(url) as client:
            return client.classify_texts(texts)

    async def asynchronous(url: str, texts: list[str]) -> Any:
        async with AsyncClient(url) as client:
            return await client.classify_texts(texts)

    return sync if request.param == "sync" else lambda url, texts: asyncio.run(asynchronous(url, texts))


def test_an_error_that_ends_a_list_has_what_was_answered_before(ask_many: Callable[[str, list[str]], Any]) -> None:
    def answer(handler: Handler) -> None:
        part = json.loads(handler.body)["texts"][0]
        if part == "5":
            answers(504, PROBLEM)(handler)
        else:
            answers(200, {"model": GOOD["model"], "results": [GOOD | {"label": part}] * 32})(handler)

    # 32 texts make a part; at most four are under way, so the fifth comes when one before it is answered
    texts = [str(part) for part in range(1, 6) for _ in range(32)]
    with scripted(*[answer] * 5) as server, pytest.raises(DeadlineExceeded) as caught:
        ask_many(server.url, texts)
    answered = caught.value.answered
    assert len(answered) >= 32
    assert all(isinstance(result, TextAnswer) and result.label == texts[place] for place, result in answered.items())


def test_pauses_are_as_long_as_the_service_says_or_grow() -> None:
    assert all(3 <= pause_before(1, 3) <= 4 for _ in range(100))
    grown = [pause_before(retry, None) for retry in range(1, 30)]
    assert grown[0] < 0.3 < grown[3]
    assert max(grown) <= LONGEST_PAUSE
    assert len({pause_before(1, None) for _ in range(10)}) > 1, "those who were refused together come back apart"


def test_retry_after_is_a_number_of_seconds_or_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (seconds_until(soon) or 0) <= 100
    assert seconds_until("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert seconds_until("120") == 120
    assert [seconds_until(odd) for odd in (None, "", "soon", "-1", "\u0661", "1.5")] == [None] * 6


@pytest.mark.parametrize(
    ("url", "options", "why"),
    [
        ("127.0.0.1:8080", {}, "no address"),
        ("ftp://127.0.0.1", {}, "no address"),
        ("http://", {}, "no address"),
        ("http://127.0.0.1:port", {}, "no address"),
        ("http://127.0.0.1:99999", {}, "no address"),
        ("http://127.0.0.1:-1", {}, "no address"),
        ("http://127.0.0.1", {"timeout": 0}, "timeout"),
        ("http://127.0.0.1", {"timeout": float("nan")}, "timeout"),
        ("http://127.0.0.1", {"api_key": "a\nb"}, "API key"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_cannot_be_is_refused_before_anything_is_sent(kind: Any, url: str, options: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        kind(url, **options)


def test_a_service_below_a_path_is_found(ask: Ask) -> None:
    def check_path(handler: Any) -> None:
        answers(200 if handler.path == "/below/this/classify-text" else 404, GOOD)(handler)

    with scripted(check_path, check_path) as server:
        ask(f"{server.url}/below/this")
        ask(f"{server.url}/below/this/")

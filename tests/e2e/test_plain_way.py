"""Whatever a client asks, the plain way and that through parser and layers give one answer, and tell of it alike."""

import json
import re
import time

import pytest

from tests.e2e.processes import Service
from tests.e2e.test_connections import connect
from tests.e2e.test_shedding import Answer, read
from tests.e2e.tiny_models import picture

AROUND = "Proxy-Connection: keep-alive"
"""With it a request is not plain, and means the same."""
IMAGE, TEXT, PNG, JSON = (
    "/classify-image",
    "/classify-text",
    "Content-Type: image/png",
    "Content-Type: application/json",
)
ASKED = {
    "a picture": (IMAGE, [PNG], picture("blue")),
    "a picture of no type": (IMAGE, [], picture("blue")),
    "a picture in many pieces": (IMAGE, [PNG], picture("red", (400, 300), "BMP")[:190_000]),
    "a picture that is none": (IMAGE, [PNG], b"none"),
    "a picture of another format": (IMAGE, [PNG], b"%PDF-1.7"),
    "no picture": (IMAGE, [PNG], b""),
    "a picture that is too large": (IMAGE, [PNG], b"x" * 200_001),
    "all labels": (f"{IMAGE}?top_k=9", [PNG], picture("red")),
    "a version": (f"{IMAGE}?version=1", [PNG], picture("red")),
    "a version that is not there": (f"{IMAGE}?version=9", [PNG], picture("red")),
    "a label": (f"{IMAGE}?version_label=canary", [PNG], picture("red")),
    "a label that is not there": (f"{IMAGE}?version_label=none", [PNG], picture("red")),
    "an explanation": (f"{IMAGE}?explain=true", [PNG], picture("red")),
    "a query that is none": (f"{IMAGE}?top_k=0", [PNG], picture("red")),
    "two queries": (f"{IMAGE}?top_k=1&top_k=2", [PNG], picture("red")),
    "a session": (IMAGE, [PNG, "X-Session-ID: a"], picture("red")),
    "a text": (TEXT, [JSON], b'{"text": "good"}'),
    "a text of other words": (TEXT, [JSON], '{"text": "gut, sehr schön"}'.encode()),
    "a text by itself": (TEXT, ["Content-Type: text/plain"], b"good"),
    "a text that is no UTF-8": (TEXT, ["Content-Type: text/plain"], b"\xff"),
    "a text in another charset": (TEXT, ["Content-Type: text/plain; charset=latin-1"], b"good"),
    "texts": (TEXT, [JSON], b'{"texts": ["good", "", "bad"]}'),
    "no texts": (TEXT, [JSON], b'{"texts": []}'),
    "too many texts": (TEXT, [JSON], json.dumps({"texts": ["good"] * 9}).encode()),
    "an empty text": (TEXT, [JSON], b'{"text": ""}'),
    "a text that is too long": (TEXT, [JSON], json.dumps({"text": "a" * 1001}).encode()),
    "no JSON": (TEXT, [JSON], b"{"),
    "JSON of another shape": (TEXT, [JSON], b'{"text": 1}'),
    "a body of another type": (TEXT, ["Content-Type: text/html"], b"good"),
    "no time": (TEXT, [JSON, "X-Request-Timeout: 0.000001"], b'{"text": "good"}'),
    "a time that is none": (TEXT, [JSON, "X-Request-Timeout: soon"], b'{"text": "good"}'),
    "an id that is none": (TEXT, [JSON, "X-Request-ID: a b"], b'{"text": "good"}'),
    "an id with a blank behind": (TEXT, [JSON, "X-Request-ID: mine "], b'{"text": "good"}'),
    "a query with a fragment": (f"{TEXT}?top_k=1#a", [JSON], b'{"text": "good"}'),
    "a trace": (TEXT, [JSON, f"traceparent: 00-{'a' * 32}-{'b' * 16}-01"], b'{"text": "good"}'),
}
OF_EACH = re.compile(r"\d+\.\d+|[0-9a-f]{32}|(?<=urn:request:)\S+")
"""What differs between any two answers."""


def ask(service: Service, target: str, headers: list[str], body: bytes) -> Answer:
    lines = [f"POST {target} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}", "", ""]
    with connect(service) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        return read(connection)


def in_common(answer: Answer) -> tuple[bytes, dict[bytes, str], str]:
    status, headers, document = answer
    headers.pop(b"date")
    told = {name: OF_EACH.sub("…", value.decode()) for name, value in headers.items() if name != b"content-length"}
    return status, told, OF_EACH.sub("…", json.dumps(document)) if status[9:12] != b"200" else json.dumps(document)


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_both_ways_give_one_answer(service: Service, asked: tuple[str, list[str], bytes]) -> None:
    target, headers, body = asked
    plain = in_common(ask(service, target, headers, body))
    parsed = in_common(ask(service, target, [*headers, AROUND], body))
    assert plain == parsed
    assert plain[1].keys() >= {b"x-request-id", b"content-security-policy"}


def test_both_ways_are_counted_and_logged_alike(service: Service) -> None:
    target, headers, body = ASKED["a trace"]

    def told(request_id: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in service.log.read_text().splitlines() if request_id in line]
        return [{name: value for name, value in line.items() if name not in {"time", "seconds"}} for line in lines]

    def counted() -> dict[str, float]:
        """What a request adds to, but for what depends on chance: whose bucket its seconds are in."""
        page = service.get("/metrics").text
        members = re.findall(r"^(sightread_\S*(?:_total|_count)\S*) (\S+)$", page, re.MULTILINE)
        return {name: float(value) for name, value in members if "lstm" in name}

    before = counted()
    ask(service, target, [*headers, "X-Request-ID: both-ways"], body)
    between = counted()
    ask(service, target, [*headers, AROUND, "X-Request-ID: both-ways"], body)
    after = counted()
    service.wait_for(lambda: len(told("both-ways")) == 2)
    plain, parsed = told("both-ways")
    assert plain == parsed
    added = [
        {name: late[name] - early.get(name, 0) for name in late}
        for early, late in ((before, between), (between, after))
    ]
    assert added[0] == added[1]
    assert any(added[0].values())


def test_a_client_that_sends_slowly_holds_nobody_up(service: Service) -> None:
    """Its head has come, and its body comes byte by byte."""
    _, _, body = ASKED["a text"]
    head = f"POST {TEXT} HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with connect(service) as slow:
        slow.sendall(head)
        for byte in body:
            start = time.monotonic()
            assert ask(service, *ASKED["a text"])[0].startswith(b"HTTP/1.1 200")
            assert time.monotonic() - start < 5
            slow.sendall(bytes([byte]))
        assert read(slow)[0].startswith(b"HTTP/1.1 200")

"""A plain request is read as the parser reads it, and all that is not one is left to the parser."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http.api_keys import ApiKeys
from serving.http.endpoints import image_endpoint, text_endpoint
from serving.http.plain_requests import REMEMBERED, PlainRequest, PlainRequests
from serving.http.requests import LARGE_PICTURE
from serving.settings import Settings
from tests.serving.plain_requests import PICTURE, PLAIN, TEXT, Named, with_header

if TYPE_CHECKING:
    from serving.classification import Classifier

DEADLINE = 60.0


class Served:
    """Stands for a classifier, which reading does not ask."""

    model = Named("lstm")


def reader(*, keys: ApiKeys | None = None, **settings: Any) -> PlainRequests:
    served = cast("Classifier", Served())
    given = Settings(**{"deadline_seconds": DEADLINE, **settings})
    return PlainRequests([text_endpoint(served), image_endpoint(served)], keys=keys, settings=given)


def read(sent: bytes, **settings: Any) -> PlainRequest | None:
    return reader(**settings).read(sent)


def test_what_a_request_says_is_read() -> None:
    sent = with_header(b"X-Request-Timeout: 2.5\r\nx-request-id:  mine ").replace(b"-text ", b"-text?version=7 ")
    request = read(sent)
    assert request is not None
    assert request.body == TEXT
    assert (request.head.timeout, request.head.options.version, request.head.length) == (2.5, 7, len(TEXT))
    assert request.head.content_type == "application/json"
    scope = request.scope()
    assert (scope["method"], scope["path"]) == ("POST", "/classify-text")
    assert scope["state"] == {"model": "lstm", "client": None, "request_id": "mine"}


@pytest.mark.parametrize(("length", "is_large"), [(LARGE_PICTURE - 1, False), (LARGE_PICTURE, True)])
def test_a_large_picture_is_known_before_it_comes(length: int, *, is_large: bool) -> None:
    request = read(PICTURE.replace(b": 3", b": %d" % length))
    assert request is not None
    assert request.head.is_large_picture == is_large


def test_a_head_that_comes_again_is_read_again() -> None:
    plain = reader()
    first, second = plain.read(PLAIN), plain.read(PLAIN.replace(TEXT, b'{"text":"b"}'))
    assert first is not None
    assert second is not None
    assert first.head is second.head
    assert (first.body, second.body) == (TEXT, b'{"text":"b"}')
    assert first.scope() != second.scope()  # each has an id of its own
    assert read(PLAIN).head is not first.head  # type: ignore[union-attr]  # it is one


def test_heads_that_clients_make_up_take_no_more_room() -> None:
    plain = reader()
    for number in range(3 * REMEMBERED):
        assert plain.read(with_header(b"X-A: %d" % number)) is not None
        assert plain.read(with_header(b"X-Request-ID: %d" % number)) is not None
        assert plain.read(with_header(b"X-A: " + b"a" * 3000 + b"%d" % number)) is not None
        assert plain.read(with_header(b"X-B: %d\r\n" % number + b"\r\n".join(b"%d: a" % name for name in range(99))))
        assert len(plain._heads) <= REMEMBERED  # noqa: SLF001  # nothing else tells
    sizes = [len(head) for head in plain._heads]  # noqa: SLF001  # as above
    assert 0 < max(sizes) < 3000
    assert max(len(head.headers) for head in plain._heads.values()) < 99  # noqa: SLF001  # as above


@pytest.mark.parametrize("came", [0, 1, 11, 12])
def test_a_body_may_still_be_coming(came: int) -> None:
    request = read(PLAIN.removesuffix(TEXT) + TEXT[:came])
    assert request is not None
    assert request.bytes_to_come == len(TEXT) - came


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
    "of a query with a fragment": PLAIN.replace(b"-text ", b"-text?top_k=1#a "),
    "of another type": PLAIN.replace(b"application/json", b"text/html"),
    "of another charset": PLAIN.replace(b"application/json", b"text/plain; charset=latin-1"),
    "of two types": with_header(b"Content-Type: text/plain"),
    "of a picture of another type": PICTURE.replace(b"image/png", b"text/plain"),
    "of a form": PLAIN.replace(b"application/json", b"multipart/form-data; boundary=x"),
    "of a query that is none": PLAIN.replace(b"-text ", b"-text?top_k=0 "),
    "of a time that is none": with_header(b"X-Request-Timeout: soon"),
    "that is over the limit": PICTURE.replace(b": 3", b": %d" % (Settings().max_body_bytes + 1)),
}


@pytest.mark.parametrize("sent", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_a_request_is_left_to_the_parser(sent: bytes) -> None:
    assert read(sent) is None
    assert read(PLAIN) is not None


def test_headers_over_their_limit_are_left_to_who_refuses_them() -> None:
    long = with_header(b"X-A: " + b"a" * 4000)
    assert read(long, max_header_bytes=4000) is None
    assert read(long, max_header_bytes=5000) is not None


def test_another_origins_page_is_left_to_who_lets_it_read_the_answer() -> None:
    sent = with_header(b"Origin: http://x")
    assert read(sent, cors_origins="http://x") is None
    assert read(sent) is not None


def test_proxies_may_add_a_header_each() -> None:
    assert read(with_header(b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2")) is not None


def test_a_body_over_its_limit_is_left_to_who_refuses_it() -> None:
    assert read(PLAIN, max_body_bytes=11) is None
    assert read(PLAIN, max_body_bytes=12) is not None


def test_who_has_no_key_is_left_to_the_guard(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"somebody:{hashlib.sha256(b'secret').hexdigest()}\n")
    keys = ApiKeys(file)
    assert read(PLAIN, keys=keys) is None
    assert read(with_header(b"X-API-Key: wrong"), keys=keys) is None
    assert read(with_header(b"X-API-Key: secret"), keys=keys) is not None
    plain = reader(keys=keys)
    assert plain.read(with_header(b"X-API-Key: wrong")) is None
    assert not plain._heads  # noqa: SLF001  # whoever may not come in pushes nothing out
    assert read(with_header(b"Authorization: Bearer secret"), keys=keys) is not None


class Parsed:
    """What the HTTP server's parser finds."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[bytes, list[bytes]] = {}
        self.bodies: list[bytes] = []
        self.complete = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.setdefault(name.lower(), []).append(value.rstrip(b" \t"))  # as our connections do

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


QUERIES = st.text(st.characters(codec="ascii"), max_size=6).map(lambda text: f"top_k=1{text}".encode())


@given(
    QUERIES,
    st.lists(st.tuples(NAMES, st.sampled_from([b": ", b":", b" : "]), VALUES, ENDS), max_size=4),
    st.binary(max_size=14),
)
def test_only_what_the_parser_takes_for_one_request_is_taken_for_one(
    query: bytes, headers: list[tuple[bytes, bytes, bytes, bytes]], body: bytes
) -> None:
    lines = b"".join(b"".join(header) for header in headers)
    sent = b"POST /classify-text?" + query + b" HTTP/1.1\r\n" + lines + b"\r\n" + body
    request = read(sent)
    if request is None:
        return
    parsed = Parsed()
    httptools.HttpRequestParser(parsed).feed_data(sent)
    url = httptools.parse_url(parsed.url)
    assert url.path == b"/classify-text"
    assert url.query == query
    assert parsed.headers == request.head.headers
    assert b"".join(parsed.bodies) == body == request.body
    assert parsed.complete == (request.bytes_to_come == 0)

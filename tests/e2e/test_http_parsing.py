"""HTTP as no well-behaved client speaks it: a right status with a reason, and everybody else is served."""

import gzip
import json
import re
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.processes import Service
from tests.e2e.tiny_models import picture

TEXT = b'{"text": "good"}'
PNG = picture("red")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        assert {"type", "title", "status", "detail"} <= set(problem)
        return problem


def send(service: Service, data: bytes, *, half_close: bool = False) -> Answer | None:
    """Bytes as they are → the first answer, or None where the connection was closed without one.

    With `half_close` the gateway sees that no more comes, and may leave without a word.
    """
    host, port = service.url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while not _is_whole(received, data) and (piece := connection.recv(65536)):
                received += piece
        except ConnectionError:
            pass  # it was closed while we were still talking
    if not received:
        return None
    status, headers, body = _split(received)
    return Answer(status, headers, body)


def _is_whole(received: bytes, request: bytes) -> bool:
    if b"\r\n\r\n" not in received:
        return False
    _, headers, body = _split(received)
    return request.startswith(b"HEAD") or len(body) >= int(headers.get("content-length", "0"))


def _split(received: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = received.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return int(line.split()[1]), headers, body


def request(
    path: str, body: bytes = b"", *headers: str, method: str = "POST", length: str | None = "Content-Length: {}"
) -> bytes:
    """A request as bytes; nothing in it is made right."""
    fields = [f"{method} {path} HTTP/1.1", "Host: gateway", *headers]
    if length is not None:
        fields.append(length.format(len(body)))
    return "\r\n".join([*fields, "", ""]).encode("latin-1") + body


def refused(service: Service, data: bytes, status: int, detail: str = "") -> None:
    answer = send(service, data)
    assert answer is not None
    assert answer.status == status, answer.body
    assert detail in answer.problem()["detail"]


def form(*parts: bytes, boundary: bytes = b"frame", end: bytes = b"--") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + end + b"\r\n"


def part(content: bytes = PNG, disposition: str = 'form-data; name="file"; filename="a.png"', *more: str) -> bytes:
    head = "\r\n".join([f"Content-Disposition: {disposition}", *more])
    return head.encode() + b"\r\n\r\n" + content


def form_request(body: bytes, content_type: str = "multipart/form-data; boundary=frame") -> bytes:
    return request("/classify-image", body, f"Content-Type: {content_type}")


@pytest.fixture(autouse=True)
def others_are_served(service: Service) -> Iterator[None]:
    yield
    assert service.process.poll() is None
    assert service.post("/classify-text", json={"text": "good"}).json()["label"] == "positive"
    assert service.post("/classify-image", content=PNG).json()["label"] == "red"


# --- multipart


@pytest.mark.parametrize(
    "data",
    [
        form(part(b"")[:-4]),
        form(part())[:-20],
        form(part())[: len(PNG) // 2],
        form(part(), end=b"")[:-2],
        form(part(), part())[:-20],
        form(part(), end=b""),
        b"",
        b"--frame",
        b"--frame--\r\n",
        b"\r\n" * 1000,
        form(part(), boundary=b"another"),
        form(b"no header at all"),
        form(b"Content-Disposition: form-data\r\n\r\nx"),
        form(b"Content-Disposition\r\n\r\nx"),
        form(b"Content-Type: image/png\r\n\r\nx"),
        form(b": value\r\n\r\nx"),
        form(part(PNG, 'form-data; name="file"; filename="a.png"', "X: " + "y" * 100_000)),
        form(part(PNG, 'form-data; name="file"; filename="a.png"', *(f"X-{number}: y" for number in range(500)))),
        form(part(PNG, 'form-data; name="picture"; filename="a.png"')),
        form(part(PNG, 'form-data; name="file"')),
        form(part(PNG, "form-data; name=; filename=a")),
        form(part(PNG, 'form-data; name="' + "n" * 3000 + '"; filename="a"')),
        form(part(), part(PNG, 'form-data; name="x"')),
    ],
)
def test_a_malformed_form_is_refused(service: Service, data: bytes) -> None:
    refused(service, form_request(data), 400, "form")


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "b" * 5000,
        "multipart/form-data; bound=frame",
        "multipart/form-data;;;;;=;",
        "multipart/form-data; boundary=frame; charset=undefined",
        "multipart/form-data; boundary=\xff\xfe",
    ],
)
def test_a_form_whose_type_is_incomplete_is_refused(service: Service, content_type: str) -> None:
    name = 'form-data; name="f\u00fcr"; filename="a"'
    refused(service, form_request(form(part(PNG, name)), content_type), 400, "form")


@pytest.mark.parametrize("kind", ["multipart/mixed; boundary=frame", "multipart/related", "multipart/"])
def test_other_multipart_types_are_not_taken(service: Service, kind: str) -> None:
    refused(service, form_request(form(part()), kind), 415, "multipart/form-data")


@pytest.mark.parametrize("count", [9, 10, 1000])
def test_a_form_of_too_many_parts_is_too_large(service: Service, count: int) -> None:
    refused(service, form_request(form(*[part(b"x")] * count)), 413, "more than 8")


def test_a_form_in_a_form_is_a_file_that_is_no_picture(service: Service) -> None:
    inner = part(
        form(part(), boundary=b"inner"), 'form-data; name="file"; filename="x"', "Content-Type: multipart/mixed"
    )
    refused(service, form_request(form(inner)), 422, "not a picture")


@pytest.mark.parametrize(
    "filename",
    [
        '"../../etc/passwd"',
        '"C:\\\\windows\\\\a.png"',
        '"a.png\x00.exe"',
        '""',
        "unquoted.png",
        '"' + "n" * 2000 + '.png"',
        '"\u202egnp.exe"',
        "\"a.png\"; filename*=UTF-8''%00%ff%2e%2e",
        '"a"; filename="b"',
        '"quote\\"d.png"',
    ],
)
def test_a_files_name_is_of_no_account(service: Service, filename: str) -> None:
    answer = send(service, form_request(form(part(PNG, f'form-data; name="file"; filename={filename}'))))
    assert answer is not None
    assert answer.status == 200, answer.body
    assert json.loads(answer.body)["label"] == "red"


def test_what_stands_before_and_after_a_form_is_of_no_account(service: Service) -> None:
    for data in (b"\r\n" + form(part()), form(part()) + b"epilogue", form(part())[:-2]):
        answer = send(service, form_request(data))
        assert answer is not None
        assert answer.status == 200, answer.body


def test_a_part_that_says_how_it_is_encoded_is_taken_as_it_is(service: Service) -> None:
    encoded = part(PNG, 'form-data; name="file"; filename="a"', "Content-Transfer-Encoding: base64")
    answer = send(service, form_request(form(encoded)))
    assert answer is not None
    assert answer.status == 200  # RFC 7578, 4.7: there is no such encoding in forms


# --- lengths


@pytest.mark.parametrize(
    "lengths",
    [
        ["Content-Length: -1"],
        ["Content-Length: sixteen"],
        ["Content-Length: 16, 16"],
        ["Content-Length: 0x10"],
        ["Content-Length: 99999999999999999999999999"],
        ["Content-Length: 16", "Content-Length: 17"],
        ["Content-Length: 16", "Content-Length: 16"],
        ["Content-Length: 16", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 16"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: gzip"],
    ],
)
def test_lengths_that_are_wrong_or_contradict_each_other_are_refused(service: Service, lengths: list[str]) -> None:
    refused(service, request("/classify-text", TEXT, *lengths, length=None), 400)


def test_a_length_over_the_limit_is_refused_before_the_body_comes(service: Service) -> None:
    data = request("/classify-text", b"", "Content-Type: application/json", length="Content-Length: 999999999")
    refused(service, data, 413, "200,000")


def test_a_body_shorter_than_its_length_is_no_answer(service: Service) -> None:
    answer = send(service, request("/classify-text", TEXT, length="Content-Length: 17"), half_close=True)
    assert answer is None or answer.status == 400


def test_a_body_longer_than_its_length_is_refused(service: Service) -> None:
    refused(service, request("/classify-text", TEXT, length="Content-Length: 15"), 400)


@pytest.mark.parametrize(
    "body",
    [
        b"xyz\r\n" + TEXT + b"\r\n0\r\n\r\n",
        b"-1\r\n" + TEXT + b"\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n" + TEXT + b"\r\n0\r\n\r\n",
        b"5\r\n" + TEXT + b"\r\n0\r\n\r\n",
        b"0x10\r\n" + TEXT + b"\r\n0\r\n\r\n",
        b"10" + TEXT + b"0\r\n\r\n",
    ],
)
def test_chunks_of_bad_sizes_are_refused(service: Service, body: bytes) -> None:
    answer = send(service, request("/classify-text", body, "Transfer-Encoding: chunked", length=None))
    assert answer is not None
    assert answer.status == 400


def test_chunks_with_extensions_and_trailers_are_read(service: Service) -> None:
    body = b"8;a=b\r\n" + TEXT[:8] + b"\r\n8\r\n" + TEXT[8:] + b"\r\n0\r\nX-Trailer: yes\r\n\r\n"
    answer = send(service, request("/classify-text", body, "Transfer-Encoding: chunked", length=None))
    assert answer is not None
    assert answer.status == 200, answer.body


def test_a_request_in_the_body_of_another_is_not_answered(service: Service) -> None:
    smuggled = request("/livez", method="GET", length=None)
    for fields in (["Content-Length: 0", "Transfer-Encoding: chunked"], ["Transfer-Encoding: xchunked"]):
        refused(service, request("/classify-text", smuggled, *fields, length=None), 400)


# --- content codings


BOMB = gzip.compress(b'{"text": "' + b"a" * 50_000_000 + b'"}', mtime=0)


@pytest.mark.parametrize("path", ["/classify-image", "/classify-text"])
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("GZIP", BOMB),
        ("deflate", zlib.compress(PNG)),
        ("br", b"\x8b\x07\x80"),
        ("zstd", b"\x28\xb5\x2f\xfd"),
        ("gzip, gzip", gzip.compress(BOMB, mtime=0)),
        ("identity, gzip", BOMB),
        ("nonsense", TEXT),
        ("x" * 5000, TEXT),
    ],
)
def test_a_compressed_body_is_refused_and_never_inflated(service: Service, path: str, coding: str, body: bytes) -> None:
    answer = send(service, request(path, body, f"Content-Encoding: {coding}"))
    assert answer is not None
    assert answer.status == 415
    assert "uncompressed" in answer.problem()["detail"]
    assert answer.headers["accept-encoding"] == "identity"
    assert len(answer.body) < 1000


@pytest.mark.parametrize("coding", ["identity", "", "Identity"])
def test_a_body_that_says_it_is_not_compressed_is_taken(service: Service, coding: str) -> None:
    answer = send(service, request("/classify-text", TEXT, f"Content-Encoding: {coding}"))
    assert answer is not None
    assert answer.status == 200


# --- JSON


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"[" * 190_000, "nested too deeply"),
        (b'{"text":' * 20_000, "nested too deeply"),
        (b'{"text": ' + b"[" * 500 + b"]" * 500 + b"}", "text"),
        (b'{"text": NaN}', "NaN"),
        (b'{"texts": [Infinity]}', "Infinity"),
        (b'{"text": -Infinity}', "-Infinity"),
        (b'{"text": 1e999999}', "text"),
        (b'{"text": ' + b"9" * 100_000 + b"}", "too long"),
        (b'{"text": -0}', "text"),
        (b'{"text": "good", "text": "bad"}', "twice"),
        (b'{"texts": [{"a": 1, "a": 2}]}', "twice"),
        (b'{"text": "good", "model": "lstm"}', "'model'"),
        (b'{"' + b"n" * 100_000 + b'": 1}', "nnn"),
        (b'{"\\ud800": 1}', "member"),
        (b'{"Text": "good"}', "'Text'"),
        ('{"text": "good"}'.encode("utf-16"), "UTF-8"),
        ('{"text": "good"}'.encode("utf-16-le"), "JSON"),
        ('{"text": "good"}'.encode("utf-32"), "UTF-8"),
        (b'{"text": "\xff"}', "UTF-8"),
        (b'{"text": "good"} {"text": "bad"}', "JSON"),
        (b'{"text": "good",}', "JSON"),
        (b"{'text': 'good'}", "JSON"),
        (b'{"text": "a\x00b"}', "JSON"),
        (b'{"text": "good"', "JSON"),
        (b"text=good", "JSON"),
        (b"null", "no object"),
        (b'"good"', "no object"),
        (b'{"texts": "good"}', "texts"),
        (b'{"texts": [' + b"1," * 90_000 + b"1]}", "texts.0"),
        (b"{" + b",".join(b'"%d":0' % number for number in range(15_000)) + b"}", "member"),
    ],
)
def test_json_of_another_kind_is_refused(service: Service, body: bytes, detail: str) -> None:
    refused(service, request("/classify-text", body, "Content-Type: application/json"), 400, detail)


@pytest.mark.parametrize(
    "body", [b"\xef\xbb\xbf" + TEXT, b' \r\n\t{"text"\n:"g\\u006fod"} ', b'{"te\\u0078t": "good"}']
)
def test_json_that_looks_odd_and_is_right_is_read(service: Service, body: bytes) -> None:
    answer = send(service, request("/classify-text", body))
    assert answer is not None
    assert json.loads(answer.body)["label"] == "positive"


def test_thirty_megabytes_of_json_cost_little(service: Service) -> None:
    refused(service, request("/classify-text", b'{"texts": [' + b"1," * 15_000_000 + b"1]}"), 413, "200,000")


# --- media types


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Content-Type: application/json", "Content-Type: text/plain"], 400),
        (["Content-Type: application/json, text/plain"], 415),
        (["Content-Type: text/plain; charset=utf-16"], 415),
        (["Content-Type: application/json; charset=latin-1"], 415),
        (["Content-Type: text/plain; charset=" + "x" * 5000], 415),
        (["Content-Type: application/xml"], 415),
        (["Content-Type: image/png"], 415),
        (["Content-Type: */*"], 415),
        (["Content-Type: ;;;"], 200),
        (["Content-Type: application/json", "Content-Type: application/json"], 200),
        (["Content-Type: application/json; charset=utf-8; charset=utf-8"], 200),
        (["Content-Type: APPLICATION/JSON ; Charset=UTF-8"], 200),
        (["Content-Type: \xff\xfe"], 415),
        (["Content-Type: " + "a" * 20_000], 415),
    ],
)
def test_a_content_type_is_read_or_refused(service: Service, fields: list[str], status: int) -> None:
    answer = send(service, request("/classify-text", TEXT, *fields))
    assert answer is not None
    assert answer.status == status, answer.body
    assert len(answer.body) < 1000


@pytest.mark.parametrize("values", [["1", "2"], ["1e"], [""], ["1, 1"], ["\xff"], ["9" * 5000 + "x"], ["-inf"]])
def test_a_timeout_that_is_not_one_number_is_refused(service: Service, values: list[str]) -> None:
    fields = [f"X-Request-Timeout: {value}" for value in values]
    answer = send(service, request("/classify-text", TEXT, *fields))
    assert answer is not None
    assert answer.status == 400
    assert "X-Request-Timeout" in answer.problem()["detail"]
    assert len(answer.body) < 1000


# --- paths, queries, methods


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("top_k=1&top_k=2", "'top_k' is given more than once"),
        ("top_k=1&top_k=1", "more than once"),
        ("&".join(f"p{number}=1" for number in range(3000)), "p0"),
        ("n" * 20_000 + "=1", "nnn"),
        ("top_k=%", "top_k"),
        ("top_k=%ff%fe", "top_k"),
        ("top_k=%00", "top_k"),
        ("%zz=%", "%zz"),
        ("top_k=" + "9" * 5000, "top_k"),
        ("top_k=1e3", "top_k"),
        ("top_k[]=1", "top_k[]"),
        ("__proto__=1", "__proto__"),
    ],
)
def test_an_absurd_query_is_refused(service: Service, query: str, detail: str) -> None:
    answer = send(service, request(f"/classify-text?{query}", TEXT))
    assert answer is not None
    assert answer.status == 400, answer.body
    assert detail in answer.problem()["detail"]
    assert len(answer.body) < 2000


def test_ten_thousand_parameters_are_refused(service: Service) -> None:
    answer = send(service, request("/classify-text?" + "&".join(f"p{number}" for number in range(10_000)), TEXT))
    assert answer is not None
    assert answer.status in {400, 431}
    answer.problem()


@pytest.mark.parametrize("query", ["", "&&&", "top_k=1&", "top_k=+1", "top_k=%31"])
def test_an_odd_query_is_read(service: Service, query: str) -> None:
    answer = send(service, request(f"/classify-text?{query}", TEXT))
    assert answer is not None
    assert answer.status == 200, answer.body


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "//classify-text",
        "/../classify-text",
        "/./classify-text",
        "/classify-text/..",
        "/%2e%2e/etc/passwd",
        "/classify-text%00",
        "/%00",
        "/%ff",
        "/models/%00",
        "/models/..%2f..%2fetc",
        "/models/" + "a" * 10_000,
        "/Classify-Text",
        "/docs/assets/../../settings.py",
        "/docs/assets/%2e%2e/%2e%2e/settings.py",
    ],
)
def test_an_absurd_path_is_not_found(service: Service, path: str) -> None:
    answer = send(service, request(path, method="GET"))
    assert answer is not None
    assert answer.status == 404, answer.body
    answer.problem()
    assert len(answer.body) < 1000


@pytest.mark.parametrize("path", ["/" + "a" * 100_000, "/classify-text?" + "a" * 100_000])
def test_an_endless_path_is_refused(service: Service, path: str) -> None:
    answer = send(service, request(path, TEXT))
    assert answer is not None
    assert answer.status in {400, 404, 414, 431}


@pytest.mark.parametrize("path", ["*", "classify-text", "http://elsewhere/classify-text", "gateway:80"])
def test_a_target_that_is_no_path_reaches_nothing_else(service: Service, path: str) -> None:
    answer = send(service, request(path, TEXT))
    assert answer is not None
    assert answer.status < 500


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_another_method_is_refused_with_the_ones_that_are_taken(service: Service, method: str) -> None:
    answer = send(service, request("/classify-text", TEXT, method=method))
    assert answer is not None
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    assert method in answer.problem()["detail"]


def test_head_has_no_body(service: Service) -> None:
    answer = send(service, request("/classify-text", method="HEAD"))
    assert answer is not None
    assert (answer.status, answer.body) == (405, b"")


@pytest.mark.parametrize("method", ["BREW", "get", "PO ST", "\x00", "POST" * 1000])
def test_a_made_up_method_is_refused(service: Service, method: str) -> None:
    answer = send(service, request("/classify-text", TEXT, method=method))
    assert answer is not None
    assert answer.status in {400, 405}


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x00" * 1000,
        b"\r\n" * 1000 + b"?",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\nBad Header: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \x00\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
def test_what_is_no_http_harms_nobody(service: Service, data: bytes) -> None:
    answer = send(service, data, half_close=True)
    assert answer is None or answer.status < 500


def test_many_requests_on_one_connection_are_answered_in_their_order(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    bodies = [b'{"text": "good"}', b"{", b'{"text": "bad"}'] * 20
    data = b"".join(
        b"POST /classify-text HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        for body in bodies
    )
    received = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data + request("/livez", b"", "Connection: close", method="GET", length=None))
        while piece := connection.recv(65536):
            received += piece
    found = re.findall(rb"HTTP/1\.1 (\d+)", received)
    assert found == [b"200", b"400", b"200"] * 20 + [b"200"]

"""Whatever is wrong with a request: a right status, a reason, and the service goes on."""

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.processes import Service
from tests.e2e.tiny_models import picture

PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}


def check(response: Any, status: int, detail: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance"}
    assert problem["status"] == status
    assert detail in problem["detail"]
    assert problem["instance"] == f"urn:request:{response.headers['X-Request-ID']}"


@pytest.mark.parametrize(
    ("query", "status", "detail"),
    [
        ("top_k=0", 400, "top_k"),
        ("top_k=many", 400, "top_k"),
        ("topk=2", 400, "topk"),
        ("version=1.5", 400, "version"),
        ("version=-1", 400, "version"),
        ("version=1&version_label=stable", 400, "not both"),
        ("version_label=", 400, "version_label"),
        ("version=99", 404, "no version 99 in service; it has 1, 2"),
        ("version=99999999999999999999999", 404, "no version"),
        ("version_label=nightly", 404, "carries the label 'nightly'"),
        ("explain=true&version=1", 400, "Version 1 of cnn gives no explanations"),
        ("overlay=true", 400, "overlay needs explain=true"),
    ],
)
def test_a_bad_query_is_named(service: Service, query: str, status: int, detail: str) -> None:
    check(service.post(f"/classify-image?{query}", content=picture(), headers=PNG), status, detail)


@pytest.mark.parametrize(
    ("content", "headers", "status", "detail"),
    [
        (b"", PNG, 422, "empty"),
        (b"no picture", PNG, 422, "not a picture"),
        (picture(kind="BMP")[:100], PNG, 422, "cannot be decoded"),
        (b"%PDF-1.4", PNG, 415, "PDF is not taken"),
        (picture(size=(2000, 1000)), PNG, 413, "2000 × 1000"),
        (b"\0" * 200_001, PNG, 413, "200,000 bytes"),
        (picture(), {"Content-Type": "text/html"}, 415, "text/html"),
        (picture(), {"Content-Type": "multipart/form-data"}, 400, "form"),
        (b"garbage", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "form"),
    ],
)
def test_a_bad_picture_is_refused_with_its_reason(
    service: Service, content: bytes, headers: dict[str, str], status: int, detail: str
) -> None:
    check(service.post("/classify-image", content=content, headers=headers), status, detail)


def test_a_form_without_a_file_or_with_a_stranger_is_refused(service: Service) -> None:
    check(service.post("/classify-image", files={"picture": picture()}), 400, "'picture'")
    check(service.post("/classify-image", files={"file": picture()}, data={"top_k": "1"}), 400, "'top_k'")


def test_more_items_than_the_limit_are_refused(service: Service) -> None:
    check(service.post("/classify-text", json={"texts": ["good"] * 9}), 413, "more than 8")
    check(service.post("/classify-image", files=[("file", picture())] * 9), 413, "more than 8")
    check(service.post("/classify-image", files=[("file", picture())] * 30), 413, "more than 8")


@pytest.mark.parametrize(
    ("content", "headers", "status", "detail"),
    [
        (b"", JSON, 400, "JSON"),
        (b"{", JSON, 400, "JSON"),
        (b"good film", JSON, 400, "JSON"),
        (b'{"text": 1}', JSON, 400, "text"),
        (b'{"text": null}', JSON, 400, "either"),
        (b'{"text": "a", "texts": ["b"]}', JSON, 400, "either"),
        (b'{"text": "a", "lang": "en"}', JSON, 400, "lang"),
        (b'["good"]', JSON, 400, ""),
        (b'{"texts": [1]}', JSON, 400, "texts.0"),
        (b'{"texts": []}', JSON, 422, "empty"),
        (b'{"text": ""}', JSON, 422, "empty"),
        (b'{"text": " \\n"}', JSON, 422, "empty"),
        (b'{"text": "\\ud800"}', JSON, 422, "lone surrogate"),
        (b'{"text": "' + b"a" * 1001 + b'"}', JSON, 422, "at most 1,000"),
        (b"[" * 100_000, JSON, 400, ""),
        (b"\xff\xfe", {"Content-Type": "text/plain"}, 422, "UTF-8"),
        (b"gut", {"Content-Type": "text/plain; charset=latin-1"}, 415, "latin-1"),
        (b"<p/>", {"Content-Type": "text/html"}, 415, "text/html"),
    ],
)
def test_a_bad_text_is_refused_with_its_reason(
    service: Service, content: bytes, headers: dict[str, str], status: int, detail: str
) -> None:
    check(service.post("/classify-text", content=content, headers=headers), status, detail)


def test_paths_methods_and_models_that_do_not_exist(service: Service) -> None:
    check(service.get("/nothing"), 404, "/docs")
    check(service.get("/classify-image"), 405, "POST")
    check(service.get("/models/nothing"), 404, "cnn, lstm")
    check(service.get("/models/cnn?version=7"), 404, "no version 7")


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "soon"])
def test_a_timeout_that_is_none_is_refused(service: Service, timeout: str) -> None:
    response = service.post("/classify-text", json={"text": "good"}, headers={"X-Request-Timeout": timeout})
    check(response, 400, "X-Request-Timeout")


def test_a_deadline_that_cannot_be_kept_is_a_504(service: Service) -> None:
    response = service.post("/classify-text", json={"text": "good"}, headers={"X-Request-Timeout": "0.000001"})
    check(response, 504, "1e-06 seconds")


def test_deadlines_that_cannot_be_kept_harm_nobody_else(service: Service) -> None:
    def ask(timeout: str) -> int:
        response = service.post("/classify-text", json={"text": "good"}, headers={"X-Request-Timeout": timeout})
        return int(response.status_code)

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, ["0.0001", "10"] * 200))
    assert set(statuses[1::2]) == {200}


def test_a_body_over_the_limit_is_refused_while_it_streams_in(service: Service) -> None:
    def stream() -> Any:
        for _ in range(300):
            yield b"\0" * 1000

    check(service.post("/classify-image", content=stream(), headers=PNG), 413, "200,000 bytes")


def test_bodies_that_together_are_too_many_are_a_429(start_gateway: Start) -> None:
    service = start_gateway("--model-server", "127.0.0.1:1", "--max-held-bytes", "100000")
    host, port = service.url.removeprefix("http://").split(":")
    head = b"POST /classify-image HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + bytes(80_000))
        service.wait_for(lambda: service.post("/classify-image", content=bytes(30_000)).status_code == 429)
        assert service.post("/classify-image", content=bytes(30_000)).headers["Retry-After"]
    service.wait_for(lambda: service.post("/classify-image", content=bytes(30_000)).status_code == 503)


def test_half_a_body_hurts_nobody(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /classify-image HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
    assert service.post("/classify-text", json={"text": "good"}).status_code == 200

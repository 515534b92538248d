"""Under more than it can do, the service refuses at the door what it would refuse inside, in the same words."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.http.connections import LINGER_SECONDS
from serving.http.shedding import CROWD
from tests.e2e.processes import Service, gateway, model_server
from tests.e2e.test_connections import connect, everything
from tests.e2e.tiny_models import picture, put

BATCH, IN_FLIGHT = 8, 2
Answer = tuple[bytes, dict[bytes, bytes], dict[str, object]]


def request(*headers: str, body: bytes | None = None) -> bytes:
    body = picture() if body is None else body
    lines = ["Host: x", "Content-Type: image/png", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(["POST /classify-image HTTP/1.1", *lines, "", ""]).encode() + body


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, versions: Path) -> Iterator[Service]:
    """A gateway whose queue is full for good: its model server sleeps."""
    folder = tmp_path_factory.mktemp("full")
    put(versions / "cnn" / "1", folder / "models" / "cnn" / "1")
    flags = ("--max-queue", str(CROWD), "--max-batch-size", str(BATCH), "--text-model", "", "--deadline-seconds", "600")
    with (
        model_server(folder / "server.log", folder / "models") as server,
        gateway(folder / "log", "--model-server", server.url, *flags) as service,
        ExitStack() as stack,
    ):
        service.wait_for(service.is_ready)
        server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(CROWD + IN_FLIGHT * BATCH):
                stack.enter_context(connect(service)).sendall(request())
            service.wait_for(lambda: ask(service, request())[0].startswith(b"HTTP/1.1 429"))
            yield service
        finally:
            server.process.send_signal(signal.SIGCONT)


def read(connection: socket.socket) -> Answer:
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
    while len(body) < int(headers[b"content-length"]):
        body += connection.recv(65536)
    return status, headers, json.loads(body)


def ask(service: Service, sent: bytes) -> Answer:
    with connect(service) as connection:
        connection.settimeout(1)
        connection.sendall(sent)
        try:
            return read(connection)
        except TimeoutError:  # it was let in, and given up now
            return b"", {}, {}


def count(service: Service, metric: str) -> float:
    return sum(map(float, re.findall(rf"^{metric} (\S+)$", service.get("/metrics").text, re.MULTILINE)))


def test_a_refusal_at_the_door_is_the_one_that_the_endpoint_gives(full: Service) -> None:
    at_the_door = ask(full, request("X-Request-ID: same"))
    inside = ask(full, request("X-Request-ID: same", "Proxy-Connection: keep-alive"))
    for answer in (at_the_door, inside):
        assert answer[1].pop(b"date")
    assert at_the_door == inside
    assert at_the_door[0] == b"HTTP/1.1 429 Too Many Requests"
    assert int(at_the_door[1][b"retry-after"]) >= 1


def test_a_refusal_is_counted_and_has_its_line_in_the_log(full: Service) -> None:
    answered = r'sightread_requests_total\{code="429",model="cnn",version=""\}'
    shed = r'sightread_shed_total\{model="cnn"\}'
    before = count(full, answered), count(full, shed)
    with connect(full) as connection:
        for number in range(3):
            connection.sendall(request(f"X-Request-ID: counted-{number}"))
            assert read(connection)[0].startswith(b"HTTP/1.1 429")
    assert (count(full, answered), count(full, shed)) == (before[0] + 3, before[1] + 3)
    lines = [json.loads(line) for line in full.log.read_text().splitlines() if '"counted-' in line]
    assert [line["request_id"] for line in lines] == ["counted-0", "counted-1", "counted-2"]
    assert {(line["status"], line["path"], line["model"]) for line in lines} == {(429, "/classify-image", "cnn")}


def test_a_body_that_comes_after_its_refusal_is_not_taken_for_the_next_request(full: Service) -> None:
    whole = request(body=b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    head = whole.index(b"\r\n\r\n") + 4
    with connect(full) as connection:
        connection.sendall(whole[: head + 10])
        assert read(connection)[0].startswith(b"HTTP/1.1 429")
        connection.sendall(whole[head + 10 : -5])
        time.sleep(0.2)
        connection.sendall(whole[-5:] + b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        status, _, document = read(connection)
        assert status.startswith(b"HTTP/1.1 200")
        assert document["ready"]
        assert everything(connection) == b""


def test_who_sends_no_more_of_a_refused_body_is_let_go(full: Service) -> None:
    start = time.monotonic()
    with connect(full) as connection:
        connection.sendall(request(body=b"x" * 1000)[:-1])
        assert read(connection)[0].startswith(b"HTTP/1.1 429")
        assert everything(connection) == b""
    assert time.monotonic() - start > LINGER_SECONDS / 2


def test_who_asks_for_something_else_on_a_refused_connection_is_answered(full: Service) -> None:
    with connect(full) as connection:
        for _ in range(2):
            connection.sendall(request())
            assert read(connection)[0].startswith(b"HTTP/1.1 429")
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read(connection)[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("cut", [1, 60, 1000])
def test_what_comes_within_a_head_belongs_to_it(full: Service, cut: int) -> None:
    begun = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nX-Its-Own-Header-As-Long-As-It-Is: "
    with connect(full) as connection:
        connection.sendall(begun[:cut])
        time.sleep(0.2)
        connection.sendall(begun[cut:])
        time.sleep(0.2)
        connection.sendall(request())
        status, _, document = read(connection)
        assert status.startswith(b"HTTP/1.1 404")
        assert document["title"] == "Not found"
        connection.sendall(request())
        assert read(connection)[0].startswith(b"HTTP/1.1 429")

"""Connections that only hold on are let go, and everybody else is served meanwhile."""

import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.processes import Service, gateway, model_server, started
from tests.e2e.tiny_models import picture


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A gateway with little patience."""
    flags = ("--max-connections", "20", "--max-header-bytes", "4000", "--header-seconds", "0.5")
    more = ("--idle-seconds", "1", "--deadline-seconds", "1", "--model-server", "127.0.0.1:1")
    with gateway(tmp_path_factory.mktemp("strict") / "log", *flags, *more) as service:
        yield service


def connect(service: Service) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(20)
    return connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("start", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
def test_headers_that_never_end_are_a_408(strict: Service, start: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(start)
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert strict.get("/livez").status_code == 200


def test_headers_that_drip_do_not_earn_more_time(strict: Service) -> None:
    with connect(strict) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        until = time.monotonic() + 20
        try:
            while time.monotonic() < until:
                connection.sendall(b"X: y\r\n")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() < until
        assert everything(connection).startswith((b"HTTP/1.1 408 ", b""))


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"POST /classify-text HTTP/1.1\r\nContent-Length: 9\r\nX: " + b"a" * 5000 + b"\r\n\r\nsome body",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000,
    ],
)
def test_headers_over_the_limit_are_a_431(strict: Service, head: bytes) -> None:
    with connect(strict) as connection:
        try:
            connection.sendall(head)
            answer = everything(connection)
        except (BrokenPipeError, ConnectionResetError):
            return  # it was let go before it had sent everything
    assert answer.startswith(b"HTTP/1.1 431 ") or not answer
    assert strict.get("/livez").status_code == 200


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 5000, b"\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 3000, b"a" * 3000 + b"\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 3900, b"a" * 90 + b"\r\n\r\n"],
        [b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nX: " + b"a" * 5000, b"\r\n\r\n"],
        [b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nX: " + b"a" * 5000 + b"\r\n\r\n"],
    ],
)
def test_headers_over_the_limit_are_a_431_in_whatever_pieces_they_come(strict: Service, pieces: list[bytes]) -> None:
    with connect(strict) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.3)  # so that it comes by itself
        answer = everything(connection)
    assert b"HTTP/1.1 431 " in answer


@pytest.mark.parametrize(
    "head",
    [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET \xff HTTP/1.1\r\n\r\n"],
)
def test_what_is_not_http_is_a_400(strict: Service, head: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(head)
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"not valid HTTP" in answer
    assert strict.get("/livez").status_code == 200


def test_a_body_that_never_ends_is_a_408(strict: Service) -> None:
    with connect(strict) as connection:
        connection.sendall(b"POST /classify-text HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles_after_its_answer_does_not_hold_the_connection(strict: Service) -> None:
    with connect(strict) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
        until = time.monotonic() + 20
        try:
            while time.monotonic() < until:
                connection.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            pass  # it was let go
        assert time.monotonic() < until


def test_the_work_on_a_request_ends_when_its_client_has_gone(repository: Path, tmp_path: Path) -> None:
    with (
        model_server(tmp_path / "server.log", repository) as server,
        gateway(tmp_path / "log", "--model-server", server.url, "--deadline-seconds", "600") as service,
    ):
        service.wait_for(service.is_ready)
        server.process.send_signal(signal.SIGSTOP)
        try:
            body = picture()
            with connect(service) as connection:
                head = f"POST /classify-image HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
                # the question is one request itself
                service.wait_for(lambda: "sightread_requests_in_flight 2.0" in service.get("/metrics").text)
            service.wait_for(lambda: "sightread_requests_in_flight 1.0" in service.get("/metrics").text)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert 'code="499",model="cnn"' in service.get("/metrics").text
        assert "Traceback" not in service.log.read_text()


def test_an_idle_connection_is_closed(strict: Service) -> None:
    with connect(strict) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 200 ")


def test_a_crowd_of_idle_connections_keeps_nobody_out(strict: Service) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(connect(strict)) for _ in range(60)]
        # not after they have had their time: at once
        assert strict.get("/livez").status_code == 200
        for connection in held:
            everything(connection)


def test_connections_that_are_being_answered_are_not_pushed_out(strict: Service) -> None:
    body = b'{"text": "x"}'
    with ExitStack() as stack:
        asked = [stack.enter_context(connect(strict)) for _ in range(20)]
        for connection in asked:
            head = f"POST /classify-text HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:-1])
        strict.wait_for(lambda: _refused(strict) == b"")
        for connection in asked:
            connection.sendall(body[-1:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 503 ")  # there is no model server: but an answer


def _refused(service: Service) -> bytes:
    """What a further connection gets."""
    with connect(service) as connection:
        try:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        except OSError:
            return b""
        return everything(connection)


def test_a_keep_alive_connection_serves_many_requests(strict: Service) -> None:
    with connect(strict) as connection:
        for _ in range(30):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 3000 + b"\r\n\r\n")
            answer = b""
            while not answer.endswith(b'{"status":"alive"}'):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_refused_connection_leaves_no_trace_in_the_process(strict: Service) -> None:
    def open_files() -> int:
        return len(list(Path(f"/proc/{strict.process.pid}/fd").iterdir()))

    assert strict.get("/livez").status_code == 200
    before = open_files()
    for _ in range(50):
        with connect(strict) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            everything(connection)
    strict.wait_for(lambda: open_files() <= before + 2)


def test_when_the_system_has_no_room_for_a_further_connection_it_waits_and_is_then_served(tmp_path: Path) -> None:
    few_files = (sys.executable, "-c", FEW_FILES)
    with started([*few_files, "--model-server", "127.0.0.1:1"], "Sightread listens on ", tmp_path / "log") as service:
        with ExitStack() as stack:
            held = [stack.enter_context(connect(service)) for _ in range(100)]
            service.wait_for(lambda: "no further connection can be taken" in service.log.read_text())
            held[0].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert held[0].recv(65536).startswith(b"HTTP/1.1 200 ")
            for connection in held[:-1]:
                connection.close()
            held[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert held[-1].recv(65536).startswith(b"HTTP/1.1 200 ")
        assert service.get("/livez").status_code == 200


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from serving.__main__ import main
sys.exit(main(["--port", "0", *sys.argv[1:]]))
"""

"""Connections that only hold on are let go, and everybody else is served meanwhile."""

import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from serving.http.connections import LINGER_SECONDS
from tests.e2e.conftest import Start
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
        [b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: " + b"a" * 5000 + b"\r\n\r\n"],
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
    assert "Traceback" not in strict.log.read_text()


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


def test_an_idle_connection_that_sends_empty_lines_is_closed(strict: Service) -> None:
    with connect(strict) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        assert everything(connection) == b""


def test_a_connection_whose_refused_body_came_whole_is_kept(start_gateway: Start) -> None:
    service = start_gateway("--model-server", "127.0.0.1:1")
    with connect(service) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"abc")
        time.sleep(LINGER_SECONDS + 0.5)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_request_that_began_before_the_last_answer_is_not_cut_off(start_gateway: Start) -> None:
    service = start_gateway("--model-server", "127.0.0.1:1", "--idle-seconds", "1")
    body = b'{"text": "x"}'
    head = f"POST /classify-text HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with connect(service) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + head[:9])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(head[9:])
        time.sleep(1.5)
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 503 ")  # there is no model server: but an answer


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


def test_who_reads_no_answers_keeps_nobody_out(strict: Service) -> None:
    with ExitStack() as stack:
        for _ in range(20):  # as many as there may be
            deaf = stack.enter_context(connect(strict))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.settimeout(1)
            with suppress(TimeoutError, OSError):
                deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 90)
        strict.wait_for(lambda: _is_served(strict))


def _is_served(service: Service) -> bool:
    with connect(service) as connection, suppress(OSError):
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return everything(connection).startswith(b"HTTP/1.1 200 ")
    return False


def test_who_reads_no_answers_is_let_go(strict: Service) -> None:
    with connect(strict) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 90)
        strict.wait_for(lambda: _is_closed(deaf))


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side takes no more."""
    try:
        connection.sendall(b"\r\n")
    except OSError:
        return True
    return False


def megabytes(service: Service) -> float:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the memory")
def test_requests_without_end_take_no_memory(strict: Service) -> None:
    before = megabytes(strict)
    with connect(strict) as connection:
        connection.settimeout(0.5)
        with suppress(OSError):  # it is let go, or read no more
            for _ in range(1000):
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
        assert megabytes(strict) < before + 30
        assert strict.get("/livez").status_code == 200


@pytest.mark.parametrize(
    "more",
    [b"0\r\n" + b"a:b\r\n" * 2000, b"0\r\na:" + b"b" * 9000, b"1;" + b"b" * 9000],
    ids=["trailers", "a trailer", "a chunk"],
)
def test_what_stands_beside_a_bodys_chunks_is_limited_as_headers_are(strict: Service, more: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(b"POST /classify-text HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        time.sleep(0.1)
        connection.sendall(more)
        assert everything(connection).startswith(b"HTTP/1.1 431 ")


def test_trailers_are_no_headers(strict: Service) -> None:
    head = b"POST /classify-text HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    with connect(strict) as connection:
        connection.sendall(head + b"\r\n2\r\n{}\r\n0\r\nX-Request-ID: late\r\n\r\n")
        connection.sendall(head + b"X-Request-ID: early\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        answers = everything(connection)
    assert b"x-request-id: early" in answers
    assert b"late" not in answers


@pytest.mark.parametrize("body_comes", ["with the head", "later"])
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_who_asks_for_another_protocol_is_answered_in_this_one(
    strict: Service, protocol: bytes, body_comes: str
) -> None:
    head = (
        b"POST /classify-text HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\n"
        b"HTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    )
    body = b"GET /livez HTTP/1.1\r\nX-Request-ID: smuggled\r\n\r\n"
    with connect(strict) as connection:
        for _ in range(2):  # and the connection goes on
            connection.sendall(head % (protocol, len(body)) + (body if body_comes == "with the head" else b""))
            if body_comes == "later":
                time.sleep(0.1)
                connection.sendall(body)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n")
        answers = everything(connection)
    # no model is served here: the texts were read
    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"503", b"503", b"200"]
    assert b"smuggled" not in answers


def test_however_many_requests_come_at_once_all_are_answered(strict: Service) -> None:
    head = b"POST /classify-text HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 900\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connect(strict) as connection, ThreadPoolExecutor(1) as sender:
        sent = sender.submit(connection.sendall, (head + b"a" * 900) * 700 + last)
        answers = everything(connection)
        sent.result()
    # no model is served here
    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"503"] * 700 + [b"200"]

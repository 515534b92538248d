"""`sightread serve` as a person starts and stops it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from serving.settings import Settings
from tests.e2e.conftest import Start
from tests.e2e.processes import PATIENCE, Service
from tests.e2e.tiny_models import picture

PNG = {"Content-Type": "image/png"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sightread", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def processes_of_session(session: int) -> list[int]:
    """The processes that a program started, itself among them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if fields[0] != "Z" and f"SIGHTREAD_TEST_SESSION={session}".encode() in environment:
                found.append(int(entry.name))
    return found


def wait_until_gone(session: int) -> None:
    """The service's own exit may be a moment ahead of what it started."""
    until = time.monotonic() + PATIENCE
    while left := processes_of_session(session):
        assert time.monotonic() < until, f"still there: {left}"
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_one_command_serves_both_models_and_leaves_no_process_behind(
    repository: Path, start_gateway: Start, how: signal.Signals
) -> None:
    marked = {"SIGHTREAD_TEST_SESSION": str(id(repository))}
    service = start_gateway("--models", str(repository), environment=marked)
    service.wait_for(service.is_ready)
    answer = service.post("/classify-image", content=picture("red"), headers=PNG).json()
    assert (answer["label"], answer["model"]) == ("red", {"name": "cnn", "version": 1})
    assert service.post("/classify-text", json={"text": "a good film"}).json()["label"] == "positive"
    assert len(processes_of_session(id(repository))) == 2
    # as Ctrl-C does, to everything in the foreground
    os.killpg(service.process.pid, how)
    assert service.process.wait(30) == 0
    wait_until_gone(id(repository))


def test_a_killed_gateway_takes_its_model_server_along(repository: Path, start_gateway: Start) -> None:
    marked = {"SIGHTREAD_TEST_SESSION": str(id(repository))}
    service = start_gateway("--models", str(repository), environment=marked)
    service.wait_for(service.is_ready)
    service.process.kill()
    service.process.wait()
    wait_until_gone(id(repository))


def test_a_model_server_that_ends_by_itself_ends_the_service_with_an_error(
    repository: Path, start_gateway: Start
) -> None:
    marked = {"SIGHTREAD_TEST_SESSION": str(id(repository))}
    service = start_gateway("--models", str(repository), environment=marked)
    service.wait_for(service.is_ready)
    (server,) = set(processes_of_session(id(repository))) - {service.process.pid}
    os.kill(server, signal.SIGKILL)
    assert service.process.wait(30) == 1
    assert "the local model server ended by itself" in service.log.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_closing_the_terminal_ends_it(start_gateway: Start, tmp_path: Path, workers: str) -> None:
    marked = {"SIGHTREAD_TEST_SESSION": str(id(tmp_path))}
    service = start_gateway("--model-server", "127.0.0.1:1", "--workers", workers, environment=marked)
    assert service.get("/livez").status_code == 200
    os.killpg(service.process.pid, signal.SIGHUP)
    service.process.wait(30)
    wait_until_gone(id(tmp_path))


def test_a_signal_during_the_start_stops_it(repository: Path, start_gateway: Start) -> None:
    service = start_gateway("--models", str(repository))
    assert service.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_accepted_requests_are_answered_before_the_end(repository: Path, start_gateway: Start, workers: str) -> None:
    service = start_gateway("--models", str(repository), "--workers", workers)
    service.wait_for(service.is_ready)
    host, port = service.url.removeprefix("http://").split(":")
    body = picture("red")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /classify-image HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:10])
        # until it was read, the request is not accepted
        service.wait_for(lambda: "sightread_requests_in_flight 2.0" in service.get("/metrics").text)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for(lambda: _refuses_connections(host, int(port)))
        connection.sendall(body[10:])
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")
    assert service.process.wait(30) == 0
    assert '"path": "/classify-image", "status": 200' in service.log.read_text()


def test_what_is_still_open_when_the_time_is_up_is_told_to_come_back(start_gateway: Start) -> None:
    service = start_gateway("--model-server", "127.0.0.1:1", environment={"SIGHTREAD_DRAIN_SECONDS": "1"})
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /classify-image HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        service.wait_for(lambda: "sightread_requests_in_flight 2.0" in service.get("/metrics").text)
        service.process.send_signal(signal.SIGTERM)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"\r\nretry-after: 1\r\n" in answer.lower()
    assert service.process.wait(30) == 0


def test_asked_to_stop_it_is_not_ready_first_and_goes_on_answering_for_a_while(
    repository: Path, start_gateway: Start
) -> None:
    service = start_gateway("--models", str(repository), environment={"SIGHTREAD_NOT_READY_SECONDS": "3"})
    service.wait_for(service.is_ready)
    service.process.send_signal(signal.SIGTERM)
    service.wait_for(lambda: not service.is_ready())
    assert service.get("/readyz").json()["reason"] == "it was asked to stop"
    answer = service.post("/classify-image", content=picture(), headers=PNG)
    assert answer.status_code == 200
    assert answer.headers["Connection"] == "close"  # who asks again does so elsewhere
    assert service.process.wait(30) == 0


@pytest.mark.slow
def test_workers_are_asked_to_stop_though_one_of_them_hangs(start_gateway: Start, tmp_path: Path) -> None:
    marked = {"SIGHTREAD_TEST_SESSION": str(id(tmp_path))}
    flags = ("--model-server", "127.0.0.1:1", "--workers", "2", "--drain-seconds", "1")
    service = start_gateway(*flags, environment=marked)
    service.wait_for(lambda: len([*filter(is_worker, processes_of_session(id(tmp_path)))]) == 2)
    service.wait_for(lambda: _answers(service))
    hanging = next(filter(is_worker, processes_of_session(id(tmp_path))))
    os.kill(hanging, signal.SIGSTOP)
    time.sleep(2)  # meanwhile it is asked whether it is well
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENCE) == 0
    log = service.log.read_text()
    assert f"worker {hanging} did not end in time" in log
    assert "starting another" not in log


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_asked_twice_it_ends_at_once(start_gateway: Start, workers: str, second: signal.Signals) -> None:
    service = start_gateway(
        *("--model-server", "127.0.0.1:1", "--workers", workers),
        environment={"SIGHTREAD_NOT_READY_SECONDS": "1000"},
    )
    assert service.get("/livez").status_code == 200
    service.process.send_signal(signal.SIGTERM)
    if second == signal.SIGTERM:  # two of a kind may reach it as one while it had no time for the first
        service.wait_for(lambda: "it was asked to stop" in service.get("/readyz").text)
    service.process.send_signal(second)
    service.process.wait(30)


def _refuses_connections(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_several_workers_share_the_port_and_add_up_their_metrics(repository: Path, start_gateway: Start) -> None:
    marked = {"SIGHTREAD_TEST_SESSION": str(id(repository))}
    service = start_gateway("--models", str(repository), "--workers", "2", environment=marked)
    service.wait_for(lambda: len(processes_of_session(id(repository))) >= 4)
    for _ in range(20):  # each on a connection of its own: both workers get some
        service.wait_for(service.is_ready)
    for _ in range(40):
        assert service.post("/classify-image", content=picture(), headers=PNG).status_code == 200

    def counted() -> float:
        told = service.get("/metrics").text
        found = re.search(r'sightread_requests_total\{code="200",model="cnn",version="1"\} (\S+)', told)
        return float(found[1]) if found else 0.0

    # the worker that tells knows what the other one wrote, and that is a moment behind
    service.wait_for(lambda: counted() >= 40)
    assert counted() == 40
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.process.wait(30) == 0
    wait_until_gone(id(repository))


def test_workers_end_with_a_parent_that_was_killed(start_gateway: Start, tmp_path: Path) -> None:
    marked = {"SIGHTREAD_TEST_SESSION": str(id(tmp_path))}
    service = start_gateway("--model-server", "127.0.0.1:1", "--workers", "2", environment=marked)
    assert service.get("/livez").status_code == 200
    service.process.kill()
    service.process.wait()
    wait_until_gone(id(tmp_path))


def test_a_worker_that_was_killed_is_replaced_and_counts_no_more(start_gateway: Start, tmp_path: Path) -> None:
    marked = {"SIGHTREAD_TEST_SESSION": str(id(tmp_path))}
    service = start_gateway("--model-server", "127.0.0.1:1", "--workers", "2", environment=marked)
    host, port = service.url.removeprefix("http://").split(":")
    held = [socket.create_connection((host, int(port))) for _ in range(10)]
    for connection in held:
        connection.sendall(b"POST /classify-text HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
    service.wait_for(lambda: in_flight(service) > 5)
    for worker in processes_of_session(id(tmp_path)):
        if is_worker(worker):
            os.kill(worker, signal.SIGKILL)
    service.wait_for(lambda: _answers(service) and in_flight(service) == 1)
    for connection in held:
        connection.close()


@pytest.mark.slow
def test_workers_share_the_connections_out_and_nobody_waits_for_one_that_is_stuck_or_gone(
    start_gateway: Start, tmp_path: Path
) -> None:
    marked = {"SIGHTREAD_TEST_SESSION": str(id(tmp_path))}
    service = start_gateway("--model-server", "127.0.0.1:1", "--workers", "2", environment=marked)

    def workers() -> list[int]:
        listening = inodes(service, LISTENING)
        return [pid for pid in processes_of_session(id(tmp_path)) if is_worker(pid) and sockets(pid) & listening]

    with httpx.Client(base_url=service.url, limits=httpx.Limits(max_connections=None)) as http, ExitStack() as stack:

        def hold(connections: int) -> None:
            """So many more connections, of which each is answered and stays."""
            for _ in range(connections):
                response = stack.enter_context(http.stream("GET", "/livez"))
                assert response.status_code == 200

        def shares() -> list[int]:
            established = inodes(service, ESTABLISHED)
            return [len(sockets(worker) & established) for worker in workers()]

        def both_take_some() -> bool:
            hold(1)
            return len(workers()) == 2 and min(shares()) > 0

        service.wait_for(both_take_some)
        stuck = workers()[0]
        os.kill(stuck, signal.SIGSTOP)
        hold(100)
        os.kill(stuck, signal.SIGCONT)
        # by chance it would take half of what comes now, and 750 until it had its share
        until = sum(shares()) + 400
        while max(shares()) > 1.25 * min(shares()) + 6:
            hold(1)
            assert sum(shares()) < until
        os.kill(stuck, signal.SIGKILL)
        service.wait_for(both_take_some)


LISTENING, ESTABLISHED = "0A", "01"
"""In /proc/net/tcp."""


def inodes(service: Service, state: str) -> set[str]:
    """Of all sockets of the service's port in a state, connections' other ends excluded."""
    port = f":{int(service.url.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {fields[9] for fields in lines if fields[1].endswith(port) and fields[3] == state}


def sockets(process: int) -> set[str]:
    """The inodes of a process's sockets; none if it has ended meanwhile."""
    found = set()
    with suppress(OSError):
        for file in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                found.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def is_worker(process: int) -> bool:
    """Whether a process is one of `--workers`, and has not ended meanwhile."""
    with suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def in_flight(service: Service) -> float:
    """What the metrics say; the question itself is one."""
    counted = re.search(r"^sightread_requests_in_flight (\S+)", service.get("/metrics").text, re.MULTILINE)
    return float(counted[1]) if counted else 0.0


def _answers(service: Service) -> bool:
    try:
        return service.get("/livez").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_gateway_alone_is_small(start_gateway: Start) -> None:
    service = start_gateway("--model-server", "127.0.0.1:1")
    assert service.get("/livez").status_code == 200
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    resident = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert resident is not None
    assert int(resident[1]) < 120_000


def test_without_a_model_server_the_gateway_says_so_and_stays_alive(start_gateway: Start) -> None:
    service = start_gateway("--model-server", "127.0.0.1:1")
    service.wait_for(lambda: "127.0.0.1:1 cannot be reached" in service.get("/readyz").text)
    assert service.get("/readyz").status_code == 503
    answer = service.post("/classify-text", json={"text": "good"})
    assert answer.status_code == 503
    assert "cannot be reached" in answer.json()["detail"]
    assert service.get("/livez").status_code == 200


def test_without_models_the_service_waits_for_the_first_one(
    tmp_path: Path, repository: Path, start_gateway: Start
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    service = start_gateway("--models", str(empty))
    service.wait_for(lambda: "has no model 'cnn'" in service.get("/readyz").text)
    shutil.copytree(repository, empty, dirs_exist_ok=True)
    service.wait_for(service.is_ready)


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port), "--model-server", "127.0.0.1:1")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_model_repository_is_told_with_what_to_do(tmp_path: Path) -> None:
    done = run("serve", "--port", "0", "--models", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "no model repository" in done.stderr
    assert "sightread train" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "seventy"], "--port"),
        (["--port", "70000"], "--port"),
        (["--deadline-seconds", "0"], "--deadline-seconds"),
        (["--colour", "red"], "--colour"),
        (["--model-server", "http://tensorflow-serving:8500"], "without http://"),
    ],
)
def test_a_wrong_flag_is_named(flags: list[str], said: str) -> None:
    done = run("serve", *flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_come_from_the_environment(start_gateway: Start) -> None:
    service = start_gateway(environment={"SIGHTREAD_MODEL_SERVER": "127.0.0.1:1", "SIGHTREAD_IMAGE_MODEL": "resnet"})
    assert [model["name"] for model in service.get("/models").json()["models"]] == ["resnet", "lstm"]


def test_a_kubernetes_service_of_the_same_name_does_not_change_the_port() -> None:
    assert Settings.model_validate({"port": "tcp://10.0.0.1:8080"}).port == 8080


def test_help_tells_every_command_and_flag() -> None:
    assert {"serve", "train"} <= set(run("--help").stdout.split())
    assert "--model-server" in run("serve", "--help").stdout
    nothing = run("sevre")
    assert nothing.returncode == 2
    assert "sevre" in nothing.stderr


def test_the_service_can_be_asked_at_once(start_gateway: Start) -> None:
    service = start_gateway("--model-server", "127.0.0.1:1")
    assert httpx.get(service.url + "/livez").status_code == 200  # no retry: it had said that it listens

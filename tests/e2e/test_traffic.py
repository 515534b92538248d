"""Shares of the traffic for a canary and a shadow, what is told of answers, dying servers, and too many requests."""

import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from serving.http.requests import LARGE_PICTURE
from tests.e2e.conftest import Start
from tests.e2e.processes import Service, gateway, model_server
from tests.e2e.test_versions import PNG, QUICK, ask, traffic
from tests.e2e.tiny_models import picture, put


def total(service: Service, metric: str) -> float:
    """A metric's value, or the sum of all whose labels the pattern fits."""
    return total_in(service.get("/metrics").text, metric)


def total_in(metrics: str, metric: str) -> float:
    """What `total` tells, of what `/metrics` has answered."""
    return sum(map(float, re.findall(rf"^{metric} (\S+)$", metrics, re.MULTILINE)))


@pytest.fixture(scope="module")
def shared_out(tmp_path_factory: pytest.TempPathFactory, versions: Path) -> Iterator[Service]:
    """A gateway whose canary, version 2, gets a third of the requests, and whose shadow, version 3, gets all."""
    folder = tmp_path_factory.mktemp("shared-out")
    repository = folder / "models"
    for version in (1, 2, 3):
        put(versions / "cnn" / str(version), repository / "cnn" / str(version))
    labels = {"stable": 1, "canary": 2, "shadow": 3}
    (repository / "models.config").write_text(
        'model_config_list { config { name: "cnn" base_path: "cnn" '
        "model_version_policy { latest { num_versions: 3 } }"
        + "".join(f' version_labels {{ key: "{label}" value: {number} }}' for label, number in labels.items())
        + " } }"
    )
    flags = ("--canary-share", "0.333", "--shadow-share", "1", "--decoders", "1", "--text-model", "")
    with (
        model_server(folder / "server.log", repository) as server,
        gateway(folder / "log", "--model-server", server.url, *flags, *QUICK) as service,
    ):
        service.wait_for(lambda: all(entry["state"] == "proven" for entry in service.versions().values()))
        service.wait_for(lambda: ask(service).status_code == 200)
        yield service


def answered_by(response: httpx.Response) -> int:
    assert response.status_code == 200
    version: int = response.json()["model"]["version"]
    return version


def test_a_canary_answers_its_share_of_the_requests_that_name_no_version(shared_out: Service) -> None:
    counted = Counter(answered_by(ask(shared_out)) for _ in range(300))
    assert set(counted) == {1, 2}
    assert 60 < counted[2] < 140  # 100 expected; further off happens once in a million runs
    assert {answered_by(ask(shared_out, "?version=1")) for _ in range(30)} == {1}
    assert {answered_by(ask(shared_out, "?version_label=stable")) for _ in range(30)} == {1}


def test_requests_of_one_session_go_to_one_version(shared_out: Service) -> None:
    seen = set()
    for session in range(30):
        headers = {**PNG, "X-Session-ID": f"session-{session}"}
        asked = [shared_out.post("/classify-image", content=picture(), headers=headers) for _ in range(3)]
        (version,) = {answered_by(response) for response in asked}
        seen.add(version)
    assert seen == {1, 2}


def test_a_shadow_answers_as_well_and_is_only_counted(shared_out: Service) -> None:
    counted = r'sightread_shadow_answers_total\{answer="%s",model="cnn",shadow="3",version="."\}'
    before = total(shared_out, counted % "same")
    assert answered_by(ask(shared_out)) in {1, 2}
    shared_out.wait_for(lambda: total(shared_out, counted % "same") > before)
    assert total(shared_out, counted % "different") == 0
    before = total(shared_out, counted % "same")
    assert ask(shared_out, "?version=1").status_code == 200  # who names a version casts no shadow
    broken = shared_out.post("/classify-image", content=b"no picture", headers=PNG)
    assert broken.status_code in {415, 422}
    assert answered_by(ask(shared_out)) in {1, 2}
    shared_out.wait_for(lambda: total(shared_out, counted % "same") == before + 1)


def test_no_shadow_is_cast_while_others_wait_to_be_decoded(shared_out: Service) -> None:
    dropped = r'sightread_shadow_answers_total\{answer="dropped",model="cnn",shadow="",version="."\}'
    large = BytesIO()
    Image.linear_gradient("L").resize((3000, 3000)).save(large, "PNG")
    before = total(shared_out, dropped)

    def ask_for_large(_: int) -> int:
        return shared_out.post("/classify-image", content=large.getvalue(), headers=PNG).status_code

    with ThreadPoolExecutor(4) as clients:
        assert set(clients.map(ask_for_large, range(4))) == {200}
    assert total(shared_out, dropped) > before  # others were there when the first was answered


def test_answers_are_counted_by_label_and_confidence_and_their_drift_is_told(shared_out: Service) -> None:
    of_red = r'sightread_predictions_total\{label="red",model="cnn",version="1"\}'
    before = total(shared_out, of_red)
    with httpx.Client(base_url=shared_out.url, timeout=30) as http:
        for _ in range(30):
            files = [("file", ("a.png", picture("red"), "image/png"))] * 8
            assert http.post("/classify-image?version=1", files=files).status_code == 200
    assert total(shared_out, of_red) == before + 240
    assert total(shared_out, r'sightread_confidence_count\{model="cnn",version="1"\}') >= 240
    # a third of each colour was expected, and only red came: log2(3) shared bits and no more
    drift = total(shared_out, r'sightread_drift\{model="cnn",of="labels",version="1"\}')
    assert 0.5 < drift < 0.8


def test_a_canary_that_cannot_answer_costs_nobody_anything(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    put(versions / "cnn" / "broken", repository / "cnn" / "2")
    (repository / "models.config").write_text(
        'model_config_list { config { name: "cnn" base_path: "cnn" version_labels { key: "stable" value: 1 } '
        'version_labels { key: "canary" value: 2 } } }'
    )
    server = start_model_server(repository)
    flags = ("--model-server", server.url, "--canary-share", "1", "--text-model", "", *QUICK)
    service = start_gateway(*flags)
    service.wait_for(service.is_ready)
    for _ in range(10):
        assert answered_by(ask(service)) == 1


def test_a_server_of_two_that_dies_costs_no_request(repository: Path, tmp_path: Path, start_gateway: Start) -> None:
    with (
        model_server(tmp_path / "one.log", repository) as one,
        model_server(tmp_path / "other.log", repository) as other,
    ):
        service = start_gateway("--model-server", f"ipv4:{one.url},{other.url}", "--text-model", "", *QUICK)
        service.wait_for(service.is_ready)
        with traffic(service) as seen:
            service.wait_for(lambda: seen[200, 1] > 50)
            other.process.kill()
            other.process.wait()
            after = seen[200, 1]
            service.wait_for(lambda: seen[200, 1] > after + 200)
        assert set(seen) == {(200, 1)}


def test_a_service_that_is_asked_too_much_refuses_at_once_and_answers_what_it_took(
    repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    server = start_model_server(repository)
    service = start_gateway(
        *("--model-server", server.url, "--text-model", "", "--max-queue", "16", "--max-batch-size", "8")
    )
    service.wait_for(service.is_ready)
    server.process.send_signal(signal.SIGSTOP)
    refused = threading.Semaphore(0)

    def client(_: int) -> int:
        response = http.post("/classify-image", content=picture(), headers={**PNG, "X-Request-Timeout": "9"})
        if response.status_code == 429:
            assert int(response.headers["Retry-After"]) >= 1
            refused.release()
        return response.status_code

    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=service.url, timeout=60, limits=limits) as http, ThreadPoolExecutor(100) as clients:
        asked = [clients.submit(client, number) for number in range(100)]
        try:
            # two calls of up to 8 are in flight and 16 wait: the others hear so while the model server still sleeps
            for _ in range(68):
                assert refused.acquire(timeout=30)
            three = [("file", (f"{number}.png", picture(), "image/png")) for number in range(3)]
            assert http.post("/classify-image", files=three).status_code == 429
        finally:
            server.process.send_signal(signal.SIGCONT)
        statuses = Counter(future.result() for future in asked)
    assert set(statuses) == {200, 429}
    assert 18 <= statuses[200] <= 32
    assert total(service, r'sightread_shed_total\{model="cnn"\}') == statuses[429] + len(three)
    assert ask(service).status_code == 200


def test_a_large_body_is_refused_before_it_comes_while_many_wait_to_be_decoded(
    repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    server = start_model_server(repository)
    flags = ("--model-server", server.url, "--text-model", "", "--decoders", "1", "--deadline-seconds", "60")
    service = start_gateway(*flags)
    service.wait_for(service.is_ready)
    buffer = BytesIO()
    # it takes much longer to decode than to send
    Image.radial_gradient("L").resize((5000, 4000)).convert("RGB").save(buffer, "PNG", compress_level=1)
    large = buffer.getvalue()
    assert len(large) > LARGE_PICTURE
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        f"POST /classify-image HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\n"
        f"X-Request-Timeout: 0.2\r\nContent-Length: {len(large)}\r\n\r\n"
    )

    def send_it() -> int:
        return httpx.post(f"{service.url}/classify-image", content=large, headers=PNG, timeout=120).status_code

    def announce_it() -> bytes:
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head.encode())
            return connection.recv(65536)

    assert send_it() == 200  # now it is known how long one takes
    with ThreadPoolExecutor(16) as clients:
        sent = [clients.submit(send_it) for _ in range(16)]
        # what is not refused at its head waits for its body until its deadline
        service.wait_for(lambda: announce_it().startswith(b"HTTP/1.1 429 "))
        assert {future.result() for future in sent} == {200}


@pytest.mark.parametrize("body_comes", ["with the head", "later"])
def test_others_are_answered_while_hundreds_of_pictures_wait(
    body_comes: str, repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    server = start_model_server(repository)
    service = start_gateway("--model-server", server.url, "--text-model", "")
    service.wait_for(service.is_ready)
    buffer = BytesIO()
    Image.radial_gradient("L").convert("RGB").resize((640, 480)).save(buffer, "JPEG")
    host, port = service.url.removeprefix("http://").split(":")
    head = f"POST /classify-image HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\nContent-Length: "
    request = f"{head}{len(buffer.getvalue())}\r\n\r\n".encode() + buffer.getvalue()
    first = 0 if body_comes == "with the head" else len(request) - len(buffer.getvalue())
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection((host, int(port)), timeout=60)) for _ in range(400)]
        for connection in crowd:
            connection.sendall(request[:first])
        service.get("/livez")  # connections are taken in their order: these have been, and what came over them was read
        somebody = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
        service.process.send_signal(signal.SIGSTOP)  # all has come when it looks, however slow who sends is
        try:
            for connection in crowd:
                connection.sendall(request[first:])
            somebody.sendall(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        finally:
            service.process.send_signal(signal.SIGCONT)
        # who asks last is answered before most of them were even looked at
        with somebody.makefile() as answer:
            decoded = total_in(answer.read(), r'sightread_stage_seconds_count\{model="cnn",stage="decode"\}')
        assert decoded < len(crowd) / 2
        assert {connection.recv(65536)[:12] for connection in crowd} == {b"HTTP/1.1 200"}

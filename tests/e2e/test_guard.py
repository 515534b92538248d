"""Who may come in, how often, over what, and from where."""

import hashlib
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from serving.http.api_keys import main as make_key
from tests.e2e.conftest import Start
from tests.e2e.processes import Service
from tests.e2e.tiny_models import picture

NOWHERE = ("--model-server", "127.0.0.1:1")


def line(name: str, key: str) -> str:
    return f"{name}:{hashlib.sha256(key.encode()).hexdigest()}\n"


def ask(service: Service, **headers: str) -> httpx.Response:
    return service.get("/models", headers=headers)


def test_without_a_known_key_nobody_comes_in_but_the_probes_answer(tmp_path: Path, start_gateway: Start) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# who may come in\n\n" + line("alice", "first") + line("bob", "second"))
    service = start_gateway(*NOWHERE, "--api-keys-file", str(keys))
    for headers in [
        {},
        {"X-API-Key": "third"},
        {"Authorization": "Basic first"},
        {"X-API-Key": line("alice", "first").strip()},
    ]:
        refused = ask(service, **headers)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert refused.json()["title"] == "Unauthorized"
        assert refused.headers["X-Request-ID"] in refused.json()["instance"]
    assert service.post("/classify-image", content=picture()).status_code == 401
    for headers in [{"X-API-Key": "first"}, {"Authorization": "Bearer second"}, {"Authorization": "bearer first"}]:
        assert ask(service, **headers).status_code == 200
    assert {service.get(path).status_code for path in ("/livez", "/healthz")} == {200}
    assert service.get("/readyz").status_code == 503
    assert {service.get(path).status_code for path in ("/metrics", "/docs", "/openapi.json", "/")} == {200}
    said = service.log.read_text()
    assert "first" not in said
    assert "key of alice" not in said or '"client"' in said


def test_metrics_and_docs_can_be_guarded_too(tmp_path: Path, start_gateway: Start) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("alice", "first"))
    service = start_gateway(*NOWHERE, "--api-keys-file", str(keys), "--guard-metrics", "true", "--guard-docs", "true")
    for path in ("/metrics", "/docs", "/openapi.json", "/docs/assets/swagger-ui.css", "/", "/page/page.js"):
        assert service.get(path).status_code == 401
        assert service.get(path, headers={"X-API-Key": "first"}).status_code == 200


def test_keys_are_rotated_without_a_restart(tmp_path: Path, start_gateway: Start) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("alice", "first"))
    service = start_gateway(*NOWHERE, "--api-keys-file", str(keys))
    assert ask(service, **{"X-API-Key": "first"}).status_code == 200
    beside = tmp_path / "keys.new"
    beside.write_text(line("alice", "second"))
    beside.rename(keys)
    service.wait_for(lambda: ask(service, **{"X-API-Key": "first"}).status_code == 401)
    assert ask(service, **{"X-API-Key": "second"}).status_code == 200
    keys.write_text("garbage")
    second = {"X-API-Key": "second"}
    service.wait_for(lambda: ask(service, **second).status_code == 200 and "stay valid" in service.log.read_text())
    assert ask(service, **{"X-API-Key": "second"}).status_code == 200


@pytest.mark.parametrize("content", [None, "", "# nobody\n", "alice:nothash\n", "alice\n", "a b:" + "0" * 64])
def test_a_file_without_usable_keys_stops_the_start(tmp_path: Path, content: str | None) -> None:
    keys = tmp_path / "keys"
    if content is not None:
        keys.write_text(content)
    command = [sys.executable, "-m", "sightread", "serve", "--port", "0", *NOWHERE, "--api-keys-file", str(keys)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert str(keys) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_made_key_opens_the_service(tmp_path: Path, start_gateway: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_key(["carol"]) == 0
    _, key, _, _, line_of_it = capsys.readouterr().out.splitlines()
    assert key not in line_of_it
    keys = tmp_path / "keys"
    keys.write_text(line_of_it + "\n")
    service = start_gateway(*NOWHERE, "--api-keys-file", str(keys))
    assert ask(service, **{"X-API-Key": key}).status_code == 200
    assert make_key(["no such: name"]) == 2


def test_a_client_over_its_rate_is_told_when_to_come_back(tmp_path: Path, start_gateway: Start) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("alice", "first") + line("bob", "second"))
    service = start_gateway(*NOWHERE, "--api-keys-file", str(keys), "--rate-limit", "5/minute")
    answers = [ask(service, **{"X-API-Key": "first"}) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert "key of alice" in answers[-1].json()["detail"]
    assert ask(service, **{"X-API-Key": "second"}).status_code == 200
    assert service.get("/livez").status_code == 200


def test_a_client_with_too_many_requests_at_once_is_told_so_and_others_are_not(
    tmp_path: Path, start_gateway: Start
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("alice", "first") + line("bob", "second"))
    service = start_gateway(*NOWHERE, "--api-keys-file", str(keys), "--max-concurrency", "2")
    host, port = service.url.removeprefix("http://").split(":")
    head = "POST /classify-text HTTP/1.1\r\nHost: x\r\nX-API-Key: first\r\nContent-Length: 9\r\n\r\n{"
    with ExitStack() as stack:
        for _ in range(2):
            waiting = stack.enter_context(socket.create_connection((host, int(port))))
            waiting.sendall(head.encode())
        service.wait_for(lambda: ask(service, **{"X-API-Key": "first"}).status_code == 429)
        assert "2 requests at once" in ask(service, **{"X-API-Key": "first"}).json()["detail"]
        assert ask(service, **{"X-API-Key": "second"}).status_code == 200
    service.wait_for(lambda: ask(service, **{"X-API-Key": "first"}).status_code == 200)


def test_who_is_refused_before_sending_a_body_is_told_that_the_connection_ends(
    tmp_path: Path, start_gateway: Start
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("alice", "first"))
    service = start_gateway(*NOWHERE, "--api-keys-file", str(keys))
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = b"POST /classify-text HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"\r\nconnection: close\r\n" in answer.lower()


def test_without_keys_the_rate_is_the_addresss_and_only_a_trusted_proxy_can_name_another(start_gateway: Start) -> None:
    service = start_gateway(*NOWHERE, "--rate-limit", "2/minute")
    statuses = [ask(service, **{"X-Forwarded-For": f"10.0.0.{number}"}).status_code for number in range(4)]
    assert statuses == [200, 200, 429, 429]


def test_a_trusted_proxy_names_the_client(start_gateway: Start) -> None:
    service = start_gateway(*NOWHERE, "--rate-limit", "2/minute", "--trusted-proxies", "127.0.0.1")
    statuses = [ask(service, **{"X-Forwarded-For": f"10.0.0.{number}"}).status_code for number in range(4)]
    assert statuses == [200] * 4
    assert [ask(service, **{"X-Forwarded-For": "10.0.0.9"}).status_code for _ in range(3)] == [200, 200, 429]


def test_other_origins_may_ask_only_when_they_are_named(start_gateway: Start) -> None:
    origin = {"Origin": "https://shop.example"}
    closed = start_gateway(*NOWHERE)
    assert "access-control-allow-origin" not in ask(closed, **origin).headers
    opened = start_gateway(*NOWHERE, "--cors-origins", "https://shop.example, https://other.example")
    assert ask(opened, **origin).headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in ask(opened, Origin="https://evil.example").headers
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    allowed = httpx.options(opened.url + "/classify-text", headers=asked)
    assert allowed.status_code == 200
    assert "POST" in allowed.headers["access-control-allow-methods"]


def test_every_response_has_the_security_headers(service: Service) -> None:
    for path in ("/livez", "/models", "/nothing", "/docs", "/metrics"):
        headers = service.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "server" not in headers
    assert "'unsafe-inline'" not in service.get("/docs").headers["Content-Security-Policy"].split("style-src")[0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rate-limit", "often"], "rate-limit"),
        (["--trusted-proxies", "foo"], "trusted-proxies"),
        (["--model-server-key", "key.pem"], "go together"),
        (["--model-server-certificate", "c.pem", "--model-server-key", "k.pem"], "model_server_ca"),
        (["--model-server-ca", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
    ],
)
def test_a_setting_that_cannot_be_kept_stops_the_start(flags: list[str], said: str) -> None:
    command = [sys.executable, "-m", "sightread", "serve", "--port", "0", *NOWHERE, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr

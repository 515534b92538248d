"""`sightread doctor`: with nothing running, beside a service that is well, and beside all kinds that are not."""

import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.settings import Settings
from terminal.doctor import proof
from tests.client.scripted import scripted
from tests.e2e.processes import Service, gateway, model_server
from tests.e2e.terminals import Done, sightread, sightread_on_terminal
from tests.e2e.tiny_models import put

NO_SERVER = ("--model-server", "127.0.0.1:1", "--image-model", "", "--text-model", "")
"""No proof is run: for what is checked before."""


@dataclass(frozen=True)
class Running:
    """A gateway, its model server, and the repository of that."""

    gateway: Service
    model_server: Service
    repository: Path

    def doctor(self, *flags: str) -> Done:
        where = ("--models", str(self.repository), "--model-server", self.model_server.url)
        return sightread("doctor", *where, "--url", self.gateway.url, "--port", "0", *flags)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, versions: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("running")
    repository = folder / "models"
    for version in ("cnn/1", "lstm/1"):
        put(versions / version, repository / version)
    with (
        model_server(folder / "model-server.log", repository) as server,
        gateway(folder / "gateway.log", "--model-server", server.url, "--poll-seconds", "0.2") as asked,
    ):
        asked.wait_for(asked.is_ready)
        yield Running(asked, server, repository)


def findings(done: Done) -> dict[str, list[dict[str, Any]]]:
    """The findings of `--json` by their checks."""
    document = json.loads(done.out)
    assert document["well"] == (done.code == 0)
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in document["checks"]:
        found.setdefault(finding["check"], []).append(finding)
    return found


def failed(done: Done) -> list[str]:
    """The checks that failed, each with what it says and what to do."""
    assert done.code == 1, done.out
    return [
        f"{check}: {finding['says']} → {finding['do']}"
        for check, found in findings(done).items()
        for finding in found
        if finding["state"] == "failed"
    ]


def test_beside_a_service_that_is_well_all_is_well(running: Running) -> None:
    done = running.doctor("--json")
    assert done.code == 0, done.out
    found = findings(done)
    assert list(found) == ["Python", "packages", "models", "port", "gateway", "model server", "golden proof"]
    assert {finding["state"] for checks in found.values() for finding in checks} == {"ok"}
    assert "tensorflow 2.20" in found["packages"][0]["says"]
    assert [finding["says"].split(",")[0] for finding in found["golden proof"]] == [
        "cnn 1 answers its golden examples as in training",
        "lstm 1 answers its golden examples as in training",
    ]


def test_a_version_that_does_not_prove_itself_is_named_with_its_reason(running: Running, versions: Path) -> None:
    put(versions / "cnn" / "broken", running.repository / "cnn" / "2")
    running.gateway.wait_for(lambda: running.gateway.versions().get(2, {}).get("state") == "refused")
    try:
        done = running.doctor()
        assert done.code == 1
        lines = done.out.splitlines()
        (at,) = [number for number, line in enumerate(lines) if line.startswith("✗")]
        assert lines[at].startswith("✗ golden proof  cnn 2 takes no traffic (refused): 8 of 8 golden examples")
        assert "remove the version's folder" in lines[at + 1]
        assert any(line.startswith("✓ golden proof  cnn 1 answers") for line in lines)
    finally:
        shutil.rmtree(running.repository / "cnn" / "2")


@pytest.mark.parametrize(
    ("state", "do"),
    [
        ({"state": "refused", "reason": "8 of 8 differ"}, "train it anew, and remove {}/cnn/2"),
        ({"state": "end", "reason": "no memory"}, "mend what it names; or train it anew, and remove {}/cnn/2"),
        ({"state": "loading"}, "ask again: sightread doctor"),
        ({"state": "proving", "reason": "the model server is busy"}, "ask again: sightread doctor"),
    ],
)
def test_only_what_will_never_take_traffic_is_to_be_removed(state: dict[str, Any], do: str, tmp_path: Path) -> None:
    described = {"name": "cnn", "serving": None, "versions": [{"version": 2, **state}]}
    *_, finding = proof(described, Settings(models=tmp_path))
    assert (finding.state, finding.do) == ("failed", do.format(tmp_path))


def test_with_nothing_running_it_proves_the_folder_and_says_what_to_type(repository: Path) -> None:
    done = sightread_on_terminal("doctor", "--models", str(repository), "--url", "http://127.0.0.1:1", "--port", "0")
    assert done.code == 1
    assert done.out.count("✗") == 1
    assert "nobody answers at http://127.0.0.1:1" in done.out
    assert "make serve" in done.out
    assert "cnn 1 answers its golden examples as in training" in done.out
    assert "lstm 1 answers its golden examples as in training" in done.out


def test_a_model_server_that_cannot_start_tells_why(repository: Path, service: Service) -> None:
    (repository / "models.config").write_text("nonsense {")
    done = sightread("doctor", "--models", str(repository), "--url", service.url, "--port", "0", "--json")
    folder, server = failed(done)
    assert folder.startswith(f"models: {repository / 'models.config'} is no ModelServerConfig")
    assert server.startswith("model server: the local model server ended")


@pytest.mark.slow
def test_a_folder_without_models_and_a_port_and_an_address_of_strangers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger, scripted() as website:
        port = str(stranger.getsockname()[1])
        flags = ("--models", str(tmp_path), "--text-model", "", "--model-server", "127.0.0.1:1")
        done = sightread("doctor", *flags, "--port", port, "--url", website.url, "--json")
    folder, held, address, server = failed(done)
    assert "has no model 'cnn' for images; it has none → sightread train cnn --name cnn" in folder
    assert held.startswith(f"port: 127.0.0.1:{port} is held by another program → stop it")
    assert address.startswith(f"gateway: what is at {website.url} is no Sightread gateway")
    assert "127.0.0.1:1 cannot be reached → start it" in server


def test_what_is_amiss_in_the_folder_is_listed(repository: Path) -> None:
    (repository / "cnn" / "1" / "saved_model.pb").write_bytes(b"half of one")
    (repository / "models.config").write_text(
        'model_config_list { config { name: "lstm" base_path: "lstm" version_labels { key: "stable" value: 7 } } }'
    )
    done = sightread("doctor", "--models", str(repository), "--url", "http://127.0.0.1:1", *NO_SERVER, "--json")
    half, lost, gateway = failed(done)
    assert "saved_model.pb is no SavedModel" in half
    assert f"remove {repository / 'cnn' / '1'}" in half
    assert "labels version 7 of lstm 'stable', and there is none → sightread models promote lstm" in lost
    assert gateway.startswith("gateway: nobody answers")


def test_a_tensorflow_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "tensorflow-2.19.1.dist-info").mkdir()
    (tmp_path / "tensorflow-2.19.1.dist-info" / "METADATA").write_text("Name: tensorflow\nVersion: 2.19.1\n")
    done = sightread("doctor", *NO_SERVER, "--json", environment={"PYTHONPATH": str(tmp_path)})
    assert "packages: tensorflow 2.19.1 is not ==2.20.*" in failed(done)[0]


def test_settings_are_those_of_the_service(service: Service) -> None:
    port = service.url.rpartition(":")[-1]
    done = sightread("doctor", *NO_SERVER, "--json", environment={"SIGHTREAD_PORT": port})
    found = findings(done)
    assert found["port"][0]["says"] == f"127.0.0.1:{port} is held by a Sightread gateway"
    assert found["gateway"][1]["says"] == "cnn is ready: version 2 answers"
    for flags in (["--port", "many"], ["--model-server", "http://127.0.0.1"], ["--nonsense"]):
        wrong = sightread("doctor", *flags)
        assert (wrong.code, wrong.out) == (2, "")
        assert flags[0] in wrong.err

"""Versions come, prove themselves, take over, fail and vanish; whoever asks gets a right answer all the while."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.processes import Service
from tests.e2e.tiny_models import MISFITS, picture, put, score

PNG = {"Content-Type": "image/png"}
QUICK = ("--poll-seconds", "0.1")


def ask(service: Service, query: str = "") -> httpx.Response:
    return service.post(f"/classify-image{query}", content=picture("red"), headers=PNG)


@contextmanager
def traffic(service: Service, query: str = "") -> Iterator[Counter[tuple[int, int]]]:
    """Ask all the time from four threads; count (status, version). A score that is not its version's fails."""
    seen: Counter[tuple[int, int]] = Counter()
    stop = threading.Event()

    def client() -> None:
        with httpx.Client(base_url=service.url, timeout=30) as http:
            while not stop.is_set():
                response = http.post(f"/classify-image{query}", content=picture("red"), headers=PNG)
                version = 0
                if response.status_code == 200:
                    version = response.json()["model"]["version"]
                    if response.json()["score"] != pytest.approx(score(version), abs=1e-3):
                        version = -1
                seen[response.status_code, version] += 1

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_new_version_takes_over_without_a_failed_request(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    service = start_gateway("--model-server", start_model_server(repository).url, *QUICK)
    service.wait_for(service.is_ready)
    with traffic(service) as seen:
        service.wait_for(lambda: seen[200, 1] > 50)
        put(versions / "cnn" / "2", repository / "cnn" / "2")
        service.wait_for(lambda: seen[200, 2] > 50)
        shutil.rmtree(repository / "cnn" / "2")
        old = seen[200, 1]
        service.wait_for(lambda: seen[200, 1] > old + 50)
    assert set(seen) == {(200, 1), (200, 2)}


def test_a_start_answers_with_the_newest_version_from_its_first_answer_on(
    repository: Path, versions: Path, start_gateway: Start
) -> None:
    for version in ("2", "3"):
        put(versions / "cnn" / version, repository / "cnn" / version)
    service = start_gateway("--models", str(repository), "--text-model", "")
    service.wait_for(lambda: ask(service).status_code == 200)
    assert ask(service).json()["model"]["version"] == 3


def test_a_version_that_does_not_load_delays_a_start_no_longer_than_it_takes_to_fail(
    repository: Path, start_gateway: Start
) -> None:
    (repository / "cnn" / "2").mkdir()
    (repository / "cnn" / "2" / "saved_model.pb").write_bytes(b"garbage")
    service = start_gateway("--models", str(repository), "--text-model", "")
    service.wait_for(lambda: ask(service).status_code == 200)
    assert ask(service).json()["model"]["version"] == 1


def test_a_server_that_keeps_one_version_only_loses_no_request_either(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    # TensorFlow Serving's own default: the old version is gone the moment the new one is there
    (repository / "models.config").write_text(
        """model_config_list {
          config { name: "cnn" base_path: "cnn" model_version_policy { latest { num_versions: 1 } } }
          config { name: "lstm" base_path: "lstm" }
        }"""
    )
    service = start_gateway("--model-server", start_model_server(repository).url, "--poll-seconds", "5")
    service.wait_for(service.is_ready)
    with traffic(service) as seen:
        service.wait_for(lambda: seen[200, 1] > 50)
        put(versions / "cnn" / "2", repository / "cnn" / "2")
        service.wait_for(lambda: seen[200, 2] > 50)
    assert set(seen) == {(200, 1), (200, 2)}


def test_a_version_whose_golden_examples_disagree_takes_no_traffic_and_the_old_one_goes_on(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    service = start_gateway("--model-server", start_model_server(repository).url, *QUICK)
    service.wait_for(service.is_ready)
    with traffic(service) as seen:
        put(versions / "cnn" / "broken", repository / "cnn" / "2")
        service.wait_for(lambda: service.versions().get(2, {}).get("state") == "refused")
        before = seen[200, 1]
        service.wait_for(lambda: seen[200, 1] > before + 50)
    assert set(seen) == {(200, 1)}
    assert "golden examples disagree with training" in service.versions()[2]["reason"]
    assert "golden examples disagree" in service.get("/readyz").text
    assert service.is_ready()
    asked = ask(service, "?version=2")
    assert asked.status_code == 404
    assert "golden examples disagree" in asked.json()["detail"]
    page = service.get("/metrics").text
    assert 'sightread_proof_failures_total{model="cnn",version="2"} 1.0' in page
    assert 'sightread_version_proven{model="cnn",version="2"} 0.0' in page

    shutil.rmtree(repository / "cnn" / "2")
    put(versions / "cnn" / "3", repository / "cnn" / "3")
    service.wait_for(lambda: ask(service).json()["model"]["version"] == 3)


def test_a_version_whose_output_is_not_what_its_contract_says_is_refused(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    for number, name in enumerate(MISFITS, 2):
        put(versions / name / "1", repository / "cnn" / str(number))
    (repository / "models.config").write_text(
        """model_config_list {
          config { name: "cnn" base_path: "cnn" model_version_policy { all {} } }
          config { name: "lstm" base_path: "lstm" }
        }"""
    )
    service = start_gateway("--model-server", start_model_server(repository).url, *QUICK)
    service.wait_for(lambda: [version["state"] for version in service.versions().values()].count("refused") == 3)
    assert {number: version.get("reason") for number, version in service.versions().items()} == {
        4: "its output is not float32",
        3: "it gives 2 probabilities for 3 labels",
        2: "its output has shape [64, 1, 3] for 64 rows",
        1: None,
    }
    assert ask(service).json()["model"]["version"] == 1


def test_a_broken_first_version_is_never_served_and_readyz_says_why(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    shutil.rmtree(repository / "cnn" / "1")
    put(versions / "cnn" / "broken", repository / "cnn" / "1")
    service = start_gateway("--model-server", start_model_server(repository).url, *QUICK)
    service.wait_for(lambda: "golden examples disagree" in service.get("/readyz").text)
    assert service.get("/readyz").status_code == 503
    answer = ask(service)
    assert answer.status_code == 503
    assert "golden examples disagree" in answer.json()["detail"]
    assert answer.headers["Retry-After"]
    assert service.post("/classify-text", json={"text": "good"}).status_code == 200
    page = service.get("/metrics").text
    assert 'sightread_model_ready{model="cnn"} 0.0' in page
    assert 'sightread_model_ready{model="lstm"} 1.0' in page


def test_a_model_that_lost_its_versions_takes_no_traffic_from_the_other(
    repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    service = start_gateway("--model-server", start_model_server(repository).url, *QUICK)
    service.wait_for(service.is_ready)
    (repository / "lstm" / "1").rename(repository / "lstm" / ".gone")
    service.wait_for(lambda: 'sightread_model_ready{model="lstm"} 0.0' in service.get("/metrics").text)
    assert service.post("/classify-text", json={"text": "good"}).status_code == 503
    assert ask(service).status_code == 200
    readiness = service.get("/readyz")
    assert readiness.status_code == 200
    assert [model["ready"] for model in readiness.json()["models"]] == [True, False]
    (repository / "cnn" / "1").rename(repository / "cnn" / ".gone")
    service.wait_for(lambda: service.get("/readyz").status_code == 503)


def test_garbage_in_the_repository_hurts_nobody(
    repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    garbage = repository / "cnn" / "7"
    garbage.mkdir()
    (garbage / "saved_model.pb").write_bytes(b"garbage")
    (repository / "cnn" / "notes.txt").write_text("not a version")
    (repository / "stray").write_text("not a model")
    service = start_gateway("--model-server", start_model_server(repository).url, *QUICK)
    service.wait_for(service.is_ready)
    assert ask(service).json()["model"]["version"] == 1
    service.wait_for(lambda: service.versions()[7]["state"] == "end")
    assert service.versions()[7]["reason"]


def test_a_model_of_the_wrong_kind_is_refused(
    repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    flags = ("--image-model", "lstm", "--text-model", "")
    service = start_gateway("--model-server", start_model_server(repository).url, *flags, *QUICK)
    service.wait_for(lambda: "kind 'text'" in service.get("/readyz").text)
    assert ask(service).status_code == 503
    assert service.post("/classify-text", json={"text": "good"}).status_code == 404


def test_an_unknown_model_is_named_as_the_reason(
    repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    service = start_gateway("--model-server", start_model_server(repository).url, "--image-model", "resnet", *QUICK)
    service.wait_for(lambda: "has no model 'resnet'" in service.get("/readyz").text)
    assert "has no model 'resnet'" in ask(service).json()["detail"]


def test_a_label_that_moves_is_followed(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    put(versions / "cnn" / "2", repository / "cnn" / "2")

    def label(version: int) -> None:
        config = f'config {{ name: "cnn" base_path: "cnn" version_labels {{ key: "stable" value: {version} }} }}'
        beside = repository / "models.config.new"
        beside.write_text(f"model_config_list {{ {config} }}")
        beside.rename(repository / "models.config")

    label(1)
    service = start_gateway("--model-server", start_model_server(repository).url, "--text-model", "", *QUICK)
    service.wait_for(lambda: ask(service, "?version=2").status_code == 200)
    assert ask(service, "?version_label=stable").json()["model"]["version"] == 1
    label(2)
    service.wait_for(lambda: ask(service, "?version_label=stable").json()["model"]["version"] == 2)


def test_another_model_under_a_proven_number_has_to_prove_itself(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    # an empty folder beside it keeps the old one loaded while its own folder becomes another
    (repository / "cnn" / "9").mkdir()
    service = start_gateway("--model-server", start_model_server(repository).url, *QUICK)
    service.wait_for(service.is_ready)
    (repository / "cnn" / "1").rename(repository / "cnn" / ".old")
    time.sleep(1)  # the server looks five times; nothing that it tells changes
    put(versions / "cnn" / "3", repository / "cnn" / "1")
    service.wait_for(lambda: service.log.read_text().count("cnn: version 1 proved itself") == 2)
    assert ask(service).json()["score"] == pytest.approx(score(3), abs=1e-3)


def test_a_server_that_takes_smaller_batches_than_ours_is_found_out_before_traffic(
    repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    server = start_model_server(repository, flags=("--max-batch-size", "8"))
    service = start_gateway("--model-server", server.url, *QUICK)
    service.wait_for(lambda: "larger than maximum input batch size 8" in service.get("/readyz").text)
    assert service.get("/readyz").status_code == 503
    fitting = start_gateway("--model-server", server.url, "--max-batch-size", "8", *QUICK)
    fitting.wait_for(fitting.is_ready)


def test_a_label_that_moves_away_from_a_vanishing_version_loses_no_request(
    repository: Path, versions: Path, start_model_server: Start, start_gateway: Start
) -> None:
    put(versions / "cnn" / "2", repository / "cnn" / "2")

    def serve_only(version: int, *others: int) -> None:
        kept = " ".join(f"versions: {number}" for number in (version, *others))
        label = f'version_labels {{ key: "stable" value: {version} }}'
        policy = f"model_version_policy {{ specific {{ {kept} }} }}"
        beside = repository / "models.config.new"
        beside.write_text(f'model_config_list {{ config {{ name: "cnn" base_path: "cnn" {policy} {label} }} }}')
        beside.rename(repository / "models.config")

    serve_only(1, 2)
    service = start_gateway("--model-server", start_model_server(repository).url, "--text-model", "", *QUICK)
    service.wait_for(lambda: ask(service, "?version=2").status_code == 200)
    with traffic(service, "?version_label=stable") as seen:
        service.wait_for(lambda: seen[200, 1] > 50)
        serve_only(2)
        service.wait_for(lambda: seen[200, 2] > 50)
    assert set(seen) == {(200, 1), (200, 2)}


def test_a_model_server_that_dies_is_a_503_and_one_that_returns_is_found(
    repository: Path, versions: Path, tmp_path: Path, start_model_server: Start, start_gateway: Start
) -> None:
    address = f"unix:{tmp_path}/model-server.sock"
    server = start_model_server(repository, address=address)
    service = start_gateway("--model-server", address, *QUICK)
    service.wait_for(service.is_ready)
    server.process.kill()
    server.process.wait()
    answer = ask(service)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    service.wait_for(lambda: "cannot be reached" in service.get("/readyz").text)
    assert service.get("/livez").status_code == 200
    # what returns has to prove itself anew: here it does not
    shutil.rmtree(repository / "cnn" / "1")
    put(versions / "cnn" / "broken", repository / "cnn" / "1")
    start_model_server(repository, address=address)
    service.wait_for(lambda: "golden examples disagree" in service.get("/readyz").text)
    service.wait_for(lambda: service.post("/classify-text", json={"text": "good"}).status_code == 200)

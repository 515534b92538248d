"""The models that ship, served as the README says."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.inputs import Input
from benchmarks.load import open_loop
from tests.e2e.processes import PATIENCE, Service, started

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`make serve`, as the README says."""
    log = tmp_path_factory.mktemp("shipped") / "log"
    command = ["make", "--directory", str(ROOT), "--no-print-directory", "serve", "FLAGS=--port 0"]
    with started(command, "Sightread listens on ", log) as service:
        # ready with version 2; version 1 follows
        service.wait_for(
            lambda: all(_states(service, model) == {1: "proven", 2: "proven"} for model in ("cnn", "lstm"))
        )
        yield service


def _states(service: Service, model: str) -> dict[int, str]:
    return {number: entry["state"] for number, entry in service.versions(model).items()}


def test_all_shipped_versions_prove_themselves_and_the_second_answers(shipped: Service) -> None:
    models = shipped.get("/models").json()["models"]
    assert {model["name"]: model["serving"] for model in models} == {"cnn": 2, "lstm": 2}


@pytest.mark.parametrize(("model", "least"), [("cnn", 0.91), ("lstm", 0.90)])
def test_a_contract_tells_where_its_version_comes_from(shipped: Service, model: str, least: float) -> None:
    contract = shipped.get(f"/models/{model}").json()["contract"]
    assert contract["evaluation"]["accuracy"] >= least
    assert contract["calibration"]["expected_calibration_error_after"] <= 0.02
    assert len(contract["provenance"]["data_sha256"]) == 64
    if model == "cnn":
        assert "JPEG" in contract["provenance"]["data"]


def test_the_models_are_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in (ROOT / "models").rglob("*") if file.is_file()) <= 30_000_000


@pytest.mark.slow
def test_ctrl_c_ends_make_serve_and_all_it_started(tmp_path: Path) -> None:
    command = ["make", "--directory", str(ROOT), "--no-print-directory", "serve", "FLAGS=--port 0"]
    with started(command, "Sightread listens on ", tmp_path / "log") as service:
        service.wait_for(service.is_ready)
        os.killpg(service.process.pid, signal.SIGINT)
        service.process.wait(PATIENCE)
        with pytest.raises(ProcessLookupError):  # nobody is left in the group
            os.killpg(service.process.pid, 0)


def test_the_pages_example_pictures_are_what_their_names_say(shipped: Service) -> None:
    examples = sorted((ROOT / "serving" / "page" / "examples").iterdir())
    files = [("file", example.read_bytes()) for example in examples]
    answers = shipped.post("/classify-image", files=files).json()["results"]
    assert [answer["label"] for answer in answers] == [example.stem for example in examples]


def test_several_times_the_load_is_refused_and_not_taken_and_answered_too_late(shipped: Service) -> None:
    # a picture takes the second version some milliseconds: the model server is what there is too little of
    body = (ROOT / "serving" / "page" / "examples" / "cat.jpg").read_bytes()
    batch = [("file", body)] * 64
    took = min(shipped.post("/classify-image", files=batch).elapsed.total_seconds() for _ in range(3))
    sent = Input("cat", "image", "image/jpeg", body)
    rate, seconds = round(3 * len(batch) / took), 3
    measured = open_loop(f"{shipped.url}/classify-image", sent, rate=rate, seconds=seconds, deadline=1.0)
    answered = rate * seconds - measured.failed
    late = measured.failed - measured.refused
    assert late < answered / 4

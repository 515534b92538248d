"""A job that is killed goes on where it was, and ends where it would have ended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.checkpoint import FILE
from training.export import Session

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def _job(folder: Path, *flags: str) -> list[str]:
    places = ["--models", str(folder / "models"), "--output", str(folder / "runs")]
    return [sys.executable, "-m", "training", *flags, *places, "--deterministic"]


def _run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_job(folder, *flags), cwd=ROOT, capture_output=True, text=True, check=False)


def _kill_after_an_epoch(folder: Path, *flags: str) -> int:
    """SIGKILL as soon as an epoch is written down; how many epochs the file then tells of."""
    process = subprocess.Popen(_job(folder, *flags), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (folder / "runs" / FILE).exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with np.load(folder / "runs" / FILE) as file:
        return int(json.loads(file["meta"].tobytes())["epochs"])


def _outcome(folder: Path) -> tuple[dict[str, list[float]], list[list[float]]]:
    (version,) = (path for path in (folder / "models").glob("*/*") if path.name.isdecimal())
    with Session(version) as session:
        contract = session.contract()
    history = contract.provenance.history
    assert history is not None
    return history, [example.probabilities for example in contract.golden.examples]


@pytest.fixture(params=["cnn", "lstm"])
def flags(request: pytest.FixtureRequest, cifar_folder: Path, write_csv: Callable[[str], Path]) -> list[str]:
    if request.param == "cnn":
        return ["cnn", "--data", str(cifar_folder), "--epochs", "3"]
    rows = [f"{word} film number {number},{word}" for number in range(60) for word in ("good", "bad")]
    data = write_csv("text,label\n" + "\n".join(rows) + "\n")
    return ["lstm", "--data", str(data), "--epochs", "3", "--vocabulary", "50", "--units", "8", "--embedding", "8"]


def test_a_killed_job_ends_where_an_undisturbed_one_ends(flags: list[str], tmp_path: Path) -> None:
    undisturbed = _run(tmp_path / "undisturbed", *flags)
    assert undisturbed.returncode == 0, undisturbed.stderr
    killed = tmp_path / "killed"
    assert _kill_after_an_epoch(killed, *flags) in {1, 2}
    assert not list(killed.glob("models/*/*"))
    again = _run(killed, *flags)
    assert again.returncode == 0, again.stderr
    assert "Epoch 1/3" not in again.stdout
    assert _outcome(killed) == _outcome(tmp_path / "undisturbed")
    assert not (killed / "runs" / FILE).exists()


def test_other_flags_do_not_go_on_with_an_unfinished_run(cifar_folder: Path, tmp_path: Path) -> None:
    flags = ["cnn", "--recipe", "seed", "--data", str(cifar_folder)]
    _kill_after_an_epoch(tmp_path, *flags, "--epochs", "50")
    other = _run(tmp_path, *flags, "--epochs", "2")
    assert other.returncode == 1
    assert "epochs was 50, is 2" in other.stderr
    assert "--restart" in other.stderr
    assert (tmp_path / "runs" / FILE).exists()
    anew = _run(tmp_path, *flags, "--epochs", "2", "--restart")
    assert anew.returncode == 0, anew.stderr
    assert "Epoch 1/2" in anew.stdout


def test_a_checkpoint_that_cannot_be_read_is_named(cifar_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / FILE).write_bytes(os.urandom(100))
    done = _run(tmp_path, "cnn", "--recipe", "seed", "--data", str(cifar_folder), "--epochs", "1")
    assert done.returncode == 1
    assert "checkpoint.npz cannot be read" in done.stderr
    assert "--restart" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_stops_when_no_epoch_was_better_for_long_enough(cifar_folder: Path, tmp_path: Path) -> None:
    # at this rate nothing is learned: the first epoch stays the best
    flags = ["--recipe", "seed", "--learning-rate", "1e-12", "--epochs", "30", "--patience", "2"]
    done = _run(tmp_path, "cnn", "--data", str(cifar_folder), *flags)
    assert done.returncode == 0, done.stderr
    history, _ = _outcome(tmp_path)
    assert len(history["val_accuracy"]) == 3


def test_a_network_that_diverges_is_not_published(cifar_folder: Path, tmp_path: Path) -> None:
    flags = ["--recipe", "seed", "--learning-rate", "1e30", "--epochs", "3", "--batch-size", "8"]
    done = _run(tmp_path, "cnn", "--data", str(cifar_folder), *flags)
    assert done.returncode == 1
    assert "diverged" in done.stderr
    assert "lower --learning-rate" in done.stderr
    assert not list(tmp_path.glob("models/*/*"))


def test_a_network_that_diverges_in_the_last_step_is_neither_published_nor_kept(tmp_path: Path) -> None:
    data = ROOT / "training" / "data" / "three_sentences.csv"
    flags = ["--data", str(data), "--recipe", "seed", "--vocabulary", "100", "--length", "6", "--epochs", "1"]
    # the only step's loss is that of the weights before it
    done = _run(tmp_path, "lstm", *flags, "--learning-rate", "3e38")
    assert done.returncode == 1
    assert "The val_loss is nan after epoch 1: the network has diverged; start anew with" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / FILE).exists()
    assert not list(tmp_path.glob("models/*/*"))

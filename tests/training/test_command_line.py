import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from training.__main__ import main
from training.config import CnnConfig, LstmConfig
from training.export import Session

ROOT = Path(__file__).resolve().parents[2]
THREE_SENTENCES = ROOT / "training" / "data" / "three_sentences.csv"
TOY = [
    "lstm",
    "--recipe",
    "seed",
    "--data",
    str(THREE_SENTENCES),
    "--vocabulary",
    "100",
    "--length",
    "6",
    "--name",
    "toy",
]


def _train(*flags: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training", *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_three_sentences_become_a_version_by_one_command(tmp_path: Path) -> None:
    done = _train(*TOY, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "WARNING:tensorflow" not in done.stderr
    assert "says nothing of other texts" in done.stdout
    assert "sightread serve --text-model toy" in done.stdout
    assert (tmp_path / "runs" / "toy" / "report.html").exists()
    verdict = json.loads((tmp_path / "runs" / "toy" / "evaluation.json").read_text())
    assert verdict["dataset"] == "three_sentences.csv (all 3 examples, the model learned from these same)"
    with Session(tmp_path / "models" / "toy" / "1") as session:
        contract = session.contract()
    assert len(contract.golden.examples) >= 8
    assert contract.calibration.temperature == 1
    assert str(ROOT) not in contract.to_json()
    assert str(tmp_path) not in contract.to_json()


@pytest.mark.parametrize("flags", [["--help"], ["cnn", "--help"], ["lstm", "-h"]])
def test_help_answers_without_tensorflow(flags: list[str], tmp_path: Path) -> None:
    script = (
        "import sys; from training.__main__ import main; code = main(sys.argv[1:]);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: sightread train" in done.stdout


@pytest.mark.parametrize("config", [CnnConfig, LstmConfig])
def test_every_flag_is_explained(config: type[CnnConfig | LstmConfig]) -> None:
    assert [name for name, field in config.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "name a job"),
        (["rnn"], "there is no job 'rnn'"),
        (["cnn", "--epochs", "0"], "--epochs 0: Input should be greater than 0"),
        (["cnn", "--validation", "0.9"], "--validation 0.9: "),
        (["lstm", "--batch-size", "many"], "--batch-size many: "),
        (["lstm", "--learning-rate", "inf"], "--learning-rate inf: Input should be a finite number"),
        (["cnn", "--learning-rate", "nan"], "--learning-rate nan: Input should be a finite number"),
        (["cnn", "--recipe", "best"], "--recipe best: Input should be 'accurate' or 'seed'"),
        (["cnn", "--units", "3"], "unrecognized arguments: --units 3"),
    ],
)
def test_wrong_flags_are_named_and_exit_with_2(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert says in capsys.readouterr().err


def test_environment_variables_with_a_flags_name_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "somebody")
    monkeypatch.setenv("SEED", "99")
    assert (CnnConfig().name, CnnConfig().seed) == ("cnn", 1)


def test_a_missing_data_set_exits_with_1_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cnn", "--data", str(tmp_path), "--models", str(tmp_path / "models")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sightread train cnn: ")
    assert "with --data, or leave --data out" in line


@pytest.mark.parametrize("size", ["8", "17"])
def test_pictures_too_small_for_the_seed_exit_with_1_and_one_line(
    size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label, value in (("dark", 0), ("light", 200)):
        (tmp_path / label).mkdir()
        for number in range(3):
            Image.new("RGB", (20, 20), (value + number,) * 3).save(tmp_path / label / f"{number}.png")
    places = ["--data", str(tmp_path), "--models", str(tmp_path / "models"), "--output", str(tmp_path / "runs")]
    assert main(["cnn", "--recipe", "seed", "--size", size, *places]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"pictures of {size} pixels a side: give --size 18 or more, or leave --recipe out" in line


def test_a_repository_that_cannot_be_written_exits_with_1_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").write_text("")
    assert main([*TOY, "--models", str(tmp_path / "models")]) == 1
    said = capsys.readouterr()
    assert "is not a folder: choose another repository with --models" in said.err
    assert said.out == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "terminated"]
)
def test_a_stopped_job_says_so_and_leaves_nothing_half_written(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-u", "-m", "training", *TOY, "--epochs", "100000"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "Epoch 2/" not in (line := process.stdout.readline()):
            assert line
        time.sleep(0.2)
        process.send_signal(number)
        rest = process.communicate(timeout=60)
    assert process.returncode == code
    assert "nothing was published" in rest[1]
    assert "Traceback" not in rest[1]
    assert "goes on after the last whole epoch" in rest[1]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert (tmp_path / "runs" / "toy" / "checkpoint.npz").exists()


def test_results_that_cannot_be_written_are_told_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    flags = ["--models", str(tmp_path / "models"), "--output", str(tmp_path / "file" / "runs")]
    command = [sys.executable, "-m", "training", "lstm", "--data", "training/data/three_sentences.csv", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--output" in done.stderr
    assert "Fit" not in done.stdout


REPORT = Path("runs", "toy", "report.html")
CARD_BEING_WRITTEN = Path("runs", "toy", ".card.json.writing")
LOCK = Path("models", ".models.config.lock")


def _ends_what_was_left(folder: Path) -> None:
    """The same command once more: it learns nothing and publishes nothing, and then nothing is left to do."""
    again = _train(*TOY, folder=folder)
    assert again.returncode == 0, again.stderr
    assert "Epoch" not in again.stdout
    assert "version 1 was published by this run before it was stopped" in again.stdout
    assert [path.name for path in (folder / "models" / "toy").iterdir()] == ["1"]
    assert (folder / REPORT).is_file()
    assert not (folder / "runs" / "toy" / "checkpoint.npz").exists()


@pytest.mark.slow
def test_a_report_that_cannot_be_written_hides_no_version_and_the_same_command_writes_it(tmp_path: Path) -> None:
    (tmp_path / REPORT).mkdir(parents=True)
    done = _train(*TOY, folder=tmp_path)
    assert done.returncode == 1
    assert "Version 1 was published, as models/toy/1. Left to do: its report. The same command does it" in done.stderr
    assert "othing was published" not in done.stderr
    (tmp_path / REPORT).rmdir()
    _ends_what_was_left(tmp_path)


@pytest.mark.slow
def test_a_job_stopped_while_it_reports_says_what_it_published(tmp_path: Path) -> None:
    (tmp_path / CARD_BEING_WRITTEN).parent.mkdir(parents=True)
    os.mkfifo(tmp_path / CARD_BEING_WRITTEN)  # nobody reads it: the report waits there
    command = [sys.executable, "-m", "training", *TOY]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (tmp_path / "runs" / "toy" / "evaluation.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "terminated. Version 1 was published, as models/toy/1. Left to do: its report." in said
    assert "othing was published" not in said
    _ends_what_was_left(tmp_path)


@pytest.mark.slow
def test_a_version_that_models_config_cannot_name_is_published_and_named_there_by_the_same_command(
    tmp_path: Path,
) -> None:
    (tmp_path / LOCK).mkdir(parents=True)
    (tmp_path / "models" / "models.config").touch()
    done = _train(*TOY, folder=tmp_path)
    assert done.returncode == 1
    assert "models cannot be written (Is a directory)" in done.stderr
    assert (
        "Version 1 was published, as models/toy/1. Left to do: its entry in models.config, its report." in done.stderr
    )
    (tmp_path / LOCK).rmdir()
    _ends_what_was_left(tmp_path)
    assert 'name: "toy"' in (tmp_path / "models" / "models.config").read_text()

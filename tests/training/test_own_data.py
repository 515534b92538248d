"""Other people's data, from files to a version, by the command that they would type."""

import json
from pathlib import Path

import pytest

from serving.contract import ImageInput, TextInput
from tests.training.made_data import SHAPES, write_sentences, write_shapes
from training.__main__ import main
from training.export import Session

pytestmark = pytest.mark.slow


def train(job: str, data: Path, folder: Path, *flags: str) -> int:
    places = ["--data", str(data), "--models", str(folder / "models"), "--output", str(folder / "runs")]
    return main([job, "--recipe", "seed", *places, *flags])


def accuracy(folder: Path) -> float:
    return float(json.loads((folder / "runs" / "evaluation.json").read_text())["accuracy"])


def test_a_folder_of_pictures_becomes_a_version_that_tells_them_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shapes(tmp_path / "shapes", 100, seed=0)
    (tmp_path / "shapes" / "red square" / "Thumbs.db").write_bytes(b"no picture")
    assert train("cnn", tmp_path / "shapes", tmp_path, "--epochs", "12", "--batch-size", "16") == 0
    assert accuracy(tmp_path) > 0.95
    with Session(tmp_path / "models" / "cnn" / "1") as session:
        contract = session.contract()
    assert contract.labels == sorted(SHAPES)
    assert isinstance(contract.input, ImageInput)
    assert (contract.input.height, contract.input.width) == (56, 56)
    assert contract.provenance.data == "shapes"
    assert "Files left out: 1, " in capsys.readouterr().out
    assert "red square/Thumbs.db" in (tmp_path / "runs" / "left_out.csv").read_text()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_of_three_labels_becomes_a_version_that_tells_them_apart(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"letters.{suffix}"
    write_sentences(path, 600, labels=3, seed=0)
    sizes = ["--vocabulary", "100", "--length", "20", "--embedding", "16", "--units", "16"]
    flags = ["--epochs", "8", "--batch-size", "16", "--learning-rate", "0.01"]
    assert train("lstm", path, tmp_path, *sizes, *flags) == 0
    assert accuracy(tmp_path) > 0.95
    with Session(tmp_path / "models" / "lstm" / "1") as session:
        contract = session.contract()
    assert contract.labels == ["complaint", "praise", "question"]
    assert isinstance(contract.input, TextInput)
    assert contract.input.max_length == 20
    assert contract.provenance.data == path.name

"""Tiny data sets in their authors' layouts, and a tiny model with its contract."""

import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import pytest

from serving.contract import Calibration, Contract, Evaluation, ImageInput, Output, Provenance, Reference
from training import golden

SIDE = 8
LABELS = ["dark", "middling", "light"]
Version = tuple[keras.Model, Contract]


@pytest.fixture(scope="session")
def cifar_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six official batches of 40 pictures whose brightness tells their label."""
    folder = tmp_path_factory.mktemp("data") / "cifar-10-batches-py"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        labels = np.arange(40) % 10
        data = (labels[:, None] * 25 + chance.integers(0, 10, (40, 3072))).astype(np.uint8)
        batch = {b"batch_label": name.encode(), b"labels": labels.tolist(), b"data": data, b"filenames": []}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return folder


@pytest.fixture
def imdb_folder(tmp_path: Path) -> Path:
    """The official layout with 20 reviews a part and label."""
    folder = tmp_path / "aclImdb"
    for part in ("train", "test"):
        for name, word in (("neg", "bad"), ("pos", "good")):
            home = folder / part / name
            home.mkdir(parents=True)
            for number in range(20):
                (home / f"{number}_5.txt").write_text(f"A {word} film,<br /><br />scene {number}.", encoding="utf-8")
    return folder


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a table as it stands."""

    def write(content: str) -> Path:
        path = tmp_path / "texts.csv"
        path.write_text(content, encoding="utf-8", newline="")
        return path

    return write


@pytest.fixture(scope="session")
def version() -> Version:
    """A model that tells dark pictures from light ones, and a contract that is true of it."""
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
    brightness = keras.ops.mean(keras.ops.cast(pixels, "float32"), axis=(1, 2, 3), keepdims=False)[:, None] / 255
    slopes = keras.layers.Dense(3, kernel_initializer=keras.initializers.Constant(0.0))
    logits = slopes(brightness)
    slopes.set_weights([np.array([[-9.0, 0.0, 9.0]]), np.array([4.0, 0.0, -5.0])])
    model = keras.Model(pixels, keras.ops.softmax(logits))
    spec = ImageInput(name="image", height=SIDE, width=SIDE, channels=3, fit="cover", filter="bicubic")
    chance = np.random.default_rng(0)
    pictures = np.stack([chance.integers(0, 40 * n, (SIDE, SIDE, 3), dtype=np.uint8) for n in range(1, 7)])
    contract = Contract(
        kind="image",
        labels=LABELS,
        input=spec,
        output=Output(name="probabilities"),
        golden=golden.golden(model, spec, [golden.png(picture) for picture in pictures], golden.odd_pictures(pictures)),
        calibration=Calibration(temperature=1, expected_calibration_error_before=0, expected_calibration_error_after=0),
        evaluation=Evaluation(dataset="six pictures", examples=6, accuracy=1, per_label=[], confusion=[]),
        reference=Reference(label_frequencies=[], confidence_histogram=[]),
        provenance=Provenance(
            trained_at=datetime(2025, 1, 1, tzinfo=UTC),
            commit="0" * 40,
            packages={},
            seed=0,
            data="six pictures",
            data_sha256="",
            training_seconds=1,
            config={},
        ),
    )
    return model, contract

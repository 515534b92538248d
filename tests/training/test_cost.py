import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from training.cost import CostProblem, example, measure, multiply_adds
from training.export import SERVING, Session
from training.models_command import main
from training.recipes.fused_lstm import FusedLSTM
from training.repository import contract

ROOT = Path(__file__).resolve().parents[2]


def counted(model: keras.Model, batch: np.ndarray, folder: Path) -> int | None:
    model.export(str(folder), verbose=False)
    with Session(folder) as session:
        ((name, _),) = session.signatures[SERVING][0].items()
        return multiply_adds(session, SERVING, {name: batch})


def test_convolutions_and_products_are_counted_as_by_hand(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((10, 12, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),  # 5 × 6 × 8 outputs of 3 × 3 × 3
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same"),  # 5 × 6 × 8 outputs of 3 × 3
            layers.Conv2D(16, 1),  # 5 × 6 × 16 outputs of 8
            layers.GlobalAveragePooling2D(),
            layers.Dense(7, activation="relu"),
        ]
    )
    by_hand = 5 * 6 * 8 * 27 + 5 * 6 * 8 * 9 + 5 * 6 * 16 * 8 + 16 * 7
    assert counted(model, np.ones((1, 10, 12, 3), np.float32), tmp_path / "1") == by_hand


def test_a_loops_body_counts_as_often_as_it_runs(tmp_path: Path) -> None:
    tokens = keras.Input((None,), dtype="int32")
    embedded = layers.Embedding(50, 6, mask_zero=True)(tokens)
    model = keras.Model(tokens, layers.Bidirectional(layers.LSTM(5, use_cudnn=False))(embedded))
    step = 2 * 4 * 5 * (6 + 5)
    # Keras runs a step once more, before the loop, to learn the shapes
    assert counted(model, np.ones((1, 20), np.int32), tmp_path / "1") == (20 + 1) * step


def test_an_lstm_in_one_kernel_counts_every_step(tmp_path: Path) -> None:
    words = keras.Input((None, 6))
    model = keras.Model(words, FusedLSTM(5)(words, keras.ops.any(words != 0, axis=-1)))
    assert counted(model, np.ones((1, 20, 6), np.float32), tmp_path / "1") == 20 * 4 * 5 * (6 + 5)


def test_what_multiplies_in_unknown_ways_is_not_counted_wrong(tmp_path: Path) -> None:
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, keras.ops.einsum("bij,bkj->bik", inputs, inputs))
    assert counted(model, np.ones((1, 4, 6), np.float32), tmp_path / "1") is None
    grouped = keras.Sequential([keras.Input((4, 4, 8)), layers.Conv2D(16, 1, groups=2)])  # Keras hands it to XLA
    assert counted(grouped, np.ones((1, 4, 4, 8), np.float32), tmp_path / "2") is None


def test_the_example_is_200_tokens_of_text_that_people_write() -> None:
    told = contract(ROOT / "models" / "lstm" / "1")
    tokens = example(told)
    assert tokens.shape == (1, 200)
    assert tokens.dtype == np.int32
    assert len(np.unique(tokens)) > 50


def test_the_table_tells_of_every_version_what_it_does_and_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "models" / "cnn" / "1", tmp_path / "cnn" / "1")
    assert main(["table", "--models", str(tmp_path)]) == 0
    heading, rule, line = capsys.readouterr().out.splitlines()
    assert heading.count("|") == rule.count("|") == line.count("|")
    told = contract(tmp_path / "cnn" / "1")
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[0] == "cnn/1"
    assert cells[1] == f"{told.evaluation.accuracy:.2%}"
    # 30 × 30 × 32 × 27 + 13 × 13 × 64 × 288 + 4 × 4 × 64 × 576 + 1024 × 64 + 64 × 10
    assert cells[3] == "4.5 M"
    assert cells[4] == "0.59"
    assert float(cells[5].split()[0]) > 0


def test_what_cannot_be_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CostProblem, match=f"{tmp_path} cannot be measured"):
        measure([tmp_path])

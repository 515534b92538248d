"""Explanations of networks that learn within seconds what must be found: where a square is, which word decides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import ATTRIBUTION, EXPLAIN, LABEL, SCORE
from training.config import LstmConfig
from training.data import Examples
from training.explanation import Explain, explain_image, explain_text, integrated_gradients, log_odds
from training.export import Session
from training.recipes import lstm_accurate, lstm_seed

Array = NDArray[Any]
TEMPERATURE = 1.5
LOGITS = "logits"
SIDE, SQUARE = 16, 4
GREY = 128
WORDS = 40
TELLING = (5, 6)
UNKNOWN = 1


@dataclass(frozen=True)
class Exported:
    """A SavedModel in the session loader, test inputs, and which of their pixels or words decide."""

    session: Session
    inputs: Array
    labels: Array
    deciding: Array
    nothing: int
    """What a pixel or a word is replaced by to take it away."""

    def explained(self, inputs: Array) -> dict[str, Array]:
        return self.session.call(EXPLAIN, {"input": inputs})

    def log_odds(self, inputs: Array, labels: Array) -> Array:
        logits = self.session.call(LOGITS, {"input": inputs})[LOGITS].astype(np.float64) / TEMPERATURE
        rows = np.arange(len(logits))
        odds = np.exp(logits[rows, labels]) / (np.exp(logits).sum(axis=1) - np.exp(logits[rows, labels]))
        found: Array = np.log(odds)
        return found

    def without(self, taken: Array) -> Array:
        """The inputs, less some pixels or words, bool [n, …]."""
        where = taken.reshape(*taken.shape, *[1] * (self.inputs.ndim - taken.ndim))
        return np.where(where, self.nothing, self.inputs).astype(self.inputs.dtype)


def exported(network: keras.Model, explain: Explain, wire: tf.TensorSpec, folder: Path) -> Session:
    archive = keras.export.ExportArchive()
    archive.add_endpoint(LOGITS, lambda batch: {LOGITS: network(batch, training=False)}, input_signature=[wire])
    archive.add_endpoint(EXPLAIN, explain, input_signature=[wire])
    archive.write_out(str(folder), verbose=False)
    return Session(folder)


def learn(network: keras.Model, inputs: Array, labels: Array, epochs: int) -> None:
    network.compile(
        optimizer=keras.optimizers.Adam(1e-2), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    network.fit(inputs, labels, batch_size=64, epochs=epochs, verbose=0)


def squares(count: int, chance: np.random.Generator) -> tuple[Array, Array, Array]:
    """Noise with a red, green or blue square somewhere: pictures, colours, and where the squares are."""
    pictures = chance.integers(80, 176, (count, SIDE, SIDE, 3)).astype(np.uint8)
    labels = chance.integers(0, 3, count)
    where = np.zeros((count, SIDE, SIDE), dtype=bool)
    for picture, label, place in zip(pictures, labels, where, strict=True):
        top, left = chance.integers(0, SIDE - SQUARE, 2)
        place[top : top + SQUARE, left : left + SQUARE] = True
        picture[place] = np.eye(3)[label] * 255
    return pictures, labels, where


def texts(count: int, chance: np.random.Generator) -> tuple[Array, Array, Array]:
    """Words without meaning, one telling word among them, padding behind: ids, labels, and where the word is."""
    ids = chance.integers(max(TELLING) + 1, WORDS, (count, 12)).astype(np.int32)
    labels = chance.integers(0, 2, count)
    where = np.zeros(ids.shape, dtype=bool)
    for row, label, place in zip(ids, labels, where, strict=True):
        length = chance.integers(4, len(row) + 1)
        place[chance.integers(0, length)] = True
        row[place] = TELLING[label]
        row[length:] = 0
    return ids, labels, where


def explained_pictures(folder: Path) -> Exported:
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3),
        ]
    )
    chance = np.random.default_rng(1)
    learn(network, *squares(640, chance)[:2], epochs=8)
    explain = explain_image(network, temperature=TEMPERATURE, empty=[GREY] * 3)
    wire = tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8, name="input")
    return Exported(exported(network, explain, wire, folder), *squares(60, chance), nothing=GREY)


def explained_texts(recipe: ModuleType, folder: Path) -> Exported:
    keras.utils.set_random_seed(1)
    chance = np.random.default_rng(1)
    ids, labels, _ = texts(640, chance)
    network = recipe.build(LstmConfig(vocabulary=WORDS, embedding=8, units=8, dropout=0.1), Examples(ids, labels), 2)
    learn(network, ids, labels, epochs=6)
    explain = explain_text(network.get_layer("reader"), network.get_layer("judge"), temperature=TEMPERATURE)
    wire = tf.TensorSpec([None, None], tf.int32, name="input")
    return Exported(exported(network, explain, wire, folder), *texts(60, chance), nothing=UNKNOWN)


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    folder = tmp_path_factory.mktemp("exported") / "model"
    made = explained_pictures(folder) if request.param == PICTURES else explained_texts(LSTMS[request.param], folder)
    with made.session:
        yield made


PICTURES = "pictures"
LSTMS = {"accurate LSTM": lstm_accurate, "seed LSTM": lstm_seed}
of_pictures = pytest.mark.parametrize("model", [PICTURES], indirect=True)
of_texts = pytest.mark.parametrize("model", LSTMS, indirect=True)
of_either = pytest.mark.parametrize("model", [PICTURES, *LSTMS], indirect=True)


@of_either
def test_what_is_explained_is_the_most_probable_label(model: Exported) -> None:
    answer = model.explained(model.inputs)
    logits = model.session.call(LOGITS, {"input": model.inputs})[LOGITS]
    assert answer[LABEL].tolist() == logits.argmax(axis=1).tolist()
    assert (answer[LABEL] == model.labels).mean() > 0.9
    assert {name: (array.dtype.name, array.shape) for name, array in answer.items()} == {
        ATTRIBUTION: ("float32", model.deciding.shape),
        LABEL: ("int64", model.labels.shape),
        SCORE: ("float32", model.labels.shape),
    }


@of_either
def test_attributions_add_up_to_the_score(model: Exported) -> None:
    answer = model.explained(model.inputs)
    sums = answer[ATTRIBUTION].reshape(len(model.inputs), -1).sum(axis=1)
    error = np.abs(sums - answer[SCORE])
    assert np.abs(answer[SCORE]).mean() > 1
    assert error.mean() < 0.02 * np.abs(answer[SCORE]).mean()


@of_pictures
def test_the_score_of_a_picture_is_what_it_has_over_an_empty_one(model: Exported) -> None:
    answer = model.explained(model.inputs)
    empty = np.full_like(model.inputs, GREY)
    expected = model.log_odds(model.inputs, answer[LABEL]) - model.log_odds(empty, answer[LABEL])
    np.testing.assert_allclose(answer[SCORE], expected, atol=1e-3)


@of_either
def test_what_decides_is_found(model: Exported) -> None:
    attributions = np.maximum(model.explained(model.inputs)[ATTRIBUTION], 0)
    share = (attributions * model.deciding).sum() / attributions.sum()
    assert share > 0.7
    assert model.deciding.mean() < 0.2


@of_either
def test_taking_away_what_is_named_costs_more_than_taking_away_as_much_by_chance(
    model: Exported,
) -> None:
    answer = model.explained(model.inputs)
    count = int(model.deciding[0].sum())
    chance = np.random.default_rng(2).random(model.deciding.shape)
    # padding is not taken away by chance either
    chance[answer[ATTRIBUTION] == 0] = -1
    before = model.log_odds(model.inputs, answer[LABEL])
    named, by_chance = (
        float((before - model.log_odds(model.without(highest(ranking, count)), answer[LABEL])).mean())
        for ranking in (answer[ATTRIBUTION], chance)
    )
    assert named > 1
    assert named > 3 * by_chance


def highest(ranking: Array, count: int) -> Array:
    """Which are the highest of each row, [n, …] → bool [n, …]."""
    flat = ranking.reshape(len(ranking), -1)
    return (flat >= np.sort(flat, axis=1)[:, -count, None]).reshape(ranking.shape)


@of_either
def test_the_batch_changes_nothing(model: Exported) -> None:
    together = model.explained(model.inputs[:5])
    for number in range(5):
        alone = model.explained(model.inputs[number : number + 1])
        for name, array in alone.items():
            np.testing.assert_allclose(array[0], together[name][number], atol=1e-5)


@of_texts
def test_padding_gets_nothing_and_changes_nothing(model: Exported) -> None:
    text = np.array([[9, 10, TELLING[1], 11, 12]], dtype=np.int32)
    padded = np.pad(text, [(0, 0), (0, 37)])
    short, long = model.explained(text), model.explained(padded)
    assert (long[ATTRIBUTION][0, 5:] == 0).all()
    np.testing.assert_allclose(long[ATTRIBUTION][:, :5], short[ATTRIBUTION], atol=1e-6)
    np.testing.assert_allclose(long[SCORE], short[SCORE], atol=1e-6)


@of_texts
def test_a_word_that_speaks_against_the_label_gets_less_than_nothing(model: Exported) -> None:
    torn = np.array([[9, TELLING[0], 10, 11, TELLING[1], 12]], dtype=np.int32)
    answer = model.explained(torn)
    label = int(answer[LABEL][0])
    words = dict(zip(torn[0].tolist(), answer[ATTRIBUTION][0].tolist(), strict=True))
    assert words[TELLING[label]] == max(words.values()) > 0
    assert words[TELLING[1 - label]] == min(words.values()) < 0


@of_texts
def test_a_text_of_padding_alone_gets_nothing_and_hinders_no_other(model: Exported) -> None:
    texts = np.array([[0, 0, 0], [9, TELLING[0], 10]], dtype=np.int32)
    both, alone = model.explained(texts), model.explained(texts[1:])
    assert (both[ATTRIBUTION][0] == 0).all()
    np.testing.assert_allclose(both[ATTRIBUTION][1], alone[ATTRIBUTION][0], atol=1e-6)


def test_of_a_linear_score_each_number_adds_its_weight_times_its_way() -> None:
    weights, given, empty = (tf.constant(row) for row in ([2.0, -3.0, 0.0], [1.0, 1.0, 5.0], [0.5, 0.0, 5.0]))
    (found,) = integrated_gradients(lambda parts: tf.linalg.matvec(parts[0], weights), [given], [empty])
    np.testing.assert_allclose(found, [1.0, -3.0, 0.0], atol=1e-6)


def test_points_computed_in_rounds_give_what_they_give_together() -> None:
    given, empty = tf.unstack(tf.random.stateless_normal([2, 3, 4], seed=(1, 2))), [tf.zeros([3, 4])] * 2
    rows: list[int] = []

    def score(parts: Sequence[tf.Tensor]) -> tf.Tensor:
        rows.append(len(parts[0]))
        return tf.reduce_sum(tf.sin(parts[0]) * parts[1] ** 2, axis=[1, 2])

    together = integrated_gradients(score, given, empty, at_once=70)
    in_rounds = integrated_gradients(score, given, empty, at_once=7)
    assert rows == [64, *[4] * 16]
    for whole, sum_of_rounds in zip(together, in_rounds, strict=True):
        np.testing.assert_allclose(whole, sum_of_rounds, atol=1e-5)


def test_log_odds_compare_a_label_with_all_others() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]], dtype=np.float32)
    logits = tf.constant(np.log(probabilities) + 3)
    np.testing.assert_allclose(log_odds(logits, tf.constant(1)), [np.log(0.2 / 0.8), 0], atol=1e-6)

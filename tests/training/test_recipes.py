"""The networks of the recipes: their shapes, what they cost, and that padding costs nothing."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from training.config import LstmConfig
from training.data import Examples
from training.recipes import cnn_accurate, cnn_seed, lstm_accurate, lstm_seed
from training.recipes.fused_lstm import FusedLSTM, LastState, fused_weights


def _pictures(side: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize("side", [8, 28, 32, 64, 96])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_size_have_a_network(side: int, channels: int) -> None:
    pictures = _pictures(side, channels)
    network = cnn_accurate.build(pictures, 7)
    assert network(pictures[:2]).shape == (2, 7)


def test_the_seed_has_a_network_for_its_smallest_pictures_and_none_for_smaller_ones() -> None:
    pictures = _pictures(cnn_seed.SMALLEST_SIDE)
    assert cnn_seed.build(pictures, 7)(pictures[:2]).shape == (2, 7)
    with pytest.raises(ValueError, match="output size"):
        cnn_seed.build(_pictures(cnn_seed.SMALLEST_SIDE - 1), 7)


def test_each_block_halves_the_picture_until_it_is_small() -> None:
    assert cnn_accurate.widths(8) == (144,)
    assert cnn_accurate.widths(16) == (136, 144)
    assert cnn_accurate.widths(32) == (32, 136, 144)
    assert cnn_accurate.widths(64) == (24, 32, 136, 144)
    assert cnn_accurate.widths(128) == (24, 24, 32, 136, 144)


def test_a_small_picture_and_its_mirror_image_cost_less_than_a_hundred_million_multiply_adds() -> None:
    network = cnn_accurate.build(_pictures(32), 10)
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    cost = sum(np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:3]) for layer in convolutions)
    assert 90e6 < 2 * cost < 100e6


def test_the_first_layer_makes_patches_uncorrelated_and_of_one_variance() -> None:
    # neighbours are alike, as in real pictures
    pictures = _pictures(9).repeat(4, axis=1).repeat(4, axis=2)
    kernel = cnn_accurate.whitening(pictures)
    assert kernel.shape == (2, 2, 3, 24)
    out = keras.ops.convert_to_numpy(keras.ops.conv(pictures.astype(np.float32) / 127.5 - 1, kernel))
    rows = out.reshape(-1, 24)
    moments = rows[:, :12].T @ rows[:, :12] / len(rows)
    assert np.abs(moments - np.diag(np.diag(moments))).max() < 0.01
    assert np.diag(moments).max() < 1.01
    assert rows[:, 12:] == pytest.approx(-rows[:, :12], abs=1e-5)


def test_flat_pictures_do_not_break_the_first_layer() -> None:
    assert np.isfinite(cnn_accurate.whitening(np.full((5, 8, 8, 3), 128, np.uint8))).all()


@pytest.mark.parametrize("recipe", [lstm_accurate, lstm_seed])
@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_padding_changes_no_answer(recipe: object, length: int) -> None:
    keras.utils.set_random_seed(0)
    config = LstmConfig(vocabulary=50, embedding=8, units=4)
    network = recipe.build(config, _texts(50), 3)  # type: ignore[attr-defined]
    # the votes' weights start with zeros, which would hide a mistake
    network.set_weights([np.random.default_rng(1).normal(scale=0.3, size=w.shape) for w in network.get_weights()])
    ids = np.random.default_rng(0).integers(1, 50, (1, length)).astype(np.int32)
    alone = keras.ops.convert_to_numpy(network(ids))
    padded = keras.ops.convert_to_numpy(network(np.pad(ids, ((0, 0), (0, 5)))))
    assert np.ptp(alone) > 0.01
    assert padded == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("direction", ["forwards", "backwards"])
def test_the_fused_lstm_computes_and_learns_what_keras_own_does(direction: str) -> None:
    backwards = direction == "backwards"
    chance = np.random.default_rng(2)
    words = tf.constant(chance.normal(size=(5, 9, 6)), tf.float32)
    mask = tf.sequence_mask([9, 4, 1, 0, 7], 9)
    fused = FusedLSTM(3, backwards=backwards)
    own = keras.layers.LSTM(3, use_cudnn=False, return_sequences=True, go_backwards=backwards)
    for layer in (fused, own):
        layer.build(words.shape)
    own.set_weights([chance.normal(size=weight.shape) for weight in own.get_weights()])
    fused.set_weights(fused_weights(*own.get_weights()))
    seen = tf.cast(mask, tf.float32)[..., None]
    results = []
    for layer in (fused, own):
        with tf.GradientTape() as tape:
            tape.watch(words)
            states = fused(words, mask) if layer is fused else own(words, mask=mask)
            if layer is own and backwards:  # it answers in the order in which it reads
                states = tf.reverse(states, [1])
            loss = tf.reduce_sum(tf.square(states * seen))
        by_words, *by_weights = tape.gradient(loss, [words, *layer.trainable_weights])
        if layer is own:
            by_weights = fused_weights(*(gradient.numpy() for gradient in by_weights))
        results.append([states * seen, by_words, *by_weights])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(results[0][0]).max() > 0.1


def test_the_fused_lstm_begins_as_keras_own_does() -> None:
    weights = []
    for layer in (keras.layers.LSTM(3), FusedLSTM(3)):
        keras.utils.set_random_seed(0)
        begun = type(layer).from_config(layer.get_config())
        begun.build((None, None, 6))
        weights.append(begun.get_weights())
    own, fused = weights
    for one, other in zip(fused, fused_weights(*own), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_last_state_is_that_of_the_last_word() -> None:
    states = np.arange(1, 13, dtype=np.float32).reshape(2, 3, 2)
    last = LastState()(states, np.array([[True, True, False], [False, False, False]]))
    assert keras.ops.convert_to_numpy(last).tolist() == [[3, 4], [0, 0]]


def test_words_and_pairs_speak_for_the_labels_whose_texts_have_them() -> None:
    texts = Examples(_rows([2, 3, 2, 2], [2, 4], [3, 4]), np.array([0, 0, 1]))
    words, pairs = lstm_accurate.log_ratios(texts, 5, 1000, 2)
    # a text counts once however often it has a word; one is added to every count: word 2 stands in two texts of label 0
    # and in none of label 1, of (1 1 3 2 2) and (1 1 1 2 2) altogether
    np.testing.assert_allclose(words[2], np.array([1, -1]) * np.log((3 / 9) / (1 / 7)) / 2, rtol=1e-5)
    assert words[1] == pytest.approx(np.array([1, -1]) * np.log((1 / 9) / (1 / 7)) / 2)
    found = {(before, word): pairs[_row(before, word)] for before, word in [(0, 2), (2, 3), (0, 3), (3, 4), (4, 3)]}
    assert found[0, 2].argmax() == found[2, 3].argmax() == 0
    assert found[0, 3].argmax() == found[3, 4].argmax() == 1
    assert found[4, 3] == pytest.approx(pairs[_row(4, 4)])


def test_ratios_do_not_depend_on_how_many_texts_are_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = _texts(50)
    whole = lstm_accurate.log_ratios(texts, 50, 400, 3)
    monkeypatch.setattr(lstm_accurate, "COUNTED_AT_ONCE", 7)
    for part, again in zip(whole, lstm_accurate.log_ratios(texts, 50, 400, 3), strict=True):
        assert (part == again).all()


def test_each_id_is_counted_in_its_own_row() -> None:
    ids = np.array([[5, 9, 5, 5], [9, 5, 0, 0]], np.int32)
    counts = keras.ops.convert_to_numpy(lstm_accurate.Occurrences()(ids))
    assert counts.tolist() == [[3, 1, 3, 3], [1, 1, 2, 2]]


def test_a_word_that_is_said_again_has_no_second_vote() -> None:
    network = lstm_accurate.build(LstmConfig(vocabulary=50, embedding=8, units=4), _texts(50), 3)
    reader = network.get_layer("reader")
    reader.set_weights([np.random.default_rng(1).normal(size=w.shape) for w in reader.get_weights()])
    # the pairs are (0 7) (7 7) and (0 7) (7 7) (7 7): the same words, the same pairs
    twice, thrice = (keras.ops.convert_to_numpy(reader(np.array([[7] * n], np.int32))[1]).sum(axis=1) for n in (2, 3))
    assert twice == pytest.approx(thrice, rel=1e-5)


def _texts(vocabulary: int) -> Examples:
    chance = np.random.default_rng(3)
    rows = [chance.integers(1, vocabulary, length).astype(np.int32) for length in chance.integers(1, 12, 40)]
    return Examples(_rows(*rows), chance.integers(0, 3, 40))


def _rows(*texts: Any) -> NDArray[Any]:
    rows = np.empty(len(texts), object)
    rows[:] = [np.array(text, np.int32) for text in texts]
    return rows


def _row(before: int, word: int) -> int:
    return int(keras.ops.convert_to_numpy(lstm_accurate.pair_ids(np.array([[before, word]], np.int32), 1000))[0, 1])


def test_a_pair_that_shares_its_row_with_paddings_is_not_counted_with_it() -> None:
    rows = keras.ops.convert_to_numpy(lstm_accurate.pair_ids(np.array([[7, 7, 0, 0]], np.int32), 8 * 50))
    assert rows[0, 1] == rows[0, 3]
    network = lstm_accurate.build(LstmConfig(vocabulary=50, embedding=8, units=4), _texts(50), 3)
    reader = network.get_layer("reader")
    reader.set_weights([np.random.default_rng(1).normal(size=w.shape) for w in reader.get_weights()])
    alone, padded = (keras.ops.convert_to_numpy(reader(np.array([[7] * 2 + [0] * n], np.int32))[1]) for n in (0, 5))
    assert padded[:, :2] == pytest.approx(alone, rel=1e-5)


def test_two_orders_of_the_same_words_are_different_pairs() -> None:
    ids = keras.ops.convert_to_tensor(np.array([[5, 9], [9, 5]], np.int32))
    rows = keras.ops.convert_to_numpy(lstm_accurate.pair_ids(ids, 1000))
    assert rows.min() >= 0
    assert rows.max() < 1000
    assert len({*rows.ravel()}) == 4


def test_large_ids_stay_inside_the_table() -> None:
    ids = keras.ops.convert_to_tensor(np.array([[2_000_000, 1_999_999, 1]], np.int32))
    rows = keras.ops.convert_to_numpy(lstm_accurate.pair_ids(ids, 1000))
    assert ((rows >= 0) & (rows < 1000)).all()

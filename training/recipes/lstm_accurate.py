"""An LSTM that reads phrases in both directions, and beside it the votes of single words and of pairs of words.

Phrases as in Zhou et al.: A C-LSTM Neural Network for Text Classification, 2015, and Johnson and Zhang: Supervised and
Semi-Supervised Text Categorization using LSTM for Region Embeddings, 2016 (pooling over all words instead of the last
state). Phrases are read four words at a time: the steps of the LSTM are what a text costs. The votes are those of Wang
and Manning: Baselines and Bigrams, 2012: naive Bayes' ratios, each with a weight that is learned.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from numpy.typing import NDArray

from training.config import LstmConfig
from training.data import Examples
from training.recipes.fused_lstm import FusedLSTM
from training.tokenizer import PAD_ID

PHRASE = 5
"""Words that a filter sees."""
STRIDE = 4
"""Words that one step of the LSTM stands for."""
PAIRS = 8
"""Rows of the table of pairs for each word; two pairs that share one are told apart by the words alone."""
MIX = 65_599
"""A prime that spreads the pairs over the rows; what overflows wraps around, on every machine alike."""
EAGERNESS = 25.0
"""How much faster than the rest the votes' weights learn: there is one for each word, and most words are rare."""
PRIOR = 0.1
"""How much the votes' weights are drawn to 0, spread over the texts: the more there are, the more they count."""
NEVER = -1e9
COUNTED_AT_ONCE = 1_000


def build(config: LstmConfig, texts: Examples, labels: int) -> keras.Model:
    """Ids, int32 [n, words] → logits, float32 [n, labels]. Padding is masked: it changes nothing.

    Args:
        config: of the job.
        texts: to learn from, as their ids, object [n] of int32 [words]: naive Bayes' ratios are counted in them.
        labels: how many.

    Returns:
        `reader`: ids → what is read of each word, float32 [n, words, …] each, and the mask, bool [n, words];
        followed by `judge`: these → logits.
    """
    ids = keras.Input((None,), dtype="int32")
    mask = ids != PAD_ID
    words = layers.Embedding(config.vocabulary, config.embedding)(ids)
    reader = keras.Model(ids, [words, _votes(ids, mask, config.vocabulary, texts, labels), mask], name="reader")

    words, votes = keras.Input((None, config.embedding)), keras.Input((None, labels))
    mask = keras.Input((None,), dtype="bool")
    there = ops.expand_dims(ops.cast(mask, "float32"), -1)
    x = layers.SpatialDropout1D(config.dropout)(words) * there
    x = layers.Conv1D(2 * config.units, PHRASE, padding="same", activation="relu")(x) * there
    # padding is 0 here, and nothing is less; "same" would pad in front as well, by what the batch's length leaves over
    x, some = (layers.MaxPooling1D(STRIDE)(layers.ZeroPadding1D((0, STRIDE - 1))(part)) for part in (x, there))
    read = ops.squeeze(some, -1) > 0
    x = ops.concatenate([FusedLSTM(config.units, backwards=way)(x, read) for way in (False, True)], axis=-1)
    x = ops.max(x + (1 - some) * NEVER, axis=1)
    deep = layers.Dense(labels)(layers.Dropout(config.dropout)(x))
    wide = ops.sum(votes * there, axis=1)
    # 0 or 2 by chance while learning, 1 afterwards: each learns to judge alone, together they err less than either
    coin = layers.Dropout(1 / 2)(ops.ones_like(deep[:, :1]))
    judge = keras.Model([words, votes, mask], coin * deep + (2 - coin) * wide, name="judge")
    return keras.Model(ids, judge(reader(ids)))


def _votes(
    ids: keras.KerasTensor, mask: keras.KerasTensor, vocabulary: int, texts: Examples, labels: int
) -> keras.KerasTensor:
    """For each label, of each word and of the pair that it ends, float32 [n, words, labels].

    One that stands in a text several times shares one vote among them, and long texts do not vote louder than short
    ones: votes are divided by the root of how many different ones there are.
    """
    rows = PAIRS * vocabulary
    tables = log_ratios(texts, vocabulary, rows, labels)
    there = ops.cast(mask, "float32")
    votes, different = [], []
    for these, ratios in zip((ids, pair_ids(ids, rows)), tables, strict=True):
        # a pair may have the row of padding's: padding gets one that no pair has, and is not counted with it
        share = there / Occurrences()(ops.where(mask, these, -1))
        ratio = layers.Embedding(*ratios.shape, trainable=False)
        # a weight of w / EAGERNESS is learned, and w² is what counts
        prior = keras.regularizers.L2(EAGERNESS**2 * PRIOR / len(texts))
        weight = layers.Embedding(len(ratios), 1, embeddings_initializer="zeros", embeddings_regularizer=prior)
        votes.append(EAGERNESS * ratio(these) * weight(these) * ops.expand_dims(share, -1))
        different.append(ops.sum(share, axis=1))
        ratio.set_weights([ratios])
    return ops.add(*votes) / ops.reshape(ops.sqrt(ops.maximum(ops.add(*different), 1.0)), (-1, 1, 1))


def pair_ids(ids: keras.KerasTensor, rows: int) -> keras.KerasTensor:
    """Each word's row in the table of pairs, with the word before it, int32 [n, words] → int32 [n, words]."""
    before = ops.pad(ids[:, :-1], [[0, 0], [1, 0]])
    return ops.mod(before * MIX + ids, rows)


def log_ratios(
    texts: Examples, vocabulary: int, rows: int, labels: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How much likelier words, and pairs of words, are in texts of a label than in others: half the log of the ratio.

    Args:
        texts: as their ids.
        vocabulary: ids that there are.
        rows: of the table of pairs.
        labels: how many.

    Returns:
        float32 [vocabulary, labels] and [rows, labels].
    """
    words, pairs = np.zeros((vocabulary, labels)), np.zeros((rows, labels))
    for start in range(0, len(texts), COUNTED_AT_ONCE):
        part = slice(start, start + COUNTED_AT_ONCE)
        # as one text, with padding after each: so that the first word of each has none before it
        ids = np.concatenate([np.append(text, np.int32(PAD_ID)) for text in texts.inputs[part]])
        number = np.repeat(np.arange(len(texts.inputs[part])), [len(text) + 1 for text in texts.inputs[part]])
        pairs_of = ops.convert_to_numpy(pair_ids(ids[None], rows))[0]
        read = ids != PAD_ID
        for counts, found in ((words, ids), (pairs, pairs_of)):
            text_of, different = np.divmod(np.unique(number[read] * len(counts) + found[read]), len(counts))
            np.add.at(counts, (different, texts.labels[part][text_of]), 1)
    return _log_ratio(words), _log_ratio(pairs)


def _log_ratio(counts: NDArray[np.float64]) -> NDArray[np.float32]:
    these, others = counts + 1, counts.sum(axis=1, keepdims=True) - counts + 1
    ratio: NDArray[np.float64] = np.log(these / these.sum(axis=0) / (others / others.sum(axis=0)))
    return (ratio / 2).astype(np.float32)


@keras.saving.register_keras_serializable("sightread")
class Occurrences(layers.Layer):  # type: ignore[misc] # Keras ships no types
    """How often each id stands in its row, int32 [n, words] → float32 [n, words]."""

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        ordered = tf.sort(ids)
        after, before = (tf.searchsorted(ordered, ids, side=side) for side in ("right", "left"))
        return tf.cast(after - before, self.compute_dtype)

    def compute_output_spec(self, ids: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(ids.shape, self.compute_dtype)


def optimizer(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Adam, whose rate falls to zero on a cosine."""
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps), clipnorm=1.0)

"""An LSTM that reads phrases in both directions, and beside it a bag of words and of pairs of words.

Phrases as in Zhou et al.: A C-LSTM Neural Network for Text Classification, 2015, and Johnson and Zhang: Supervised and
Semi-Supervised Text Categorization using LSTM for Region Embeddings, 2016 (pooling over all words instead of the last
state); the bag after Wang and Manning: Baselines and Bigrams, 2012. Phrases are read two words at a time, which halves
the steps of the LSTM: they are what a text costs.
"""

import keras
from keras import layers, ops

from training.config import LstmConfig
from training.tokenizer import PAD_ID

PHRASE = 3
"""Words that a filter sees."""
STRIDE = 2
"""Words that one step of the LSTM stands for."""
PAIRS = 8
"""Rows of the table of pairs for each word; two pairs that share one are told apart by the words alone."""
MIX = 65_599
"""A prime that spreads the pairs over the rows; what overflows wraps around, on every machine alike."""
NEVER = -1e9


def build(config: LstmConfig, labels: int) -> keras.Model:
    """Ids, int32 [n, words] → logits, float32 [n, labels]. Padding is masked: it changes nothing.

    Returns:
        `reader`: ids → what is read of each word, float32 [n, words, …] each, and the mask, bool [n, words];
        followed by `judge`: these → logits.
    """
    ids = keras.Input((None,), dtype="int32")
    mask = ids != PAD_ID
    words = layers.Embedding(config.vocabulary, config.embedding)(ids)
    single = layers.Embedding(config.vocabulary, labels, embeddings_initializer="zeros")(ids)
    rows = PAIRS * config.vocabulary
    pairs = layers.Embedding(rows, labels, embeddings_initializer="zeros")(pair_ids(ids, rows))
    reader = keras.Model(ids, [words, single + pairs, mask], name="reader")

    words, votes = keras.Input((None, config.embedding)), keras.Input((None, labels))
    mask = keras.Input((None,), dtype="bool")
    there = ops.expand_dims(ops.cast(mask, "float32"), -1)
    x = layers.SpatialDropout1D(config.dropout)(words) * there
    x = layers.Conv1D(2 * config.units, PHRASE, padding="same", activation="relu")(x) * there
    # padding is 0 here, and nothing is less
    x = layers.MaxPooling1D(STRIDE, padding="same")(x)
    some = layers.MaxPooling1D(STRIDE, padding="same")(there)
    # cuDNN's kernel would tie the SavedModel to a GPU
    lstm = layers.LSTM(config.units, return_sequences=True, use_cudnn=False)
    x = layers.Bidirectional(lstm)(x, mask=ops.squeeze(some, -1) > 0)
    x = ops.max(x + (1 - some) * NEVER, axis=1)
    deep = layers.Dense(labels)(layers.Dropout(config.dropout)(x))
    votes_kept = layers.Dropout(config.dropout, noise_shape=(None, None, 1))(votes) * there
    wide = ops.sum(votes_kept, axis=1) / ops.sqrt(ops.sum(there, axis=1))
    judge = keras.Model([words, votes, mask], deep + wide, name="judge")
    return keras.Model(ids, judge(reader(ids)))


def pair_ids(ids: keras.KerasTensor, rows: int) -> keras.KerasTensor:
    """Each word's row in the table of pairs, with the word before it, int32 [n, words] → int32 [n, words]."""
    before = ops.pad(ids[:, :-1], [[0, 0], [1, 0]])
    return ops.mod(before * MIX + ids, rows)


def optimizer(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Adam, whose rate falls to zero on a cosine."""
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps), clipnorm=1.0)

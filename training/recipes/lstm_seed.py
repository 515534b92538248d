"""The first LSTM: an embedding, one direction, the last state."""

import keras
from keras import layers

from training.config import LstmConfig
from training.data import Examples
from training.recipes.fused_lstm import FusedLSTM, LastState
from training.tokenizer import PAD_ID


def build(config: LstmConfig, texts: Examples, labels: int) -> keras.Model:
    """Ids, int32 [n, words] → logits, float32 [n, labels]. Padding is masked: it changes nothing.

    Args:
        config: of the job.
        texts: to learn from; not looked at.
        labels: how many.

    Returns:
        `reader`: ids → what is read of each word, float32 [n, words, …] each, and the mask, bool [n, words];
        followed by `judge`: these → logits.
    """
    del texts
    ids = keras.Input((None,), dtype="int32")
    words = layers.Embedding(config.vocabulary, config.embedding)(ids)
    reader = keras.Model(ids, [words, ids != PAD_ID], name="reader")

    words, mask = keras.Input((None, config.embedding)), keras.Input((None,), dtype="bool")
    x = layers.SpatialDropout1D(config.dropout)(words)
    x = LastState()(FusedLSTM(config.units)(x, mask), mask)
    judge = keras.Model([words, mask], layers.Dense(labels)(layers.Dropout(config.dropout)(x)), name="judge")
    return keras.Model(ids, judge(reader(ids)))


def optimizer(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Adam, whose rate falls to zero on a cosine."""
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps), clipnorm=1.0)

"""An LSTM whose steps are one kernel, which TensorFlow has for CPUs and GPUs alike."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray


@keras.saving.register_keras_serializable("sightread")
class FusedLSTM(layers.Layer):  # type: ignore[misc] # Keras ships no types
    """Keras's `LSTM` with `use_cudnn=False`, for texts padded at the end: the same numbers, several times as fast.

    Keras runs a loop of some thirty small kernels for each word, and for short batches they cost more than what they
    compute. cuDNN's kernel would tie the SavedModel to a GPU.

    Always computes in float32: there is no such kernel for bfloat16.
    """

    def __init__(self, units: int, *, backwards: bool = False, **options: Any) -> None:
        """An LSTM.

        Args:
            units: numbers in its state.
            backwards: whether it reads from the last word to the first.
            options: Keras's, of every layer.
        """
        super().__init__(**{**options, "dtype": "float32"})
        self.units = units
        self.backwards = backwards
        self.supports_jit = False

    def build(self, words: tuple[int | None, ...]) -> None:
        own = layers.LSTM(self.units)  # for the numbers that it would begin with
        own.build(words)
        kernel, bias = fused_weights(*own.get_weights())
        self.kernel = self.add_weight(kernel.shape, keras.initializers.Constant(kernel), name="kernel")
        self.bias = self.add_weight(bias.shape, keras.initializers.Constant(bias), name="bias")

    def call(self, words: tf.Tensor, is_word: tf.Tensor) -> tf.Tensor:
        """Read.

        Args:
            words: float32 [n, words, features].
            is_word: bool [n, words]; false where padding stands, at the end.

        Returns:
            the state after each word was read, float32 [n, words, units]. At padding it means nothing.
        """
        lengths = tf.reduce_sum(tf.cast(is_word, tf.int32), axis=1)
        if self.backwards:
            words = tf.reverse_sequence(words, lengths, seq_axis=1)
        nothing = tf.zeros([tf.shape(words)[0], self.units])
        unused = tf.zeros([self.units])
        # not V2, whose gradient TensorFlow 2.20 computes as if its gates were in this one's order
        states = tf.raw_ops.BlockLSTM(
            seq_len_max=tf.shape(words, tf.int64)[1],
            x=tf.transpose(words, [1, 0, 2]),
            cs_prev=nothing,
            h_prev=nothing,
            w=self.kernel,
            wci=unused,
            wcf=unused,
            wco=unused,
            b=self.bias,
            forget_bias=0,
            cell_clip=-1,
        ).h
        states = tf.transpose(states, [1, 0, 2])
        return tf.reverse_sequence(states, lengths, seq_axis=1) if self.backwards else states

    def compute_output_spec(self, words: keras.KerasTensor, is_word: keras.KerasTensor) -> keras.KerasTensor:
        del is_word
        return keras.KerasTensor((*words.shape[:-1], self.units), self.compute_dtype)


@keras.saving.register_keras_serializable("sightread")
class LastState(layers.Layer):  # type: ignore[misc] # Keras ships no types
    """The state after the last word, or 0: float32 [n, words, units] and bool [n, words] → float32 [n, units]."""

    def call(self, states: tf.Tensor, is_word: tf.Tensor) -> tf.Tensor:
        lengths = tf.reduce_sum(tf.cast(is_word, tf.int32), axis=1)
        return tf.gather(tf.pad(states, [[0, 0], [1, 0], [0, 0]]), lengths, batch_dims=1)

    def compute_output_spec(self, states: keras.KerasTensor, is_word: keras.KerasTensor) -> keras.KerasTensor:
        del is_word
        return keras.KerasTensor((states.shape[0], states.shape[-1]), self.compute_dtype)


def fused_weights(
    kernel: NDArray[np.float32], recurrent_kernel: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights of Keras's `LSTM` as those of a `FusedLSTM`.

    Args:
        kernel: float32 [features, 4 × units], of the gates input, forget, cell, output.
        recurrent_kernel: float32 [units, 4 × units].
        bias: float32 [4 × units].

    Returns:
        float32 [features + units, 4 × units] and [4 × units], of the gates input, cell, forget, output.
    """
    entry, forget, cell, output = np.split(np.arange(len(bias)), 4)
    order = np.concatenate([entry, cell, forget, output])
    return np.concatenate([kernel, recurrent_kernel])[:, order], bias[order]

"""The last step of every model: from logits to calibrated probabilities."""

from typing import Any

import keras


def calibrated(network: keras.Model, *, name: str, temperature: float) -> keras.Model:
    """What is served: the wire's tensor → probabilities, float32 [n, labels].

    Args:
        network: the wire's tensor → logits, [n, labels].
        name: of the wire's tensor.
        temperature: that the logits are divided by.
    """
    wire: Any = keras.Input(network.input_shape[1:], dtype=network.inputs[0].dtype, name=name)
    return keras.Model(wire, keras.ops.softmax(network(wire) / temperature))

"""The first CNN: three convolutions, Adam."""

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

SMALLEST_SIDE = 18
"""Pixels: of less the convolutions and poolings leave nothing."""
WARMUP_STEPS = 500
"""Steps in which the learning rate rises from zero: at full rate the first ones kill many of the ReLUs for good."""


def build(pictures: NDArray[np.uint8], labels: int) -> keras.Model:
    """Pixels, uint8 [n, height, width, channels] → logits, float32 [n, labels].

    Args:
        pictures: to learn from, [n, height, width, channels]; only their shape matters.
        labels: how many.
    """
    return keras.Sequential(
        [
            keras.Input(pictures.shape[1:], dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(labels),
        ]
    )


def optimizer(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Adam, whose rate rises for a while and falls to zero on a cosine."""
    warmup = min(WARMUP_STEPS, steps // 10)
    return keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(0.0, steps - warmup, warmup_target=learning_rate, warmup_steps=warmup)
    )

"""Explanations: what each pixel or token adds to an answer, as numbers and as a picture to lay over the picture."""

import base64
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOR, AGAINST = (230, 85, 13), (33, 102, 222)
"""Orange and blue: told apart by nearly every eye, also where red and green are one."""
OVERLAY_SIDE = 256
"""The shorter side of an overlay, at least: enlarged here, it looks the same wherever it is shown."""
PARTS = 16
"""A side of it is smoothed to so many parts: single pixels of an attribution are noise to the eye."""
OPAQUE = 0.8
"""Of 1: the picture shows through the strongest colour, too."""


@dataclass(frozen=True)
class Explanation:
    """What one row of a version's explain signature answers.

    Attributes:
        attribution: what each pixel, float32 [height, width], or token, float32 [length], adds to the score.
        label: the label that is explained.
        score: by how much its log-odds exceed those of an empty input.
    """

    attribution: NDArray[np.float32]
    label: int
    score: float

    @property
    def is_finite(self) -> bool:
        """Whether all of its numbers are numbers."""
        return bool(np.isfinite(self.attribution).all() and np.isfinite(self.score))


def numbers(attribution: NDArray[np.float32]) -> Any:
    """The attributions as JSON has them; a millionth of a log-odd is nothing."""
    return np.round(attribution.astype(np.float64), 6).tolist()


def overlay(attribution: NDArray[np.float32]) -> str:
    """A heat map to lay over what the model saw: a PNG in base64.

    Orange speaks for the label and blue against it; what adds nothing is transparent.

    Args:
        attribution: float32 [height, width].
    """
    height, width = attribution.shape
    scale = max(1.0, OVERLAY_SIDE / min(width, height))
    coarse = Image.fromarray(attribution).resize((min(width, PARTS), min(height, PARTS)), Image.Resampling.BOX)
    heat = np.asarray(coarse.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC))
    strength = np.abs(heat) / max(float(np.abs(heat).max()), np.finfo(np.float32).tiny)
    colours = np.where((heat > 0)[..., None], np.array(FOR, np.uint8), np.array(AGAINST, np.uint8))
    alpha = np.rint(255 * OPAQUE * strength**0.7).astype(np.uint8)[..., None]
    buffer = BytesIO()
    Image.fromarray(np.concatenate([colours, alpha], axis=-1)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()

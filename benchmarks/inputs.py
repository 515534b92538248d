"""What is sent: pictures like a camera's, of three sizes, and texts, short and long."""

import json
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle, islice
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

Kind = Literal["image", "text"]
SENTENCE = "the film was a slow and quiet story of two brothers who never say what they mean and yet it moved me"


@dataclass(frozen=True)
class Input:
    """One request body.

    Attributes:
        name: for the table.
        kind: which endpoint it is for.
        content_type: of the body.
        body: bytes of it.
    """

    name: str
    kind: Kind
    content_type: str
    body: bytes


def inputs() -> list[Input]:
    """Three pictures and two texts."""
    sizes = [(32, 32), (640, 480), (3000, 2250)]
    pictures = [Input(f"{width}×{height}", "image", "image/jpeg", photo(width, height)) for width, height in sizes]
    texts = [Input(f"{words} words", "text", "application/json", text(words)) for words in (16, 200)]
    return pictures + texts


def photo(width: int, height: int) -> bytes:
    """A JPEG with soft shapes and a camera's grain: neither as small as a flat picture nor as large as noise."""
    chance = np.random.default_rng(1)
    coarse = chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.SMOOTH)
    grain = chance.normal(0, 6, (height, width, 1))
    pixels = np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def text(words: int) -> bytes:
    """A JSON body with a text of so many words."""
    said = " ".join(islice(cycle(SENTENCE.split()), words))
    return json.dumps({"text": said}).encode()

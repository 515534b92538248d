"""From what a client sent to what the model takes. Training uses it too: there is one implementation.

A preprocessor is made from a contract's `input` and the gateway's limits, and from nothing else. `prepare` turns one
raw input into one row, `collate` rows into a batch. Both are pure.
"""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from serving.contract import ImageInput, TextInput
from serving.preprocessing.image import ImagePreprocessor
from serving.preprocessing.text import TextPreprocessor


class Preprocessor(Protocol):
    """What the gateway does with either kind."""

    def without_limits(self) -> Self:
        """The same for what comes with a model, which no limit of what clients may send is for."""

    def prepare(self, raw: Any, /) -> Any:
        """One raw input → one row (uint8 pixels or int32 ids). Raises Problem."""

    def prepare_quickly(self, raw: Any, /) -> Any:
        """The row, or None for an input that would hold up an event loop."""

    def remarks(self, raw: Any, row: Any, /) -> dict[str, Any]:
        """What an answer says of how its input was read."""

    def explain(self, raw: Any, attribution: NDArray[np.float32], /) -> dict[str, Any]:
        """What each part of a row adds, as parts of the raw input."""

    def collate(self, rows: Sequence[Any], /) -> Any:
        """N rows → one batch [n, …]."""


def preprocessor_for(
    spec: ImageInput | TextInput, *, max_pixels: int | None = None, max_characters: int | None = None
) -> Preprocessor:
    """The preprocessor that a contract's `input` asks for.

    Raises:
        ValueError: the tokenizer is not one that Hugging Face `tokenizers` can read.
    """
    if isinstance(spec, ImageInput):
        return ImagePreprocessor(spec, max_pixels=max_pixels)
    return TextPreprocessor(spec, max_characters=max_characters)


__all__ = ["ImagePreprocessor", "Preprocessor", "TextPreprocessor", "preprocessor_for"]

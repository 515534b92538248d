"""Texts: Unicode → token ids, by the tokenizer that the contract carries whole."""

import json
import re
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from serving.contract import TextInput
from serving.explanation import numbers
from serving.preprocessing.plain_text import is_plain, reader_of_plain_texts
from serving.problems import Unprocessable

LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")

QUICK_CHARACTERS = 2000
"""Characters that take about a millisecond; of others than ASCII a quarter, as normalisation may multiply them."""


class TextPreprocessor:
    """Makes token ids as one contract asks for them.

    Args:
        spec: the contract's `input`.
        max_characters: a longer text is refused before it is tokenized; None for no limit.

    Raises:
        ValueError: the tokenizer is not one that Hugging Face `tokenizers` can read.
    """

    def __init__(self, spec: TextInput, *, max_characters: int | None = None) -> None:
        self._spec = spec
        self._max_characters = max_characters
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(spec.tokenizer))
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"the tokenizer cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_length)
        self._read_plain = reader_of_plain_texts(spec.tokenizer)

    def without_limits(self) -> Self:
        """The same without `max_characters`."""
        same = copy(self)  # a tokenizer takes long to read
        same._max_characters = None  # noqa: SLF001  # its own kind
        return same

    def prepare(self, text: str) -> NDArray[np.int32]:
        """One text → its token ids, int32 [1 ≤ tokens ≤ max_length], cut at the end.

        Args:
            text: any Unicode.

        Raises:
            Unprocessable: too long, nothing to read in it, lone surrogates, or nothing that the tokenizer can read.
        """
        if self._max_characters is not None and len(text) > self._max_characters:
            raise Unprocessable(f"The text has {len(text):,} characters; at most {self._max_characters:,} are taken.")
        if not text or text.isspace():
            raise Unprocessable("The text is empty.")
        if not text.isascii() and (lone := LONE_SURROGATE.search(text)):
            raise Unprocessable(f"The text is not valid Unicode: a lone surrogate stands at character {lone.start()}.")
        if self._read_plain is not None and is_plain(text):
            ids = self._read_plain(text)[: self._spec.max_length]
        else:
            ids = self._tokenized(text)
        if not ids:
            raise Unprocessable("The text has no words in it.")
        return np.array(ids, dtype=np.int32)

    def _tokenized(self, text: str) -> list[int]:
        # without the offsets, which only explanations need: they take a fifth of the time
        try:
            ids: list[int] = self._tokenizer.encode_batch_fast([text])[0].ids
        except Exception as error:  # bare: some have no id for words that they do not know
            raise Unprocessable(f"The model's tokenizer cannot read the text: {error}.") from error
        return ids

    def prepare_quickly(self, text: str) -> NDArray[np.int32] | None:
        """As `prepare`, but None for a text that would take more than about a millisecond."""
        weight = 1 if text.isascii() else 4
        return self.prepare(text) if weight * len(text) <= QUICK_CHARACTERS else None

    def remarks(self, text: str, row: NDArray[np.int32]) -> dict[str, Any]:
        """`truncated`, when the model did not read the text to its end."""
        is_full = len(row) == self._spec.max_length
        return {"truncated": True} if is_full and self._tokenizer.encode(text).overflowing else {}

    def explain(self, text: str, attribution: NDArray[np.float32]) -> dict[str, Any]:
        """What each token adds, float32 [length] → the tokens, with where each stands in the text as it came.

        `start` and `end` count characters (Unicode code points) of the original text, the end excluded. What the model
        did not read (tags, what stands after the cut) belongs to no token.
        """
        encoding = self._tokenizer.encode(text)
        return {
            "tokens": [
                {"token": token, "start": start, "end": end, "attribution": added}
                for token, (start, end), added in zip(
                    encoding.tokens, encoding.offsets, numbers(attribution[: len(encoding)]), strict=True
                )
            ]
        }

    def collate(self, rows: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
        """Ids of n texts → int32 [n, length of the longest], padded at the end with the pad id."""
        if len(rows) == 1:
            return rows[0][np.newaxis]  # there is nothing to pad
        batch = np.full((len(rows), max(map(len, rows))), self._spec.pad_id, dtype=np.int32)
        for row, ids in zip(batch, rows, strict=True):
            row[: len(ids)] = ids
        return batch

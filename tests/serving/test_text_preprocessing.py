"""Texts become ids by the contract's own tokenizer; what has no words is refused."""

import json

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from serving.contract import TextInput
from serving.preprocessing import TextPreprocessor
from serving.problems import Unprocessable

WORDS = {"[PAD]": 0, "[UNK]": 1, "a": 2, "good": 3, "film": 4, "café": 5}


@pytest.fixture(scope="module")
def spec() -> TextInput:
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))  # noqa: S106  # no secret
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"<[^>]*>"), " "), normalizers.NFKC(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextInput(name="tokens", max_length=5, pad_id=0, tokenizer=json.loads(tokenizer.to_str()))


def test_words_become_ids_and_strangers_the_unknown_id(spec: TextInput) -> None:
    ids = TextPreprocessor(spec).prepare("A GOOD<br />zebra film")
    assert ids.tolist() == [2, 3, 1, 4]
    assert ids.dtype == np.int32


def test_a_long_text_is_cut_at_its_end(spec: TextInput) -> None:
    assert TextPreprocessor(spec).prepare("a good film a good film").tolist() == [2, 3, 4, 2, 3]


def test_unicode_that_looks_the_same_reads_the_same(spec: TextInput) -> None:
    preprocessor = TextPreprocessor(spec)
    assert preprocessor.prepare("cafe\u0301").tolist() == preprocessor.prepare("caf\u00e9").tolist() == [5]


def test_a_batch_is_padded_at_the_end_to_its_longest(spec: TextInput) -> None:
    preprocessor = TextPreprocessor(spec)
    batch = preprocessor.collate([preprocessor.prepare("a good film"), preprocessor.prepare("film")])
    assert batch.tolist() == [[2, 3, 4], [4, 0, 0]]
    assert batch.dtype == np.int32


@pytest.mark.parametrize("text", ["", "   ", "\n\t\u00a0\u2003", "<br />"])
def test_a_text_without_words_is_unprocessable(spec: TextInput, text: str) -> None:
    with pytest.raises(Unprocessable):
        TextPreprocessor(spec).prepare(text)


def test_a_lone_surrogate_is_unprocessable_and_its_place_is_told(spec: TextInput) -> None:
    with pytest.raises(Unprocessable, match="character 5"):
        TextPreprocessor(spec).prepare("film \ud800")


def test_an_over_long_text_is_unprocessable(spec: TextInput) -> None:
    with pytest.raises(Unprocessable, match="at most 10"):
        TextPreprocessor(spec, max_characters=10).prepare("a" * 11)


@pytest.mark.parametrize("text", ["\x00 film", "👩‍👩‍👧 film", "\u202efilm", "e" + "\u0301" * 5000, "x" * 100_000])
def test_odd_unicode_is_read(spec: TextInput, text: str) -> None:
    assert 1 <= len(TextPreprocessor(spec).prepare(text)) <= spec.max_length


def test_a_tokenizer_that_cannot_be_read_is_named_as_the_cause(spec: TextInput) -> None:
    with pytest.raises(ValueError, match="tokenizer cannot be read"):
        TextPreprocessor(spec.model_copy(update={"tokenizer": {"model": "nonsense"}}))

from typing import Any

import pytest

from serving.contract import TextInput
from serving.preprocessing import TextPreprocessor
from training.tokenizer import train_tokenizer

TEXTS = ["The cat sat.", "The dog didn't sit!!!", "A café, the CAT"]


def _preprocessor(tokenizer: dict[str, Any], length: int = 50) -> TextPreprocessor:
    return TextPreprocessor(TextInput(name="ids", max_length=length, pad_id=0, tokenizer=tokenizer))


def test_padding_and_the_unknown_word_come_first_and_words_by_frequency() -> None:
    vocabulary = train_tokenizer(TEXTS, vocabulary=100)["model"]["vocab"]
    assert [word for word, _ in sorted(vocabulary.items(), key=lambda item: item[1])][:4] == [
        "[PAD]",
        "[UNK]",
        "the",
        "cat",
    ]


def test_the_vocabulary_keeps_its_limit() -> None:
    assert len(train_tokenizer(TEXTS, vocabulary=5)["model"]["vocab"]) == 5


def test_ties_are_broken_the_same_way_whatever_the_order_of_the_texts() -> None:
    words = [f"word{number}" for number in range(500)]
    first = train_tokenizer(words, vocabulary=100)
    assert train_tokenizer(words[::-1], vocabulary=100) == first


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("THE CAT", "the cat"),
        ("the<br /><br />cat", "the cat"),
        ('<a href="x">the</a> cat', "the cat"),
        ("the\x96cat\x85", "the cat"),
        ("the c\u00adat", "the cat"),
        ("cafe\u0301", "café"),
        ("didn’t", "didn't"),
    ],
    ids=["case", "line break", "other tag", "control characters", "soft hyphen", "NFD", "apostrophe"],
)
def test_what_reads_alike_has_the_same_ids(text: str, same_as: str) -> None:
    preprocessor = _preprocessor(train_tokenizer(TEXTS, vocabulary=100))
    assert preprocessor.prepare(text).tolist() == preprocessor.prepare(same_as).tolist()


def test_words_and_runs_of_marks_are_told_apart() -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary=100)
    assert {"didn't", "!!!", ".", ",", "café"} <= set(tokenizer["model"]["vocab"])


def test_a_comparison_is_not_taken_for_a_tag() -> None:
    preprocessor = _preprocessor(train_tokenizer(TEXTS, vocabulary=100))
    assert len(preprocessor.prepare("a < b and c > d")) == 7


def test_unknown_words_get_the_unknown_id() -> None:
    assert _preprocessor(train_tokenizer(TEXTS, vocabulary=100)).prepare("the zebra").tolist()[1] == 1


def test_nobody_can_type_the_padding() -> None:
    preprocessor = _preprocessor(train_tokenizer(TEXTS, vocabulary=100))
    assert 0 not in preprocessor.prepare("[PAD] the [PAD]").tolist()


def test_texts_are_cut_at_the_end() -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary=100)
    assert (
        _preprocessor(tokenizer, 2).prepare("the cat sat").tolist()
        == _preprocessor(tokenizer).prepare("the cat").tolist()
    )

"""Texts become ids by the contract's own tokenizer; what has no words is refused."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from serving.contract import TextInput
from serving.preprocessing import TextPreprocessor
from serving.preprocessing.plain_text import WORD_OR_MARK
from serving.problems import Unprocessable
from training.tokenizer import train_tokenizer

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


def test_a_text_that_the_tokenizer_cannot_read_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "good": 1}, unk_token="[UNK]"))  # noqa: S106  # no secret
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    spec = TextInput(name="tokens", max_length=5, pad_id=0, tokenizer=json.loads(tokenizer.to_str()))
    assert TextPreprocessor(spec).prepare("good good").tolist() == [1, 1]
    with pytest.raises(Unprocessable, match=r"tokenizer cannot read the text: .*vocabulary"):
        TextPreprocessor(spec).prepare("good film")


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


@pytest.fixture(scope="module")
def trained() -> TextPreprocessor:
    """With a tokenizer as training makes them."""
    tokenizer = train_tokenizer(["a good film", "the café", "don't . , <"], vocabulary=50)
    return TextPreprocessor(TextInput(name="tokens", max_length=200, pad_id=0, tokenizer=tokenizer))


MANY = 100_000
ODD_TEXTS = {
    "one word": "x" * MANY,
    "combining marks": "e" + "\u0301\u0323" * MANY,
    "tags that never end": "<a" * MANY,
    "a tag of a thousand letters": "<a " + "b" * MANY,
    "marks of two kinds": "!?" * MANY,
    "ligatures that normalisation makes eighteen letters": "\ufdfa" * (MANY // 4),
    "flags": "🇩🇪" * MANY,
    "families": "👩‍👩‍👧‍👦" * MANY,
    "unassigned code points": "\u0378" * MANY,
    "private code points": "\ue000" * MANY,
    "the last code point": "\U0010ffff" * MANY,
    "noncharacters": "\uffff\ufdd0" * MANY,
    "right-to-left marks": "\u202e\u05d0\u05d1 film",
    "a lone variation selector": "\ufe0f",
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", ODD_TEXTS)
def test_any_unicode_is_read_in_bounded_time(trained: TextPreprocessor, name: str) -> None:
    assert 1 <= len(trained.prepare(ODD_TEXTS[name])) <= 200


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text",
    ["\u200b" * MANY, "\0" * MANY, "\x00\x1b\x7f\x85", "\U000e0001", "<br /><p>", "\u2028\u2029", "\ufeff", "\u00ad"],
)
def test_a_text_of_nothing_that_can_be_seen_is_unprocessable(trained: TextPreprocessor, text: str) -> None:
    with pytest.raises(Unprocessable):
        trained.prepare(text)


@pytest.mark.parametrize(
    "text",
    [
        "a\0good\0film",
        "\ufeffa good film",
        "a go\u200bod film",
        "<b>a</b> good<br/>film",
        "\uff21 \uff27\uff2f\uff2f\uff24 \ufb01lm",
    ],
)
def test_what_cannot_be_seen_changes_nothing(trained: TextPreprocessor, text: str) -> None:
    assert trained.prepare(text).tolist() == trained.prepare("a good film").tolist()


def test_what_looks_like_a_special_token_is_a_text(trained: TextPreprocessor) -> None:
    assert 0 not in trained.prepare("[PAD] film")


@pytest.mark.parametrize("lone", ["\ud800", "\udfff", "\ud83d film", "\udc00\ud800"])  # noqa: PT014  # all lone surrogates look alike to ruff
def test_any_lone_surrogate_is_unprocessable(trained: TextPreprocessor, lone: str) -> None:
    with pytest.raises(Unprocessable, match="surrogate"):
        trained.prepare("good " + lone)


@pytest.mark.timeout(1)
def test_a_word_of_ten_million_letters_is_refused_before_it_is_read(spec: TextInput) -> None:
    with pytest.raises(Unprocessable, match="10,000,000 characters"):
        TextPreprocessor(spec, max_characters=MANY).prepare("x" * 10_000_000)


def test_a_text_that_takes_longer_than_a_look_is_left_for_later(trained: TextPreprocessor) -> None:
    assert trained.prepare_quickly("a good film " * 150) is not None
    assert trained.prepare_quickly("a good film " * 200) is None
    assert trained.prepare_quickly("\ufdfa" * 600) is None


PIECES = st.sampled_from([*"aAZz09 '.,!<>/-_~|", *"\n\t\x00\x7f\u00ad\u2019éÉ", "film", "Don't", "<br />", "İ", "ﬁ"])


@given(st.lists(PIECES, max_size=40).map("".join))
@example("a Good FILM")
@example("a<b")
@example("two\nlines")
@example("soft\xadly")
def test_plain_texts_read_as_all_others_do(trained: TextPreprocessor, text: str) -> None:
    # an offset for each token: the library's long way
    ids = trained._tokenizer.encode(text).ids  # noqa: SLF001
    if ids:
        assert trained.prepare(text).tolist() == ids
    else:
        with pytest.raises(Unprocessable):
            trained.prepare(text)


ODD_NORMALIZERS = {
    "replaces a letter": normalizers.Replace("a", "film"),
    "replaces without markup": normalizers.Replace(Regex("<?a"), "film"),
    "replaces markup or not": normalizers.Replace(Regex("<|a"), "film"),
    "replaces markup that may be missing": normalizers.Replace(Regex("<{0,1}a"), "film"),
    "replaces markup that may be missing, said twice": normalizers.Replace(Regex("<+*a"), "film"),
    "replaces markup that may be missing, with a remark": normalizers.Replace(Regex("<(?#x)?a"), "film"),
    "prepends": normalizers.Prepend("film "),
    "strips and lowercases": normalizers.BertNormalizer(),
    "replaces, then lowercases": normalizers.Sequence([normalizers.Replace("A", "film"), normalizers.Lowercase()]),
    "one within another": normalizers.Sequence([normalizers.Sequence([normalizers.Replace("good", "film")])]),
    "nothing but another form": normalizers.NFC(),
    "lowercases": normalizers.Lowercase(),
    "none": None,
}


OUR_WORDS = pre_tokenizers.Split(Regex(WORD_OR_MARK), behavior="removed", invert=True)
OTHERS_WORDS = {
    "by blanks": pre_tokenizers.Whitespace(),
    "without the marks": pre_tokenizers.Split(Regex(WORD_OR_MARK.partition("|")[0]), behavior="removed", invert=True),
    "with what is between": pre_tokenizers.Split(Regex(WORD_OR_MARK), behavior="isolated", invert=True),
    "what is between": pre_tokenizers.Split(Regex(WORD_OR_MARK), behavior="removed"),
    "ours, cut again": pre_tokenizers.Sequence([OUR_WORDS, pre_tokenizers.Digits(individual_digits=True)]),
    "whatever there is": None,
}


@pytest.mark.parametrize("name", OTHERS_WORDS)
def test_a_tokenizer_with_other_words_gets_every_text(name: str) -> None:
    tokenizer = Tokenizer(models.WordLevel(WORDS | {" ": 9, "1": 10, "!": 11}, unk_token="[UNK]"))  # noqa: S106  # no secret
    if words := OTHERS_WORDS[name]:
        tokenizer.pre_tokenizer = words
    spec = TextInput(name="tokens", max_length=9, pad_id=0, tokenizer=json.loads(tokenizer.to_str()))
    for text in ("a good film", "a good film 11!!"):
        assert TextPreprocessor(spec).prepare(text).tolist() == tokenizer.encode(text).ids


def test_a_tokenizer_that_adds_something_gets_every_text() -> None:
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))  # noqa: S106  # no secret
    tokenizer.pre_tokenizer = OUR_WORDS
    tokenizer.post_processor = processors.TemplateProcessing(single="film $A", special_tokens=[("film", WORDS["film"])])
    spec = TextInput(name="tokens", max_length=9, pad_id=0, tokenizer=json.loads(tokenizer.to_str()))
    assert TextPreprocessor(spec).prepare("a good film").tolist() == tokenizer.encode("a good film").ids


@pytest.mark.parametrize("name", ODD_NORMALIZERS)
def test_a_tokenizer_that_changes_plain_texts_gets_them_as_they_came(name: str) -> None:
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))  # noqa: S106  # no secret
    if normalizer := ODD_NORMALIZERS[name]:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = OUR_WORDS
    spec = TextInput(name="tokens", max_length=9, pad_id=0, tokenizer=json.loads(tokenizer.to_str()))
    text = "A good a Film"
    assert TextPreprocessor(spec).prepare(text).tolist() == tokenizer.encode(text).ids


def test_a_step_that_says_more_than_is_known_of_it_is_left_to_the_library() -> None:
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))  # noqa: S106  # no secret
    tokenizer.pre_tokenizer = OUR_WORDS
    told = json.loads(tokenizer.to_str()) | {"normalizer": {"type": "Lowercase", "of": "all"}}
    spec = TextInput(name="tokens", max_length=9, pad_id=0, tokenizer=told)
    assert TextPreprocessor(spec).prepare("A Good FILM").tolist() == [2, 3, 4]


def test_added_tokens_are_sought_in_the_text_as_it_came() -> None:
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))  # noqa: S106  # no secret
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = OUR_WORDS
    tokenizer.add_tokens([AddedToken("FILM", normalized=False)])
    spec = TextInput(name="tokens", max_length=9, pad_id=0, tokenizer=json.loads(tokenizer.to_str()))
    ids = TextPreprocessor(spec).prepare("a good FILM").tolist()
    assert ids == tokenizer.encode("a good FILM").ids
    assert ids[-1] == len(WORDS)

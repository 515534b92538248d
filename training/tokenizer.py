"""The tokenizer: learned from the training texts, and then all of it one JSON in the contract."""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from serving.preprocessing.plain_text import WORD_OR_MARK

PAD, UNKNOWN = "[PAD]", "[UNK]"
PAD_ID, UNKNOWN_ID = 0, 1

TAG = r"</?[A-Za-z][^<>]{0,200}>"
"""`<br />` and its like, but not `a < b`."""

NORMALIZER = normalizers.Sequence(
    [
        normalizers.Replace(Regex(TAG), " "),
        # controls stand where two words meet (old reviews have Windows' dashes as such), format characters inside
        normalizers.Replace(Regex(r"\p{Cc}"), " "),
        normalizers.Replace(Regex(r"\p{Cf}"), ""),
        normalizers.NFKC(),
        normalizers.Replace("’", "'"),
        normalizers.Lowercase(),
    ]
)


def has_words(text: str) -> bool:
    """Whether anything of a text is left to read: not so of `<br />`."""
    return bool(NORMALIZER.normalize_str(text).strip())


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> dict[str, Any]:
    """Learn the most frequent words.

    Texts lose tags and control characters, are brought to one Unicode form (NFKC) and lowercased, and are split into
    words and marks. Words of one frequency are ranked by the alphabet, so the same texts give the same tokenizer.

    Args:
        texts: of the training data only: an id for a word that only the test has would never be learned.
        vocabulary: ids, with that of the padding (0) and that of every other word (1).

    Returns:
        the JSON of Hugging Face `tokenizers`.
    """
    tokenizer = Tokenizer(models.WordLevel({PAD: PAD_ID, UNKNOWN: UNKNOWN_ID}, unk_token=UNKNOWN))
    tokenizer.normalizer = NORMALIZER
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_OR_MARK), behavior="removed", invert=True)
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocabulary, min_frequency=1, special_tokens=[PAD, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    as_json: dict[str, Any] = json.loads(tokenizer.to_str())
    # what looks like a special token in a text is a text: without this, "[PAD]" typed by somebody would be padding
    as_json["added_tokens"] = []
    return as_json

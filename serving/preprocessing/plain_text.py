"""Plain texts, as most are: printable ASCII without markup, which are words to be looked up and little else.

A tokenizer does much more: each step of its normalizer goes over the whole text, its expression knows all of Unicode,
and for every character it is told where it came from. Where its steps are known to leave a plain text as it is, and its
words are those of our trainings, they are found and looked up here. Any other tokenizer gets every text.
"""

import re
from collections.abc import Callable
from typing import Any

WORD_OR_MARK = r"[\p{L}\p{M}\p{N}]+(?:'[\p{L}\p{M}\p{N}]+)*|([^\p{L}\p{M}\p{N}\s])\1*"
"""A word (`don't` is one), or a run of one other character (`...`, `!!`): an expression of the library `tokenizers`."""
IN_ASCII = re.compile(r"([A-Za-z0-9]+(?:'[A-Za-z0-9]+)*|([^A-Za-z0-9\s])\2*)")
"""The same in a plain text, as an expression of Python's: the whole of it is the first group."""
WORDS_AND_MARKS = {
    "type": "Split", "pattern": {"Regex": WORD_OR_MARK}, "behavior": "Removed", "invert": True
}  # fmt: skip

MARKUP = "<"
"""What no plain text holds."""
CONTROL_CHARACTERS = {r"\p{C}", r"\p{Cc}", r"\p{Cf}"}
"""As regular expressions: no plain text holds any, either."""
BEGINS_AS_MARKUP = re.compile(rf"{MARKUP}[/\[][^|]*")
"""A regular expression that matches nothing without that: it stands first, what follows cannot make it needless, and
there is no other way."""
UNICODE_FORMS = {"NFC", "NFD", "NFKC", "NFKD"}
LOWERCASE = {"type": "Lowercase"}


def is_plain(text: str) -> bool:
    """Whether a text is one."""
    return text.isascii() and text.isprintable() and MARKUP not in text


def reader_of_plain_texts(tokenizer: dict[str, Any]) -> Callable[[str], list[int]] | None:
    """A tokenizer's JSON → what gives the ids of a plain text, all of them, as the tokenizer would.

    None: that takes the tokenizer.
    """
    steps = _steps(tokenizer.get("normalizer"))
    # added tokens are sought in the text as it came
    if tokenizer.get("added_tokens") or tokenizer.get("post_processor") or not all(map(_leaves_plain, steps)):
        return None
    match tokenizer:
        case {"pre_tokenizer": words, "model": {"type": "WordLevel", "vocab": dict(ids), "unk_token": str(unknown)}}:
            if words != WORDS_AND_MARKS or unknown not in ids:
                return None
        case _:
            return None
    lowercases = LOWERCASE in steps
    id_of_unknown: int = ids[unknown]

    def ids_of(text: str) -> list[int]:
        read: list[int] = []
        for piece in (text.lower() if lowercases else text).split(" "):
            if piece.isalnum():  # as most are: a word as it is, which takes a fifth of finding it
                read.append(ids.get(piece, id_of_unknown))
            elif piece:
                read += [ids.get(word, id_of_unknown) for word, _ in IN_ASCII.findall(piece)]
        return read

    return ids_of


def _steps(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    match normalizer:
        case None:
            return []
        case {"type": "Sequence", "normalizers": [*normalizers]}:
            return [step for normalizer in normalizers for step in _steps(normalizer)]
        case _:
            return [normalizer]


def _leaves_plain(step: dict[str, Any]) -> bool:
    """Whether a step of a normalizer leaves every plain text as it is, but for capital letters."""
    match step:
        case {"type": "Replace", "pattern": {"String": str(sought)}}:
            return not sought.isascii()
        case {"type": "Replace", "pattern": {"Regex": str(sought)}}:
            return sought in CONTROL_CHARACTERS or BEGINS_AS_MARKUP.fullmatch(sought) is not None
        case {"type": str(kind)}:
            return kind in UNICODE_FORMS or step == LOWERCASE
        case _:
            return False

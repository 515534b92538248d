"""Plain texts, as most are: printable ASCII without markup, to which a tokenizer's normalizer does little or nothing.

Each of its steps goes over the whole text, and tells for every character where it came from: together they take longer
than all the rest. Steps that are known to leave a plain text as it is are left out; lowercasing is left to Python. A
tokenizer with any other step gets every text.
"""

import re
from typing import Any

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


def for_plain_texts(tokenizer: dict[str, Any]) -> dict[str, Any] | None:
    """A tokenizer's JSON → that of a quicker one with the same tokens for plain texts, lowercased if it does that.

    None: there is none.
    """
    steps = _steps(tokenizer.get("normalizer"))
    # added tokens are sought in the text as it came
    if not steps or tokenizer.get("added_tokens") or not all(map(_leaves_plain, steps)):
        return None
    return tokenizer | {"normalizer": None}


def lowercases(tokenizer: dict[str, Any]) -> bool:
    """Whether a tokenizer takes capital letters for small ones."""
    return LOWERCASE in _steps(tokenizer.get("normalizer"))


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

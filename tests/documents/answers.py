"""Whether what a command answered is what the page shows. `…` stands for what the page leaves out."""

import json
import re
from typing import Any

TOLERANCE = 0.02
"""Between machines; that of the golden examples."""
VARYING = {
    r"…": r".*?",
    r"\s+": r"\s+",
    # other machines and versions give other scores
    r"\d+\.\d+": r"\d+\.\d+",
    r"[█-▏]+": r"[█-▏]+",
}
"""What in lines of text stands for more than itself, and for what."""
PARTS = re.compile("|".join(f"({varies})" for varies in VARYING))


def agrees(said: str, got: str) -> bool:
    """Whether an answer is the one that a page shows.

    Args:
        said: by the page: JSON, or lines of text of which some part may be `…`.
        got: from the command, which may print more lines around those of a text.
    """
    try:
        shown = json.loads(said)
    except ValueError:
        return re.search(_pattern(said.strip()), got, re.DOTALL) is not None
    try:
        return _agrees(shown, json.loads(got))
    except ValueError:
        return False


def _pattern(said: str) -> str:
    varying, pattern, end = list(VARYING.values()), "", 0
    for part in PARTS.finditer(said):
        pattern += re.escape(said[end : part.start()]) + varying[(part.lastindex or 1) - 1]
        end = part.end()
    return pattern + re.escape(said[end:])


def _agrees(said: Any, got: Any) -> bool:  # noqa: PLR0911  # one for each kind of value
    match said, got:
        case {"…": _, **named}, dict():
            return _agrees(named, {name: got[name] for name in named if name in got})
        case dict(), dict():
            return said.keys() == got.keys() and all(_agrees(said[name], got[name]) for name in said)
        case [*first, "…"], list():
            return _agrees(first, got[: len(first)])
        case list(), list():
            return len(said) == len(got) and all(map(_agrees, said, got))
        case str(), str():
            return re.fullmatch(_pattern(said), got, re.DOTALL) is not None
        case float(), float() | int():
            return abs(said - got) <= TOLERANCE
    return bool(said in ("…", got))

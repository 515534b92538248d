"""Copies: the same content twice. On both sides of a cut it flatters the test; under two labels it teaches nothing."""

from collections import defaultdict
from collections.abc import Hashable, Sequence


def copies(contents: Sequence[Hashable], labels: Sequence[str], places: Sequence[str], *, thing: str) -> dict[int, str]:
    """What to leave out, so that every content is there once, under one label.

    Of copies under one label the first stays. Of copies under several labels none does: which is right, nobody knows.

    Args:
        contents: equal where they are copies, [n].
        labels: [n].
        places: for the reasons, [n].
        thing: what they are copies of: "picture", "text".

    Returns:
        position → reason.
    """
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for position, content in enumerate(contents):
        alike[content].append(position)
    reasons: dict[int, str] = {}
    for positions in alike.values():
        first = positions[0]
        other = next((position for position in positions if labels[position] != labels[first]), None)
        if other is None:
            reasons |= dict.fromkeys(positions[1:], f"a copy of {places[first]}")
            continue
        for position in positions:
            against = other if labels[position] == labels[first] else first
            reasons[position] = f"the same {thing} has the label {labels[against]!r} too ({places[against]})"
    return reasons

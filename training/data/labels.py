"""Labels: what people wrote → names that a model can answer with."""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from serving.preprocessing.text import LONE_SURROGATE
from training.data.left_out import Bad
from training.problems import DataProblem


def tidy(label: str) -> str:
    """A label without spaces at its ends, in one Unicode form (NFC): file systems know two of `café`."""
    return unicodedata.normalize("NFC", label.strip())


def check(labels: Iterable[str], *, source: Path, bad: Sequence[Bad]) -> None:
    """Whether a model can learn to tell these labels apart.

    Args:
        labels: as they were written.
        source: where, for messages.
        bad: what was left out, which may be why there are too few.

    Raises:
        DataProblem: fewer than two, one that is not valid Unicode, or two that only case, spaces or Unicode's forms
            tell apart.
    """
    written = sorted(set(labels))
    for label in written:
        if LONE_SURROGATE.search(label):
            raise DataProblem(f"{source} has a label {label!r}, which is not valid Unicode: give it another name.")
    alike: dict[str, str] = {}
    for label in written:
        other = alike.setdefault(_reading(label), label)
        if other != label:
            raise DataProblem(f"{source} has the labels {other!r} and {label!r}: give both one name.")
    if len(written) < len(("no", "yes")):
        found = repr(written[0]) if written else "nothing to learn from"
        aside = f"; left out: {len(bad):,}, first {bad[0].where}: {bad[0].reason}" if bad else ""
        raise DataProblem(f"{source} has {len(written)} labels ({found}{aside}): give it two or more.")


def _reading(label: str) -> str:
    """What is left where case, spaces and forms of a letter do not count."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())

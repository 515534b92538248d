"""Data sets: where they come from, and how they are cut. Each reader is one module and gives a `Dataset`."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from training.golden import png
from training.problems import DataProblem

ENOUGH = 5
"""Examples of each label without which a cut says nothing."""
TOY = 50
"""Fewer examples than this, of all labels together, are not cut."""
FEWEST = 3
"""Examples without which a version cannot prove itself: its golden examples are made of them."""
TEST = 0.2
"""Share of each label's examples that is held out for the test where the data come without one."""
HEAVIEST = 10.0
"""How many times an example of an average label one of a rare label may weigh."""


@dataclass(frozen=True)
class Examples:
    """Raw inputs and what they are.

    Attributes:
        inputs: pictures, uint8 [n, height, width, 3], or texts, object [n] of str.
        labels: positions in the data set's list of labels, int64 [n].
        files: of pictures that were made smaller, where they lie as they are, object [n] of Path; None: nowhere.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    files: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """Those at the given positions, or where a mask is true."""
        files = None if self.files is None else self.files[which]
        return type(self)(self.inputs[which], self.labels[which], files)

    def raw(self, position: int) -> Path | bytes | str:
        """What a client would send: a picture's file, the pixels as PNG where there is none, or the text."""
        if self.files is not None:
            return Path(self.files[position])
        if self.inputs.ndim == 1:
            return str(self.inputs[position])
        return png(self.inputs[position])


@dataclass(frozen=True)
class Dataset:
    """What a training job learns from, and what it is judged on.

    Attributes:
        name: what people call it.
        labels: their names, in the order of the model's output.
        train, validation, test: disjoint, unless `seen`.
        seen: the data were too few to be cut, so that all three are the same examples.
        sha256: of the content, whatever files it came in.
    """

    name: str
    labels: list[str]
    train: Examples
    validation: Examples
    test: Examples
    seen: bool
    sha256: str

    @property
    def judged_on(self) -> str:
        """What the evaluation's figures are about, in words that do not flatter."""
        return (
            f"{self.name} (all {len(self.test)} examples, the model learned from these same)"
            if self.seen
            else self.name
        )

    def described(self, things: str) -> str:
        """How many there are of each part, for people."""
        if self.seen:
            return (
                f"{self.name}: {len(self.train)} {things} are too few to hold any out.\nThe model learns from all of "
                f"them and is judged on the same: its accuracy says nothing of other {things}."
            )
        return (
            f"{self.name}: {len(self.train):,} {things} to learn from, {len(self.validation):,} held out, "
            f"{len(self.test):,} to test on"
        )

    @property
    def label_frequencies(self) -> list[float]:
        """Each label's share of the training data."""
        return [float(n) / len(self.train) for n in np.bincount(self.train.labels, minlength=len(self.labels))]

    @property
    def label_weights(self) -> NDArray[np.float32]:
        """What an example of each label weighs when rare labels are not to be drowned, float32 [labels].

        √(n / (labels · nₗ)), at most HEAVIEST, and then such that the training examples weigh 1 on average and the
        learning rate keeps its meaning. The root is half the way (on a log scale) to labels that weigh the same
        altogether: all of it lets the few examples of a rare label shake every step. Labels of one size weigh 1.

        Whoever learns so answers as if label l were wₗ times as frequent as it is; a temperature cannot undo that, but
        taking log wₗ from the logits can (Elkan: The Foundations of Cost-Sensitive Learning, IJCAI 2001, theorem 2).
        """
        counts = np.bincount(self.train.labels, minlength=len(self.labels))
        weights = np.minimum(np.sqrt(len(self.train) / (len(self.labels) * np.maximum(1, counts))), HEAVIEST)
        even: NDArray[np.float32] = (weights * len(self.train) / (weights * counts).sum()).astype(np.float32)
        return even


Order = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Positions of a label's examples → the same, in the order in which they are held out."""


def by_chance(seed: int) -> Order:
    """For data that never grow: one more example would change the order of all."""
    return np.random.default_rng(seed).permutation


def by_content(examples: Examples, *, seed: int, content: Callable[[Any], str]) -> Order:
    """For data that grow: by a hash of the seed and of what an example is, so that new examples come in between."""
    hashes = [hashlib.sha256(f"{seed}\0{content(example)}".encode()).digest() for example in examples.inputs]
    return lambda positions: np.array(sorted(positions, key=hashes.__getitem__), dtype=np.int64)


def cut(examples: Examples, share: float, *, order: Order, at_least: int = 1) -> tuple[Examples, Examples]:
    """Hold out the first share of each label's examples.

    Args:
        examples: to be cut.
        share: of each label's examples.
        order: which are the first.
        at_least: hold out so many of a label where that is no more than a fifth of it.

    Returns:
        what remains, and what was held out (at least one example of each label).
    """
    held = np.zeros(len(examples), dtype=np.bool_)
    for label in np.unique(examples.labels):
        positions = order(np.flatnonzero(examples.labels == label))
        fewest = max(1, min(at_least, len(positions) // ENOUGH))
        held[positions[: max(fewest, round(share * len(positions)))]] = True
    return examples.take(~held), examples.take(held)


def in_parts(
    given: Mapping[str, Examples],
    *,
    source: Path,
    name: str,
    labels: list[str],
    validation: float,
    seed: int,
    content: Callable[[Any], str],
    sha256: str,
) -> Dataset:
    """The user's own examples as a data set. What they do not come with is cut from what there is to learn from.

    Fewer than TOY examples are not cut: they serve for all three parts, and the data set says that it is `seen`.

    As the data grow, examples keep their parts: a version that learned from fewer has not learned from what tests the
    next one. One order, see `by_content`, has the test first, the validation after it and the training last. Of a label
    that grows by m examples about √m / 3 change sides where two parts meet, for the parts have fixed shares (a fixed
    limit of the hash would move none, but leave small labels without a test); the validation lies between what was
    learned from and the test.

    Args:
        given: the parts that there are: `train`, and perhaps `validation` and `test`.
        source: where they came from, for messages.
        name: of the data set.
        labels: their names.
        validation: share of the training data to hold out, if it is not given.
        seed: which are held out.
        content: an input → what it is known by, whatever else is there.
        sha256: of the content.

    Raises:
        DataProblem: a label has too few examples.
    """
    train = given["train"]
    if len(given) == 1 and len(train) < TOY:
        _check_counts(train, 1, labels, source=source)
        if len(train) < FEWEST:
            raise DataProblem(f"{source} has {len(train)} examples: give it at least {FEWEST}, better hundreds.")
        return Dataset(name, labels, train, train, train, seen=True, sha256=sha256)
    _check_counts(train, ENOUGH, labels, source=source)
    for part in given.keys() - {"train"}:
        _check_counts(given[part], 1, labels, source=source, part=part)
    # by its fewest, a cut test has more
    if len(test := given.get("test", train)) < FEWEST:
        raise DataProblem(f"{source} has {len(test)} examples to test on: give it at least {FEWEST}, better hundreds.")
    if "test" not in given:
        train, test = cut(train, TEST, order=by_content(train, seed=seed, content=content))
    held_out = given.get("validation")
    if held_out is None:
        order = by_content(train, seed=seed, content=content)
        train, held_out = cut(train, validation, order=order, at_least=ENOUGH)
    return Dataset(name, labels, train, held_out, test, seen=False, sha256=sha256)


def _check_counts(examples: Examples, fewest: int, labels: list[str], *, source: Path, part: str = "") -> None:
    counts = np.bincount(examples.labels, minlength=len(labels))
    few = [f"{label!r} has {count}" for label, count in zip(labels, counts, strict=True) if count < fewest]
    if few:
        listed = ", ".join(few[:5]) + (f" and {len(few) - 5} more have too few" if len(few) > 5 else "")  # noqa: PLR2004 - a short list
        most = labels[counts.argmax()]
        raise DataProblem(
            f"{source} has too few {f'{part} ' if part else ''}examples of a label: {listed}, where {most!r} has "
            f"{counts.max():,}. Give each at least {fewest}, or take the label out."
        )

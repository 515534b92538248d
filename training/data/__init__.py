"""Data sets: where they come from, and how they are cut. Each reader is one module and gives a `Dataset`."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

ENOUGH = 5
"""Examples of each label without which a split says nothing."""


@dataclass(frozen=True)
class Examples:
    """Raw inputs and what they are.

    Attributes:
        inputs: pictures, uint8 [n, height, width, 3], or texts, object [n] of str.
        labels: positions in the data set's list of labels, int64 [n].
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """Those at the given positions, or where a mask is true."""
        return type(self)(self.inputs[which], self.labels[which])


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
        return (
            f"{self.name}: {len(self.train):,} {things} to learn from, {len(self.validation):,} held out, "
            f"{len(self.test):,} to test on"
        )

    @property
    def label_frequencies(self) -> list[float]:
        """Each label's share of the training data."""
        return [float(n) / len(self.train) for n in np.bincount(self.train.labels, minlength=len(self.labels))]


def cut(examples: Examples, share: float, *, seed: int) -> tuple[Examples, Examples]:
    """Hold out a share of each label's examples, chosen by chance.

    Returns:
        what remains, and what was held out (at least one example of each label).
    """
    chance = np.random.default_rng(seed)
    held = np.zeros(len(examples), dtype=np.bool_)
    for label in np.unique(examples.labels):
        positions = chance.permutation(np.flatnonzero(examples.labels == label))
        held[positions[: max(1, round(share * len(positions)))]] = True
    return examples.take(~held), examples.take(held)


def can_be_cut(examples: Examples, share: float, labels: int) -> bool:
    """Whether a share of the examples would still hold ENOUGH of each of so many labels."""
    return bool(np.bincount(examples.labels, minlength=labels).min() * share >= ENOUGH)

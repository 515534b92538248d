"""What a model answers, in the order of its probabilities."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Ranking(NamedTuple):
    """One row's labels, best first; equal ones in the contract's order."""

    order: NDArray[np.int64]
    """Which labels, [labels]."""
    probabilities: NDArray[np.float32]
    """Theirs, [labels]."""
    is_finite: bool
    """Whether all of them are numbers."""

    def best(self, count: int) -> list[tuple[int, float]]:
        """The first so many labels, each with its probability."""
        return list(zip(self.order[:count].tolist(), self.probabilities[:count].tolist(), strict=True))


def rank(probabilities: NDArray[np.float32]) -> list[Ranking]:
    """Probabilities, float32 [rows, labels] → each row's ranking.

    Together, because for a single row what NumPy does around the work costs more than the work.
    """
    order = (-probabilities).argsort(axis=1, kind="stable")
    ordered = probabilities[np.arange(len(order))[:, np.newaxis], order]
    are_finite = np.logical_and.reduce(np.isfinite(probabilities), axis=1)
    return [Ranking(*row) for row in zip(order, ordered, are_finite.tolist(), strict=True)]

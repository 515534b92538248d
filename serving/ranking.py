"""What a model answers, in the order of its probabilities.

In plain Python: what NumPy does around so little work costs more than the work, most of all when a single request comes
and the processor has just done something else.
"""

import math
from heapq import nlargest

FEW_LABELS = 100
"""So many are sorted faster than the first of them are picked out."""


class Ranking:
    """One row's labels, best first; equal ones in the contract's order.

    Args:
        probabilities: of the labels, in the contract's order.
    """

    __slots__ = ("_probabilities",)

    def __init__(self, probabilities: list[float]) -> None:
        self._probabilities = probabilities

    @property
    def is_finite(self) -> bool:
        """Whether all of them are numbers."""
        return math.isfinite(sum(self._probabilities))

    def best(self, count: int) -> list[tuple[int, float]]:
        """The first so many labels, each with its probability."""
        probabilities = self._probabilities
        labels, probability = range(len(probabilities)), probabilities.__getitem__
        if len(probabilities) <= FEW_LABELS:
            order = sorted(labels, key=probability, reverse=True)[:count]
        else:
            order = nlargest(count, labels, key=probability)
        return [(label, probabilities[label]) for label in order]

"""How far what is asked and answered lately is from what a version was trained on."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract import Contract, TextInput

MEMORY = 1000
"""Answers after which one weighs a third of what it did."""
ENOUGH = 200
"""Answers before which a distance would be chance."""
TOLD_EVERY = 50
"""Answers between two computations of the distances."""


class Drift:
    """Distances between the contract's reference and the recent answers of one version.

    The distance is Jensen's and Shannon's (the square root of their divergence in bits): 0 for the same distribution, 1
    for two that share nothing.

    Args:
        contract: of the version; what its reference leaves out is not measured.
        tell: is told a distance and what it is of: `labels`, `confidence`, and `brightness` or `unknown_tokens`.
    """

    def __init__(self, contract: Contract, tell: Callable[[str, float], None]) -> None:
        self._unknown = _unknown_id(contract)
        self._references = _references(contract)
        self._recent = {name: np.zeros(len(shares)) for name, shares in self._references.items()}
        self._tell = tell
        self._seen = 0

    def see(self, row: NDArray[Any], probabilities: NDArray[np.float32]) -> None:
        """An input as the model took it, and its answer, float32 [labels]."""
        keep = 1 - 1 / MEMORY
        for name, recent in self._recent.items():
            np.multiply(recent, keep, out=recent)
            self._add(name, recent, row, probabilities)
        self._seen += 1
        if self._seen >= ENOUGH and self._seen % TOLD_EVERY == 0:
            for name, recent in self._recent.items():
                self._tell(name, distance(recent, self._references[name]))

    def _add(
        self, name: str, recent: NDArray[np.float64], row: NDArray[Any], probabilities: NDArray[np.float32]
    ) -> None:
        match name:
            case "labels":
                recent[probabilities.argmax()] += 1
            case "confidence":
                recent[_bin(float(probabilities.max()), len(recent))] += 1
            case "brightness":
                recent[_bin(float(row.mean()) / 255, len(recent))] += 1
            case "unknown_tokens":
                share = float((row == self._unknown).mean())
                recent += (1 - share, share)


def _references(contract: Contract) -> dict[str, NDArray[np.float64]]:
    reference = contract.reference
    told: dict[str, list[float] | None] = {
        "labels": reference.label_frequencies if len(reference.label_frequencies) == len(contract.labels) else None,
        "confidence": reference.confidence_histogram,
        "brightness": reference.brightness_histogram,
    }
    if reference.token_unknown_rate is not None and _unknown_id(contract) is not None:
        told["unknown_tokens"] = [1 - reference.token_unknown_rate, reference.token_unknown_rate]
    return {name: np.array(shares) for name, shares in told.items() if shares and sum(shares) > 0}


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Jensen's and Shannon's distance of two histograms, [n] each, which need not add up to 1."""
    p, q = one / one.sum(), other / other.sum()
    middle = (p + q) / 2
    # what has no share adds nothing
    bits = [np.sum(part[part > 0] * np.log2(part[part > 0] / middle[part > 0])) for part in (p, q)]
    return float(np.sqrt(max(0.0, sum(bits) / 2)))


def _bin(value: float, bins: int) -> int:
    return min(bins - 1, max(0, int(value * bins)))


def _unknown_id(contract: Contract) -> int | None:
    """The id of all words that the vocabulary lacks, where the tokenizer has one."""
    if not isinstance(contract.input, TextInput):
        return None
    model = contract.input.tokenizer.get("model", {})
    vocabulary = model.get("vocab")
    return vocabulary.get(model.get("unk_token")) if isinstance(vocabulary, dict) else None

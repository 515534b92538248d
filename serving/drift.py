"""How far what is asked and answered lately is from what a version was trained on."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract import Contract, TextInput
from serving.metrics import Counted, Unwritten

MEMORY = 1000
"""Answers after which one weighs a third of what it did."""
ENOUGH = 200
"""Answers before which a distance would be chance."""
TOLD_EVERY = 50
"""Answers between two computations of the distances."""
MAX_UNSEEN_BYTES = 1024 * 1024
"""Of rows that wait to be seen: of large ones, many at once would hold up the event loop."""


class Drift(Counted):
    """Distances between the contract's reference and the recent answers of one version.

    The distance is Jensen's and Shannon's (the square root of their divergence in bits): 0 for the same distribution, 1
    for two that share nothing.

    Args:
        contract: of the version; what its reference leaves out is not measured.
        tell: is told a distance and what it is of: `labels`, `confidence`, and `brightness` or `unknown_tokens`.
        unwritten: has it look at what it was told to see later, when that is enough.
    """

    def __init__(self, contract: Contract, tell: Callable[[str, float], None], unwritten: Unwritten) -> None:
        self._unknown = _unknown_id(contract)
        self._references = _references(contract, self._unknown)
        self._recent = {name: np.zeros(len(shares)) for name, shares in self._references.items()}
        self._tell = tell
        self._seen = 0
        self._unwritten = unwritten
        self._unseen_bytes = self._unseen_rows = 0
        self._unseen: list[tuple[Sequence[NDArray[Any]], list[list[float]]]] = []

    def see_later(self, rows: Sequence[NDArray[Any]], probabilities: list[list[float]]) -> None:
        """As `see`, when there are enough of them for a distance to be told anew: many cost little more than one."""
        self._unseen.append((rows, probabilities))
        self._unseen_rows += len(rows)
        self._unseen_bytes += sum([row.nbytes for row in rows])
        if self._unseen_bytes > MAX_UNSEEN_BYTES:
            self.write()
        elif self._unseen_rows - len(rows) < TOLD_EVERY <= self._unseen_rows:
            self._unwritten.hold(self)  # nobody waits for that

    def write(self) -> None:
        unseen, self._unseen, self._unseen_bytes, self._unseen_rows = self._unseen, [], 0, 0
        if not unseen:
            return  # they were so large that they were seen before
        rows = [row for batch, _ in unseen for row in batch]
        self.see(rows, np.array([row for _, answers in unseen for row in answers], np.float32))

    def see(self, rows: Sequence[NDArray[Any]], probabilities: NDArray[np.float32]) -> None:
        """Inputs as the model took them, and their answers, float32 [rows, labels]."""
        keep = (1 - 1 / MEMORY) ** len(rows)
        for name, recent in self._recent.items():
            self._recent[name] = recent * keep + self._counted(name, len(recent), rows, probabilities)
        due = self._seen // TOLD_EVERY
        self._seen += len(rows)
        if self._seen >= ENOUGH and self._seen // TOLD_EVERY > due:
            for name, recent in self._recent.items():
                self._tell(name, distance(recent, self._references[name]))

    def end(self) -> None:
        """The version is gone: what was told of it last is true of nothing any more."""
        for name in self._references if self._seen >= ENOUGH else ():
            self._tell(name, 0.0)
        self._recent = {}  # what still comes is of no interest

    def _counted(
        self, name: str, bins: int, rows: Sequence[NDArray[Any]], probabilities: NDArray[np.float32]
    ) -> NDArray[Any]:
        match name:
            case "labels":
                return np.bincount(probabilities.argmax(axis=1), minlength=bins)
            case "confidence":
                return _histogram(probabilities.max(axis=1), bins)
            case "brightness":
                return _histogram(np.stack(rows).reshape(len(rows), -1).mean(axis=1) / 255, bins)
            case _:
                lengths = np.array([len(row) for row in rows])
                are_unknown = np.concatenate(rows) == self._unknown
                unknown = (np.add.reduceat(are_unknown, lengths.cumsum() - lengths, dtype=np.int64) / lengths).sum()
                return np.array([len(rows) - unknown, unknown])


def _references(contract: Contract, unknown: int | None) -> dict[str, NDArray[np.float64]]:
    reference = contract.reference
    told: dict[str, list[float] | None] = {
        "labels": reference.label_frequencies if len(reference.label_frequencies) == len(contract.labels) else None,
        "confidence": reference.confidence_histogram,
        "brightness": reference.brightness_histogram,
    }
    if reference.token_unknown_rate is not None and unknown is not None:
        told["unknown_tokens"] = [1 - reference.token_unknown_rate, reference.token_unknown_rate]
    return {name: np.array(shares) for name, shares in told.items() if shares and sum(shares) > 0}


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Jensen's and Shannon's distance of two histograms, [n] each, which need not add up to 1."""
    p, q = one / one.sum(), other / other.sum()
    middle = (p + q) / 2
    # what has no share adds nothing
    bits = [np.sum(part[part > 0] * np.log2(part[part > 0] / middle[part > 0])) for part in (p, q)]
    return float(np.sqrt(max(0.0, sum(bits) / 2)))


def _histogram(values: NDArray[Any], bins: int) -> NDArray[np.int64]:
    """How many of the values, 0 to 1 (a NaN for 0), fall into each of so many bins of one width."""
    which = np.nan_to_num(values * bins).astype(np.int64).clip(0, bins - 1)
    return np.bincount(which, minlength=bins)


def _unknown_id(contract: Contract) -> int | None:
    """The id of all words that the vocabulary lacks, where the tokenizer has one."""
    if not isinstance(contract.input, TextInput):
        return None
    model = contract.input.tokenizer.get("model", {})
    vocabulary = model.get("vocab")
    return vocabulary.get(model.get("unk_token")) if isinstance(vocabulary, dict) else None

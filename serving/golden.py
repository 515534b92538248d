"""The golden proof: a version's own examples, raw, through this gateway's preprocessing and that very server."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract import Contract
from serving.explanation import Explanation
from serving.preprocessing import Preprocessor
from serving.problems import Problem


class Unproven(Exception):
    """The version does not do here what it did in training. The text says where."""


def prepare_golden_examples(contract: Contract, preprocessor: Preprocessor) -> list[Any]:
    """The golden examples' raw inputs as rows, prepared as a client's are.

    Raises:
        Unproven: one of them cannot be read.
    """
    rows = []
    for number, example in enumerate(contract.golden.examples, start=1):
        try:
            rows.append(preprocessor.prepare(example.raw))
        except Problem as problem:
            raise Unproven(f"golden example {number} cannot be read here: {problem.detail}") from problem
    return rows


def compare_golden_answers(contract: Contract, answers: NDArray[np.float32]) -> None:
    """Training's probabilities against the server's, float32 [examples, labels].

    Raises:
        Unproven: another label, or a probability beyond the contract's tolerance.
    """
    expected = np.array([example.probabilities for example in contract.golden.examples])
    if answers.shape != expected.shape:
        raise Unproven(f"the golden examples got answers of shape {answers.shape}, training had {expected.shape}")
    apart = np.abs(answers - expected).max(axis=1)
    same_label = answers.argmax(axis=1) == expected.argmax(axis=1)
    # written so that a NaN, which compares as false, disagrees
    agrees = same_label & (apart <= contract.golden.tolerance)
    if agrees.all():
        return
    worst = int(np.argmax(np.where(agrees, -1.0, np.nan_to_num(apart, nan=np.inf) + ~same_label)))
    raise Unproven(
        f"{int((~agrees).sum())} of {len(expected)} golden examples disagree with training; "
        f"example {worst + 1} should be {_top(contract, expected[worst])} and is {_top(contract, answers[worst])} "
        f"(a probability is {apart[worst]:.3f} off, tolerance {contract.golden.tolerance:g})"
    )


def compare_golden_explanation(contract: Contract, explanation: Explanation) -> None:
    """The server's explanation of the first golden example against the example itself.

    Raises:
        Unproven: it explains another label, or its numbers are none.
    """
    expected = np.array(contract.golden.examples[0].probabilities)
    likely = np.flatnonzero(expected >= expected.max() - 2 * contract.golden.tolerance)
    if explanation.label not in likely:
        raise Unproven(
            f"its signature {contract.explain!r} explains label {explanation.label} of golden example 1, "
            f"which should be {_top(contract, expected)} (label {int(expected.argmax())})"
        )
    if not explanation.is_finite:
        raise Unproven(f"its signature {contract.explain!r} answers numbers for golden example 1 that are not finite")


def _top(contract: Contract, probabilities: NDArray[np.floating]) -> str:
    best = int(np.argmax(probabilities))
    return f"{contract.labels[best]} {probabilities[best]:.3f}"

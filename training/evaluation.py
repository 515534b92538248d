"""How good the answers are, and how honest their probabilities. NumPy only; everything here is pure."""

from collections.abc import Callable
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from serving.contract import Calibration, Evaluation, LabelEvaluation

CALIBRATION_BINS = 15
REFERENCE_BINS = 10
COLDEST, HOTTEST = 0.05, 20.0
"""Between these the temperature is sought."""


def evaluate(
    probabilities: NDArray[np.floating], truth: NDArray[np.int64], *, labels: list[str], dataset: str
) -> Evaluation:
    """Accuracy, precision and recall of each label, and the confusion matrix.

    Args:
        probabilities: [n, labels].
        truth: positions in `labels`, [n].
        labels: their names.
        dataset: what the data are called.

    Returns:
        the contract's part. A label that was never given has precision 0, one that never was has recall 0.
    """
    answered = probabilities.argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (truth, answered), 1)
    right, are, called = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    per_label = [
        LabelEvaluation(
            label=label,
            examples=int(are[i]),
            precision=float(right[i] / max(1, called[i])),
            recall=float(right[i] / max(1, are[i])),
        )
        for i, label in enumerate(labels)
    ]
    return Evaluation(
        dataset=dataset,
        examples=len(truth),
        accuracy=float(right.sum() / len(truth)),
        per_label=per_label,
        confusion=confusion.tolist(),
    )


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Logits [n, labels] → probabilities [n, labels], flattened by a temperature above 1, sharpened by one below."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def expected_calibration_error(probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """How far confidence is from accuracy: Σ |Bₘ|/n · |acc(Bₘ) - conf(Bₘ)| over 15 equal bins (m-1/15, m/15].

    Guo, Pleiss, Sun and Weinberger: On Calibration of Modern Neural Networks, ICML 2017, equation 3.

    Args:
        probabilities: [n, labels].
        truth: positions of the right labels, [n].
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(truth))


def negative_log_likelihood(logits: NDArray[np.floating], truth: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean of -log p(right label), in nats, of logits [n, labels] divided by a temperature."""
    scaled = logits.astype(np.float64) / temperature
    top = scaled.max(axis=1)
    log_sum = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((log_sum - scaled[np.arange(len(truth)), truth]).mean())


def fit_temperature(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """The temperature that makes held-out data most likely (Guo et al., 2017, section 4.2).

    The negative log likelihood is convex in 1/T, so it has one minimum, whichever way T is walked.

    Args:
        logits: [n, labels], of data that the weights were not fitted to.
        truth: positions of the right labels, [n].
    """
    return exp(_least(lambda log_t: negative_log_likelihood(logits, truth, exp(log_t)), log(COLDEST), log(HOTTEST)))


def calibration(temperature: float, logits: NDArray[np.floating], truth: NDArray[np.int64]) -> Calibration:
    """The contract's part: what a temperature does to data it was not fitted to.

    Args:
        temperature: from `fit_temperature`.
        logits: of the test data, [n, labels].
        truth: positions of the right labels, [n].
    """
    return Calibration(
        temperature=temperature,
        expected_calibration_error_before=expected_calibration_error(softmax(logits), truth),
        expected_calibration_error_after=expected_calibration_error(softmax(logits, temperature), truth),
    )


def shares(values: NDArray[np.floating]) -> list[float]:
    """Shares of the values in ten equal bins of [0, 1]."""
    counts, _ = np.histogram(values, bins=REFERENCE_BINS, range=(0, 1))
    return [float(share) for share in counts / len(values)]


def _least(function: Callable[[float], float], low: float, high: float, *, within: float = 1e-4) -> float:
    """Where a function with one minimum has it: golden-section search (Kiefer, 1953)."""
    ratio = (sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > within:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2

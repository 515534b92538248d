"""How good the answers are, and how honest their probabilities. NumPy only; everything here is pure."""

from collections import Counter
from collections.abc import Callable
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from serving.contract import Calibration, Evaluation, LabelEvaluation, ReliabilityBin

CALIBRATION_BINS = 15
CALIBRATION_GOAL = 0.02
"""An expected calibration error up to which probabilities are called honest."""
SAME_MISTAKES = 3
"""The worst mistakes hold no more than these of one true label and one answer, while there are others."""
REFERENCE_BINS = 10
COLDEST, HOTTEST = 0.05, 20.0
"""Between these the temperature is sought."""
PRECISION = 1e-4
"""Of its logarithm."""
KEPT_BY_THE_TEST = 1.353
"""Nats of log likelihood that a temperature may lack: half of the 90 % quantile of chi squared, for one side of two."""


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


def macro_f1(evaluation: Evaluation) -> float:
    """The mean of the labels' F1, each counting the same however many examples it has, of those that have any."""
    return float(np.mean([f1(label) for label in evaluation.per_label if label.examples] or [0.0]))


def f1(label: LabelEvaluation) -> float:
    """The harmonic mean of precision and recall; 0 where both are."""
    both = label.precision + label.recall
    return 2 * label.precision * label.recall / both if both else 0.0


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """The score interval in which a share lies with 95 % confidence (Wilson, 1927); all of [0, 1] for none of none."""
    z = 1.959964
    if not total:
        return 0.0, 1.0
    middle = right + z * z / 2
    half = z * sqrt(right * (total - right) / total + z * z / 4)
    return (middle - half) / (total + z * z), (middle + half) / (total + z * z)


def reliability(probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> list[ReliabilityBin]:
    """What becomes of answers of like confidence, in 15 equal bins ((m-1)/15, m/15].

    Args:
        probabilities: [n, labels].
        truth: positions of the right labels, [n].

    Returns:
        every bin in turn; of one without examples confidence and accuracy are 0.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == truth
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    examples, sure, hits = (
        np.bincount(bins, weights=weights, minlength=CALIBRATION_BINS) for weights in (None, confidence, right)
    )
    return [
        # a sum of float32 probabilities may be a hair above 1
        ReliabilityBin(examples=int(n), confidence=min(1.0, float(c / max(1, n))), accuracy=float(a / max(1, n)))
        for n, c, a in zip(examples, sure, hits, strict=True)
    ]


def expected_calibration_error(probabilities: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """How far confidence is from accuracy: Σ |Bₘ|/n · |acc(Bₘ) - conf(Bₘ)| over the bins of `reliability`.

    Guo, Pleiss, Sun and Weinberger: On Calibration of Modern Neural Networks, ICML 2017, equation 3.

    Args:
        probabilities: [n, labels].
        truth: positions of the right labels, [n].
    """
    bins = reliability(probabilities, truth)
    return sum(one.examples / len(truth) * abs(one.accuracy - one.confidence) for one in bins)


def worst(probabilities: NDArray[np.floating], truth: NDArray[np.int64], count: int) -> list[int]:
    """Positions of the wrong answers of which the model was most sure, most sure first.

    One kind of mistake (a true label and the answer) is shown `SAME_MISTAKES` times at most while there are others.

    Args:
        probabilities: [n, labels].
        truth: positions of the right labels, [n].
        count: how many; fewer come back where fewer answers are wrong.
    """
    answered, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(answered != truth)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    seen: Counter[tuple[int, int]] = Counter()
    various: list[int] = []
    alike: list[int] = []
    for position in wrong.tolist():
        kind = int(truth[position]), int(answered[position])
        seen[kind] += 1
        (various if seen[kind] <= SAME_MISTAKES else alike).append(position)
    return sorted((various + alike)[:count], key=wrong.tolist().index)


def negative_log_likelihood(logits: NDArray[np.floating], truth: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean of -log p(right label), in nats, of logits [n, labels] divided by a temperature."""
    scaled = logits.astype(np.float64) / temperature
    top = scaled.max(axis=1)
    log_sum = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((log_sum - scaled[np.arange(len(truth)), truth]).mean())


def fit_temperature(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """The temperature that makes held-out data most likely (Guo et al., 2017, section 4.2).

    The negative log likelihood is convex in 1/T, so it has one minimum, whichever way T is walked. What is expected
    beforehand, log T normally distributed around 0, weighs as much as one example: a few that are all right would
    otherwise want a temperature of 0.

    Args:
        logits: [n, labels], of data that the weights were not fitted to.
        truth: positions of the right labels, [n].
    """
    return exp(_least(_surprise(logits, truth), log(COLDEST), log(HOTTEST)))


def cautious_temperature(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """The highest temperature that held-out data do not speak against.

    What was held out comes from where the training data come from, and is easier than what will be asked; and it is
    few. So of all temperatures that a likelihood ratio test keeps (one-sided, 95 %), the one that claims least is
    taken.

    Args:
        logits: [n, labels], of data that the weights were not fitted to.
        truth: positions of the right labels, [n].
    """
    surprise = _surprise(logits, truth)
    low, high = log(fit_temperature(logits, truth)), log(HOTTEST)
    kept = surprise(low) + KEPT_BY_THE_TEST / len(truth)
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if surprise(middle) <= kept else (low, middle)
    return exp(low)


def _surprise(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> Callable[[float], float]:
    """Log T → what an example costs on average, in nats, what is expected of T beforehand included."""
    return lambda log_t: negative_log_likelihood(logits, truth, exp(log_t)) + log_t**2 / (2 * len(truth))


def calibration(temperature: float, logits: NDArray[np.floating], truth: NDArray[np.int64]) -> Calibration:
    """The contract's part: what a temperature does to data it was not fitted to.

    Args:
        temperature: from `cautious_temperature`.
        logits: of the test data, [n, labels].
        truth: positions of the right labels, [n].
    """
    return Calibration(
        temperature=temperature,
        expected_calibration_error_before=expected_calibration_error(softmax(logits), truth),
        expected_calibration_error_after=expected_calibration_error(softmax(logits, temperature), truth),
        reliability=reliability(softmax(logits, temperature), truth),
    )


def shares(values: NDArray[np.floating]) -> list[float]:
    """Shares of the values in ten equal bins of [0, 1]."""
    counts, _ = np.histogram(values, bins=REFERENCE_BINS, range=(0, 1))
    return [float(share) for share in counts / len(values)]


def _least(function: Callable[[float], float], low: float, high: float, *, within: float = PRECISION) -> float:
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

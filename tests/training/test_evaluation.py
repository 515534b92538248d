import numpy as np
import pytest

from training.evaluation import (
    calibration,
    evaluate,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    shares,
    softmax,
)


def test_accuracy_precision_recall_and_confusion_are_as_counted_by_hand() -> None:
    probabilities = np.eye(3)[[0, 0, 1, 1, 0]]
    truth = np.array([0, 0, 0, 1, 1])
    verdict = evaluate(probabilities, truth, labels=["a", "b", "c"], dataset="five")
    assert verdict.accuracy == pytest.approx(3 / 5)
    assert verdict.confusion == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert [label.precision for label in verdict.per_label] == pytest.approx([2 / 3, 1 / 2, 0])
    assert [label.recall for label in verdict.per_label] == pytest.approx([2 / 3, 1 / 2, 0])
    assert [label.examples for label in verdict.per_label] == [3, 2, 0]
    assert (verdict.dataset, verdict.examples) == ("five", 5)


def test_the_calibration_error_weighs_each_bins_gap_by_its_size() -> None:
    # bin (0.6, 0.667]: confidence 0.62, accuracy 1/2; bin (0.867, 0.933]: confidence 0.9, both right
    confidence = np.array([0.61, 0.63, 0.9, 0.9])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    truth = np.array([0, 1, 0, 0])
    assert expected_calibration_error(probabilities, truth) == pytest.approx(0.5 * 0.12 + 0.5 * 0.1)


def test_opposite_gaps_of_one_bin_cancel_and_of_two_bins_do_not() -> None:
    same_bin = np.array([[0.5, 0.5], [0.5, 0.5]])
    assert expected_calibration_error(same_bin, np.array([0, 1])) == pytest.approx(0)
    two_bins = np.array([[0.55, 0.45], [0.95, 0.05]])
    assert expected_calibration_error(two_bins, np.array([0, 1])) == pytest.approx((0.45 + 0.95) / 2)


def test_certain_and_right_is_perfectly_calibrated() -> None:
    assert expected_calibration_error(np.eye(2), np.array([0, 1])) == 0


def test_softmax_agrees_with_hand_values_and_survives_huge_logits() -> None:
    assert softmax(np.array([[0.0, np.log(3)]]))[0] == pytest.approx([0.25, 0.75])
    assert softmax(np.array([[0.0, np.log(9)]]), temperature=2)[0] == pytest.approx([0.25, 0.75])
    assert softmax(np.array([[0.0, 1e5]]))[0] == pytest.approx([0, 1])


def test_the_likelihood_is_that_of_the_right_label() -> None:
    logits = np.array([[0.0, np.log(3)], [0.0, np.log(3)]])
    assert negative_log_likelihood(logits, np.array([1, 0])) == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_logits_were_spoilt_with_is_found(temperature: float) -> None:
    chance = np.random.default_rng(0)
    honest = chance.normal(0, 2, (40_000, 3))
    truth = (softmax(honest).cumsum(axis=1) < chance.random((40_000, 1))).sum(axis=1)
    assert fit_temperature(honest * temperature, truth) == pytest.approx(temperature, rel=0.03)


def test_the_temperature_is_where_the_likelihood_is_best() -> None:
    # 3 of 4 right at a logit of log 9: the best is p = 3/4, which is log 9 / T = log 3
    logits = np.array([[np.log(9), 0.0]] * 4)
    assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(2, rel=1e-3)


def test_the_temperature_stays_finite_where_nothing_is_wrong() -> None:
    assert 0.05 <= fit_temperature(np.array([[5.0, 0.0]]), np.array([0])) < 1


def test_calibration_reports_the_error_on_both_sides_of_the_temperature() -> None:
    logits = np.array([[np.log(9), 0.0]] * 4)
    part = calibration(2.0, logits, np.array([0, 0, 0, 1]))
    assert part.expected_calibration_error_before == pytest.approx(0.9 - 0.75)
    assert part.expected_calibration_error_after == pytest.approx(0, abs=1e-9)


def test_shares_are_of_ten_equal_bins_with_one_in_the_last() -> None:
    assert shares(np.array([0.0, 0.05, 0.55, 1.0])) == [0.5, 0, 0, 0, 0, 0.25, 0, 0, 0, 0.25]

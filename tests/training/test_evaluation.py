import numpy as np
import pytest

from serving.contract import LabelEvaluation
from training.evaluation import (
    CALIBRATION_BINS,
    SAME_MISTAKES,
    calibration,
    cautious_temperature,
    evaluate,
    expected_calibration_error,
    f1,
    fit_temperature,
    macro_f1,
    negative_log_likelihood,
    reliability,
    shares,
    softmax,
    wilson_interval,
    worst,
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


def test_a_bin_tells_how_many_how_sure_and_how_often_right() -> None:
    confidence = np.array([0.61, 0.63, 0.9, 0.9])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    bins = reliability(probabilities, np.array([0, 1, 0, 0]))
    assert len(bins) == CALIBRATION_BINS
    assert {i: one.examples for i, one in enumerate(bins) if one.examples} == {9: 2, 13: 2}
    assert [bins[9].confidence, bins[9].accuracy] == pytest.approx([0.62, 0.5])
    assert [bins[13].confidence, bins[13].accuracy] == pytest.approx([0.9, 1])
    assert (bins[0].confidence, bins[0].accuracy) == (0, 0)


def test_a_confidence_on_a_bins_upper_edge_belongs_to_it() -> None:
    bins = reliability(np.array([[0.8, 0.2], [1.0, 0.0]]), np.array([0, 0]))
    assert [i for i, one in enumerate(bins) if one.examples] == [11, 14]


def test_a_sum_that_is_rounded_above_one_is_a_confidence_of_one() -> None:
    assert reliability(np.array([[1.0000001, 0]], np.float32), np.array([0]))[-1].confidence == 1


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
    logits = np.array([[np.log(9), 0.0]] * 4000)
    assert fit_temperature(logits, np.array([0, 0, 0, 1] * 1000)) == pytest.approx(2, rel=2e-3)


@pytest.mark.parametrize("examples", [1, 20])
def test_a_few_examples_without_a_mistake_do_not_make_the_model_sure_of_everything(examples: int) -> None:
    assert 0.3 < fit_temperature(np.array([[5.0, 0.0]] * examples), np.zeros(examples, np.int64)) < 1


def test_calibration_reports_the_error_on_both_sides_of_the_temperature() -> None:
    logits = np.array([[np.log(9), 0.0]] * 4)
    part = calibration(2.0, logits, np.array([0, 0, 0, 1]))
    assert part.expected_calibration_error_before == pytest.approx(0.9 - 0.75)
    assert part.expected_calibration_error_after == pytest.approx(0, abs=1e-9)


def test_calibration_shows_the_reliability_after_the_temperature() -> None:
    logits = np.array([[np.log(9), 0.0]] * 4)
    (filled,) = [one for one in calibration(2.0, logits, np.array([0, 0, 0, 1])).reliability or [] if one.examples]
    assert [filled.examples, filled.confidence, filled.accuracy] == pytest.approx([4, 0.75, 0.75])


def test_f1_is_the_harmonic_mean_and_0_where_nothing_was_found() -> None:
    assert f1(LabelEvaluation(label="a", examples=5, precision=0.5, recall=1)) == pytest.approx(2 / 3)
    assert f1(LabelEvaluation(label="a", examples=5, precision=0, recall=0)) == 0


def test_macro_f1_counts_every_tested_label_the_same() -> None:
    # of label 0: 8 of 8 found, 8 of 9 right; of label 1: 1 of 2 found, 1 of 1 right; label 2 was not tested
    verdict = evaluate(np.eye(3)[[0] * 9 + [1]], np.array([0] * 8 + [1, 1]), labels=["a", "b", "c"], dataset="ten")
    assert macro_f1(verdict) == pytest.approx((16 / 17 + 2 / 3) / 2)


def test_the_interval_is_wilsons() -> None:
    # Newcombe, 1998, table I
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson_interval(0, 0) == (0, 1)


def test_the_worst_mistakes_are_the_surest_wrong_answers() -> None:
    sure = np.array([0.6, 0.99, 0.8, 0.95, 0.7])
    probabilities = np.stack([sure, 1 - sure], axis=1)
    truth = np.array([1, 0, 1, 1, 0])
    assert worst(probabilities, truth, 2) == [3, 2]
    assert worst(probabilities, truth, 9) == [3, 2, 0]
    assert worst(probabilities, np.zeros(5, np.int64), 9) == []


def test_the_worst_mistakes_are_not_all_of_one_kind_while_there_are_others() -> None:
    probabilities = np.array([[0.9 - i / 100, 0.1, i / 100] for i in range(8)] + [[0.1, 0.2, 0.7]])
    truth = np.array([1] * 8 + [0])
    assert worst(probabilities, truth, SAME_MISTAKES + 1) == [*range(SAME_MISTAKES), 8]
    assert worst(probabilities, truth, SAME_MISTAKES + 2) == [*range(SAME_MISTAKES + 1), 8]


def test_shares_are_of_ten_equal_bins_with_one_in_the_last() -> None:
    assert shares(np.array([0.0, 0.05, 0.55, 1.0])) == [0.5, 0, 0, 0, 0, 0.25, 0, 0, 0, 0.25]


@pytest.mark.parametrize("examples", [50, 5_000])
def test_the_fewer_were_held_out_the_less_is_claimed(examples: int) -> None:
    chance = np.random.default_rng(1)
    honest = chance.normal(0, 2, (examples, 4))
    truth = np.array([chance.choice(4, p=row) for row in softmax(honest)])
    logits = honest / 2
    most_likely, cautious = fit_temperature(logits, truth), cautious_temperature(logits, truth)
    assert most_likely < cautious < most_likely * (1 + 5 / np.sqrt(examples))
    lacks = negative_log_likelihood(logits, truth, cautious) - negative_log_likelihood(logits, truth, most_likely)
    assert lacks * examples == pytest.approx(1.353, abs=0.3)

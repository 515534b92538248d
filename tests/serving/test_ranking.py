"""Each row's labels, the best first, however many there are."""

import math

import numpy as np
import pytest

from serving.ranking import FEW_LABELS, Ranking


@pytest.mark.parametrize("labels", [1, 10, FEW_LABELS, FEW_LABELS + 1, 1000])
def test_rows_are_ranked_each_by_itself(labels: int) -> None:
    probabilities = np.random.default_rng(7).dirichlet(np.ones(labels), 50).astype(np.float32)
    for row in probabilities.tolist():
        ranking = Ranking(row)
        expected = sorted(enumerate(row), key=lambda label: -label[1])
        assert ranking.best(labels) == expected
        assert ranking.best(3) == expected[:3]
        assert ranking.best(labels + 1) == expected
        assert ranking.is_finite


@pytest.mark.parametrize("labels", [3, FEW_LABELS + 1])
def test_equal_ones_stand_in_the_contracts_order(labels: int) -> None:
    probabilities = [0.25] * labels
    probabilities[1] = 0.5
    assert Ranking(probabilities).best(3) == [(1, 0.5), (0, 0.25), (2, 0.25)]


def test_only_the_row_that_is_no_numbers_is_told_so() -> None:
    rows = [[0.5, 0.5], [math.nan, 0.5], [0.5, math.inf]]
    assert [Ranking(row).is_finite for row in rows] == [True, False, False]

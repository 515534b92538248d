"""Rankings of many rows at once are those of each row by itself."""

import numpy as np

from serving.ranking import rank


def test_rows_are_ranked_each_by_itself() -> None:
    probabilities = np.random.default_rng(7).dirichlet(np.ones(10), 50).astype(np.float32)
    for row, ranking in zip(probabilities, rank(probabilities), strict=True):
        expected = sorted(enumerate(row.tolist()), key=lambda label: -label[1])
        assert ranking.best(10) == expected
        assert ranking.best(3) == expected[:3]
        assert ranking.best(99) == expected
        assert ranking.is_finite


def test_equal_ones_stand_in_the_contracts_order() -> None:
    (ranking,) = rank(np.array([[0.25, 0.5, 0.25]], np.float32))
    assert ranking.best(3) == [(1, 0.5), (0, 0.25), (2, 0.25)]


def test_only_the_row_that_is_no_numbers_is_told_so() -> None:
    rows = np.array([[0.5, 0.5], [np.nan, 0.5], [0.5, np.inf]], np.float32)
    assert [ranking.is_finite for ranking in rank(rows)] == [True, False, False]

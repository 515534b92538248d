import numpy as np
import pytest

from training.data import Dataset, Examples, by_chance, cut


def examples(*counts: int) -> Examples:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Examples(np.arange(len(labels)), labels)


def dataset(*counts: int) -> Dataset:
    part = examples(*counts)
    return Dataset("made", [f"label {n}" for n in range(len(counts))], part, part, part, seen=True, sha256="")


def test_labels_of_one_size_weigh_one() -> None:
    assert dataset(70, 70, 70).label_weights.tolist() == [1, 1, 1]


def test_a_rare_label_weighs_the_root_of_how_much_rarer_it_is() -> None:
    often, rarely = dataset(900, 100).label_weights
    assert rarely / often == pytest.approx(3)


def test_the_training_examples_weigh_one_on_average() -> None:
    data = dataset(5000, 300, 7)
    assert data.label_weights[data.train.labels].mean() == pytest.approx(1)


def test_the_weight_of_a_very_rare_label_has_a_limit() -> None:
    often, rarely = dataset(1_000_000, 1).label_weights
    assert rarely / often == pytest.approx(10 / np.sqrt(1 / 2), rel=1e-3)


def test_so_many_are_held_out_of_a_small_label_unless_that_is_more_than_a_fifth() -> None:
    rest, held_out = cut(examples(1000, 60, 20, 5), 0.05, order=by_chance(0), at_least=5)
    assert np.bincount(held_out.labels).tolist() == [50, 5, 4, 1]
    assert np.bincount(rest.labels).tolist() == [950, 55, 16, 4]
    assert sorted([*rest.inputs, *held_out.inputs]) == list(range(1085))

"""How far recent answers are from training is told while there are such, and no longer than their version lasts."""

from pathlib import Path

import numpy as np

from serving.drift import ENOUGH, Drift
from serving.metrics import Unwritten
from training.repository import contract

CNN = contract(Path(__file__).resolve().parents[2] / "models" / "cnn" / "1")


def test_nothing_is_told_of_a_version_that_is_gone() -> None:
    told: dict[str, float] = {}
    drift = Drift(CNN, told.__setitem__, Unwritten())
    rows = [np.zeros((32, 32, 3), np.uint8)] * ENOUGH
    sure = np.eye(10, dtype=np.float32)[np.zeros(ENOUGH, int)]
    drift.see(rows, sure)
    assert told.keys() == {"labels", "confidence", "brightness"}
    assert min(told.values()) > 0.3
    drift.end()
    drift.see(rows, sure)
    assert set(told.values()) == {0.0}


def test_a_version_that_was_asked_little_tells_nothing_at_its_end_either() -> None:
    told: dict[str, float] = {}
    Drift(CNN, told.__setitem__, Unwritten()).end()
    assert not told

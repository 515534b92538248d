"""How far recent answers are from training is told while there are such, and no longer than their version lasts."""

import asyncio
from pathlib import Path

import numpy as np

from serving.drift import ENOUGH, MAX_UNSEEN_BYTES, TOLD_EVERY, Drift
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


def test_what_is_to_be_seen_later_is_seen_together_and_makes_no_difference() -> None:
    at_once: dict[str, float] = {}
    later: dict[str, float] = {}
    chance = np.random.default_rng(1)

    async def scenario() -> None:
        unwritten = Unwritten()
        one, other = Drift(CNN, at_once.__setitem__, unwritten), Drift(CNN, later.__setitem__, unwritten)
        for number in range(ENOUGH):
            row = chance.integers(0, 256, (32, 32, 3), np.uint8)
            answer = chance.dirichlet(np.ones(10), 1).astype(np.float32)
            one.see([row], answer)
            other.see_later([row], answer.tolist())
            if (number + 1) % TOLD_EVERY == 0:
                unwritten.write()
        assert at_once.keys() == later.keys() == {"labels", "confidence", "brightness"}
        # of those that are seen together the first weigh as much as the last
        assert all(abs(at_once[name] - later[name]) < 0.01 for name in later)

    asyncio.run(scenario())


def test_large_rows_are_not_held_until_there_are_enough() -> None:
    large = np.zeros((600, 600, 3), np.uint8)
    assert large.nbytes > MAX_UNSEEN_BYTES
    told: dict[str, float] = {}
    drift = Drift(CNN, told.__setitem__, Unwritten())
    for _ in range(ENOUGH):
        drift.see_later([large], [[1.0, *[0.0] * 9]])
    assert told

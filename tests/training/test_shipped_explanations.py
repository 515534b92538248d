"""The shipped versions' explanations, on their own golden examples: do they add up, and does what they name matter?"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.contract import ATTRIBUTION, LABEL, SCORE, Contract
from serving.preprocessing import preprocessor_for
from training.export import SERVING, Session
from training.tokenizer import UNKNOWN_ID

MODELS = Path(__file__).resolve().parents[2] / "models"
GREY = 128
TAKEN = 0.2
"""Share of the pixels, or of the words, that is taken away."""
PATCH = 8
"""Side of what is taken away of a picture together: single pixels out of place are a noise that costs any network."""
DRAWS = 5

Array = NDArray[Any]


@dataclass(frozen=True)
class Shipped:
    session: Session
    contract: Contract
    rows: list[Array]
    """Golden examples as they stand on the wire, a batch of one each."""

    def explained(self, row: Array) -> dict[str, Array]:
        assert self.contract.explain is not None
        return self.session.call(self.contract.explain, {self.contract.input.name: row})

    def log_odds(self, row: Array, label: int) -> float:
        answer = self.session.call(SERVING, {self.contract.input.name: row})[self.contract.output.name]
        probability = float(np.clip(answer[0, label], 1e-7, 1 - 1e-7))
        return float(np.log(probability / (1 - probability)))

    def cost(self, row: Array, ranking: Array, label: int) -> float:
        """What it costs the label to take the highest of a ranking away, of pictures the highest patches."""
        if self.contract.kind == "image":
            height, width = ranking.shape
            patches = ranking.reshape(height // PATCH, PATCH, width // PATCH, PATCH).sum(axis=(1, 3))
            ranking = np.kron(patches, np.ones((PATCH, PATCH)))
        taken = ranking >= np.quantile(ranking, 1 - TAKEN)
        nothing = GREY if self.contract.kind == "image" else UNKNOWN_ID
        less = row.copy()
        less[0][taken] = nothing
        return self.log_odds(row, label) - self.log_odds(less, label)


@pytest.fixture(scope="module", params=["cnn/2", "lstm/2"])
def shipped(request: pytest.FixtureRequest) -> Iterator[Shipped]:
    with Session(MODELS / request.param) as session:
        contract = session.contract()
        preprocessor = preprocessor_for(contract.input)
        rows = [preprocessor.collate([preprocessor.prepare(example.raw)]) for example in contract.golden.examples]
        yield Shipped(session, contract, rows)


def test_attributions_add_up_to_the_score(shipped: Shipped) -> None:
    answers = [shipped.explained(row) for row in shipped.rows]
    errors = [abs(float(answer[ATTRIBUTION].sum() - answer[SCORE][0])) for answer in answers]
    scores = [abs(float(answer[SCORE][0])) for answer in answers]
    assert np.mean(scores) > 1
    assert np.mean(errors) < 0.05 * np.mean(scores)


def test_taking_away_what_is_named_costs_more_than_taking_away_as_much_by_chance(shipped: Shipped) -> None:
    chance = np.random.default_rng(1)
    named, by_chance = [], []
    for row in shipped.rows:
        answer = shipped.explained(row)
        attribution, label = answer[ATTRIBUTION][0], int(answer[LABEL][0])
        named.append(shipped.cost(row, attribution, label))
        by_chance += [shipped.cost(row, chance.random(attribution.shape), label) for _ in range(DRAWS)]
    assert np.mean(named) > 1
    assert np.mean(named) > 2 * np.mean(by_chance)

"""What a version is asked for its proof, and what the queue learns from that."""

import asyncio
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.metrics import Metrics
from serving.preprocessing import preprocessor_for
from serving.problems import Overloaded, TooLarge, Unprocessable
from serving.proving import Prover, Version
from serving.settings import Settings
from training.repository import contract

MODELS = Path(__file__).resolve().parents[2] / "models"
SECONDS = 0.02
"""Of a call."""


class Server:
    """Takes so long for a call, and nothing for its rows."""

    def __init__(self) -> None:
        self.seconds = SECONDS
        self.calls: list[int] = []
        self._contract = contract(MODELS / "cnn" / "1")
        self._answers = cycle(self._contract.golden.examples)

    async def contract(self, *_: Any, **__: Any) -> bytes:
        return self._contract.to_json().encode()

    async def predict(self, _: str, __: int, batch: NDArray[np.uint8], **___: Any) -> list[list[float]]:
        self.calls.append(len(batch))
        await asyncio.sleep(self.seconds)
        return [next(self._answers).probabilities for _ in batch]


async def proven(server: Server, **settings: Any) -> Version:
    model_server: Any = server
    prover = Prover("cnn", "image", server=model_server, settings=Settings(**settings), metrics=Metrics(), spans=None)
    return await prover.prove(1)


async def ask(version: Version, rows: int, *, seconds: float) -> list[Any]:
    """So many at once, each with so many seconds."""
    queue, picture = version.batcher, np.zeros((32, 32, 3), np.uint8)
    deadline = asyncio.get_running_loop().time() + seconds

    async def one() -> Any:
        return await queue.submit(picture, deadline=deadline, ahead=queue.ahead)

    return await asyncio.gather(*(one() for _ in range(rows)), return_exceptions=True)


def test_a_burst_after_light_traffic_is_not_refused_for_what_each_took_alone() -> None:
    async def scenario() -> None:
        server = Server()
        version = await proven(server)
        for _ in range(20):
            await ask(version, 1, seconds=10)
        answers = await ask(version, 400, seconds=4)  # one by one they would take 8 s
        assert not [answer for answer in answers if isinstance(answer, Exception)]

    asyncio.run(scenario())


def test_a_burst_is_refused_once_full_batches_take_too_long() -> None:
    async def scenario() -> None:
        server = Server()
        version = await proven(server)
        server.seconds = 0.2
        for _ in range(10):
            await ask(version, 64, seconds=10)
        answers = await ask(version, 400, seconds=0.7)
        refused = [answer for answer in answers if isinstance(answer, Overloaded)]
        assert 100 < len(refused) < 400

    asyncio.run(scenario())


@pytest.mark.parametrize(("size", "calls"), [(1, 15), (4, 4), (15, 1), (64, 1)])
def test_every_golden_example_is_asked_for_in_full_batches(size: int, calls: int) -> None:
    async def scenario() -> None:
        server = Server()
        await proven(server, max_batch_size=size)
        assert server.calls == [size] * calls

    asyncio.run(scenario())


def test_limits_of_what_clients_may_send_do_not_refuse_a_version() -> None:
    async def scenario() -> None:
        server = Server()
        version = await proven(server, max_pixels=100)
        with pytest.raises(TooLarge):
            version.preprocessor.prepare(version.contract.golden.examples[0].raw)

    asyncio.run(scenario())


def test_nor_does_the_limit_of_texts() -> None:
    spec = contract(MODELS / "lstm" / "1").input
    text = " ".join(["word"] * 20)
    with pytest.raises(Unprocessable):
        preprocessor_for(spec, max_characters=50).prepare(text)
    assert len(preprocessor_for(spec, max_characters=50).without_limits().prepare(text)) == 20

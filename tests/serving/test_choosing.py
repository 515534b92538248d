"""Labels that many ask for at once, or that the model server has no answer for: a real one does neither on demand."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.metrics import Metrics
from serving.model_server import VersionStatus
from serving.problems import Unavailable, UnknownVersion
from serving.settings import Settings
from serving.versions import Model
from training.repository import contract

CNN = Path(__file__).resolve().parents[2] / "models" / "cnn" / "1"


class Server:
    """Has version 1, which proves itself, and version 2, whose contract cannot be had before it is new."""

    def __init__(self) -> None:
        self.looks = 0
        self.resolutions = 0
        self.is_reachable = True
        self.has_new = False
        self.is_proving = asyncio.Event()
        self._contract = contract(CNN)

    async def versions(self, *_: Any, **__: Any) -> list[VersionStatus]:
        self.looks += 1
        await asyncio.sleep(0.01)
        return [VersionStatus(number, "AVAILABLE", "") for number in (1, 2)]

    async def labelled(self, _: str, label: str, **__: Any) -> int:
        self.resolutions += label != "stable"
        await asyncio.sleep(0.01)
        if not self.is_reachable:
            raise Unavailable("it is gone")
        return {"stable": 1, "canary": 1, "new": 2}[label]

    async def contract(self, _: str, version: int, **__: Any) -> bytes:
        if version == 2:
            if not self.has_new:
                raise Unavailable("it is gone")
            self.is_proving.set()
            await asyncio.sleep(0.05)
        return self._contract.to_json().encode()

    async def predict(self, _: str, __: int, batch: np.ndarray, **___: Any) -> list[list[float]]:
        answers = [example.probabilities for example in self._contract.golden.examples]
        return [answers[at % len(answers)] for at in range(len(batch))]


def with_model(use: Callable[[Model, Server], Awaitable[None]], poll_seconds: float = 60.0) -> None:
    async def run() -> None:
        server = Server()
        settings = Settings(poll_seconds=poll_seconds)
        model = Model("cnn", "image", server=server, settings=settings, metrics=Metrics())  # type: ignore[arg-type]
        await model.look()
        assert model.current is not None
        await use(model, server)

    asyncio.run(run())


def test_a_crowd_that_asks_for_a_label_has_the_server_asked_once() -> None:
    async def use(model: Model, server: Server) -> None:
        chosen = await asyncio.gather(*(model.choose(label="canary") for _ in range(50)))
        assert {version.number for version in chosen} == {1}
        assert server.resolutions == 1

    with_model(use)


def test_a_crowd_whose_question_fails_is_told_so_at_once() -> None:
    async def use(model: Model, server: Server) -> None:
        server.is_reachable = False
        answers = await asyncio.gather(*(model.choose(label="canary") for _ in range(50)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unavailable}
        assert server.resolutions == 1
        server.is_reachable = True
        assert (await model.choose(label="canary")).number == 1

    with_model(use)


def test_a_crowd_that_asks_for_a_version_that_is_not_proven_waits_for_one_look() -> None:
    async def use(model: Model, server: Server) -> None:
        before = server.looks
        for _ in range(3):
            answers = await asyncio.gather(*(model.choose(label="new") for _ in range(50)), return_exceptions=True)
            assert {type(answer) for answer in answers} == {UnknownVersion}
        assert server.looks == before + 1

    with_model(use)


def test_a_look_that_ends_with_its_client_is_made_again_by_the_next() -> None:
    async def use(model: Model, server: Server) -> None:
        async def choose() -> int:
            return (await model.choose(label="new")).number

        server.has_new, server.is_proving = True, asyncio.Event()
        impatient = asyncio.create_task(choose())
        others = [asyncio.create_task(choose()) for _ in range(2)]
        await server.is_proving.wait()
        impatient.cancel()
        assert await asyncio.gather(*others) == [2, 2]

    with_model(use)


def test_a_label_goes_on_naming_its_version_while_the_server_does_not_say_what_it_names() -> None:
    async def use(model: Model, server: Server) -> None:
        assert (await model.choose(label="canary")).number == 1
        server.is_reachable = False
        await asyncio.sleep(0.02)
        assert (await model.choose(label="canary")).number == 1
        canary = await model.labelled("canary")
        assert canary is not None
        assert server.resolutions > 1
        with pytest.raises(Unavailable):
            await model.choose(label="new")

    with_model(use, poll_seconds=0.01)

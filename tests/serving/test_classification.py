"""One model's items, from what came to what is answered."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from serving.batching import Batcher, Row
from serving.classification import Classifier, Wanted
from serving.decoding import Decoders
from serving.metrics import Metrics
from serving.proving import Version
from serving.ranking import Ranking
from serving.turns import Turns
from tests.serving.plain_requests import Named


class Slow:
    """Stands for a preprocessor that needs a thread, and a while."""

    def prepare_quickly(self, _: bytes) -> None: ...

    def prepare(self, _: bytes) -> Row:
        time.sleep(0.05)
        return np.zeros((1, 1, 3), np.uint8)

    def remarks(self, *_: object) -> dict[str, Any]:
        return {}


class Labels:
    """Stands for a contract."""

    labels = ("a", "b")


class OneVersion:
    """Stands for traffic of which all goes to one version."""

    def __init__(self, version: Version) -> None:
        self._version = version

    async def choose(self, _: str | None) -> Version:
        return self._version

    def cast_shadow(self, *_: object, **__: object) -> None: ...


def test_what_is_prepared_while_all_threads_are_busy_goes_on_together_and_the_last_one_waits_for_nobody() -> None:
    async def scenario() -> None:
        calls: list[int] = []

        async def predict(rows: Sequence[Row], *_: object) -> Sequence[Ranking]:
            calls.append(len(rows))
            return [Ranking([0.5, 0.5]) for _ in rows]

        metrics = Metrics()
        batcher = Batcher(predict, model="cnn", max_batch_size=64, max_queue=64, metrics=metrics)
        stands: Any = None
        version = Version(1, cast("Any", Labels()), cast("Any", Slow()), batcher, stands, stands, b"")
        decoders = Decoders(1)
        classifier = Classifier(
            cast("Any", Named("cnn")),
            traffic=cast("Any", OneVersion(version)),
            decoders=decoders,
            turns=Turns(),
            metrics=metrics,
        )
        deadline = asyncio.get_running_loop().time() + 60
        await classifier.classify([b"one"], deadline=deadline, wanted=Wanted(1))
        assert calls == [1]
        await classifier.classify([b"one"] * 4, deadline=deadline, wanted=Wanted(1))
        assert sum(calls[1:]) == 4
        assert len(calls[1:]) < 4
        assert batcher.coming == 0
        decoders.close()

    asyncio.run(scenario())

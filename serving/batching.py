"""Concurrent requests coalesced into one call, without a timer.

While nothing is in flight a row goes out at once; what arrives meanwhile is the next batch. So a lone request never
waits for company, and the busier the service, the larger the batches.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from serving.metrics import Metrics
from serving.model_server import Refused
from serving.problems import Overloaded, Unavailable
from serving.tracing import TRACEPARENT

Row = NDArray[np.uint8] | NDArray[np.int32]
Predict = Callable[[Sequence[Row], float, str | None], Awaitable[NDArray[np.float32]]]
"""(n rows, timeout in seconds, traceparent) → float32 [n, labels]."""

MAX_IN_FLIGHT = 2
"""Calls to the model server at once: one computes while the next one's bytes travel."""


@dataclass
class _Waiting:
    row: Row
    deadline: float
    answer: asyncio.Future[NDArray[np.float32]]
    since: float = field(default_factory=perf_counter)
    traceparent: str | None = field(default_factory=TRACEPARENT.get)


class Batcher:
    """The queue before one version of one model."""

    def __init__(self, predict: Predict, *, model: str, max_batch_size: int, max_queue: int, metrics: Metrics) -> None:
        self._predict = predict
        self._model = model
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._metrics = metrics
        self._queue: deque[_Waiting] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._dispatch_is_due = False

    async def submit(self, row: Row, *, deadline: float) -> NDArray[np.float32]:
        """One row → its probabilities, float32 [labels].

        Args:
            row: as the preprocessor prepared it.
            deadline: by the event loop's clock; the caller gives up then, and so does the call to the model server.

        Raises:
            Overloaded: the queue is full.
            Problem: what the call to the model server raised.
        """
        if len(self._queue) >= self._max_queue:
            self._metrics.shed.labels(self._model).inc()
            raise Overloaded(f"{self._max_queue:,} items wait for {self._model} already.", retry_after=1)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(row, deadline, loop.create_future())
        self._queue.append(waiting)
        if not self._dispatch_is_due:
            # not at once: whatever else is ready in this turn of the loop comes along
            self._dispatch_is_due = True
            loop.call_soon(self._dispatch)
        return await waiting.answer

    def _dispatch(self) -> None:
        self._dispatch_is_due = False
        while len(self._in_flight) < MAX_IN_FLIGHT and (batch := self._next_batch()):
            task = asyncio.create_task(self._run(batch))
            self._in_flight.add(task)
            task.add_done_callback(self._landed)

    def _next_batch(self) -> list[_Waiting]:
        now = asyncio.get_running_loop().time()
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._max_batch_size:
            waiting = self._queue.popleft()
            # whoever gave up, or is about to, costs the model server nothing
            if not waiting.answer.done() and waiting.deadline > now:
                batch.append(waiting)
        return batch

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._dispatch()

    async def _run(self, batch: list[_Waiting]) -> None:
        sent = perf_counter()
        for waiting in batch:
            self._metrics.stage_seconds.labels(self._model, "queue").observe(sent - waiting.since)
        self._metrics.batch_rows.labels(self._model).observe(len(batch))
        timeout = max(waiting.deadline for waiting in batch) - asyncio.get_running_loop().time()
        # a call has one parent: of many requests in a batch it is the first that came with one
        traceparent = next((waiting.traceparent for waiting in batch if waiting.traceparent), None)
        try:
            with self._metrics.stage(self._model, "predict"):
                answers = await self._predict([waiting.row for waiting in batch], timeout, traceparent)
        except Refused as refused:
            self._fail(batch, Unavailable(f"{self._model} could not answer: {refused}.", retry_after=1))
            return
        except asyncio.CancelledError:
            self._fail(batch, Unavailable(f"{self._model} is being closed.", retry_after=1))
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to those who wait for it
            self._fail(batch, error)
            return
        for waiting, answer in zip(batch, answers, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)

    @staticmethod
    def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)

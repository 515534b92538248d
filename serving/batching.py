"""Concurrent requests coalesced into one call.

While nothing is in flight a row goes out at once; what arrives meanwhile is the next batch. So the busier the service,
the larger the batches. Texts of like length go together: a batch costs as much as its longest row for each of its rows.

What a call costs by itself, and what a row adds, is learned from the calls, and two things follow from it. A further
call goes out beside others only when its rows outweigh what it costs by itself: an LSTM takes as long for one text as
for eight, so that eight in one call are better than four and four. And whoever was answered together often asks again
together: for a moment, worth less than a call, the next batch waits for as many. One client that asks time after time
never waits. Large pictures are decoded one by one, and would go out so while others keep all processors busy: whoever
submits such a row says how long it may wait for those.
"""

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.metrics import Metrics
from serving.model_server import Refused
from serving.pace import HEADROOM, CallCost, Pace
from serving.problems import DeadlineExceeded, Overloaded, Unavailable
from serving.tracing import TRACEPARENT

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from opentelemetry.trace import Span

    from serving.spans import Spans

Row = NDArray[np.uint8] | NDArray[np.int32]
Answer = TypeVar("Answer")
Call = Callable[[Sequence[Row], float, str | None], Awaitable[Iterable[Answer]]]
"""(n rows, timeout in seconds, traceparent) → n answers."""
Stages = dict[str, float]
"""Seconds that a request spent in each stage; of many items at once the longest."""

MAX_IN_FLIGHT = 2
"""Calls to the model server at once: one computes while the next one's bytes travel."""
SHARE_FOR_COMPANY = 0.5
"""Of what a call costs by itself: for so long the next batch waits for those who were just answered …"""
SECONDS_FOR_COMPANY = 0.01
"""… and no longer than this. Who has not asked again by then is not about to."""
MOST_PATIENCE = 0.5
"""Of the time that a row can spare before its call."""
TICK = 0.001
"""Of the event loop's clock: an alarm that is nearer rings at once, again and again."""
FULL = 0.5
"""Of the largest batch, rows of a call that tells how fast it goes when many wait."""
OVERDUE = 2.0
"""A call that takes so many times what was foretold holds nobody up any more: the next may meet a livelier server."""


def spent(stages: Stages, stage: str, seconds: float) -> None:
    """Note what one item took."""
    stages[stage] = max(seconds, stages.get(stage, 0.0))


def likeness(row: Row) -> int:
    """The same for rows that may share a batch: all pictures, and texts of which none is twice as long as another."""
    return len(row).bit_length() if row.ndim == 1 else 0


@dataclass(slots=True)
class _Waiting(Generic[Answer]):
    row: Row
    deadline: float
    patient_until: float
    answer: asyncio.Future[Answer]
    stages: Stages
    is_queued: bool = True
    since: float = field(default_factory=perf_counter)
    traceparent: str | None = field(default_factory=TRACEPARENT.get)
    span: "Span | None" = None


@dataclass(frozen=True)
class _Sent:
    """A call that is under way."""

    since: float
    """By the clock of `perf_counter`."""
    overdue: float
    """When it has taken too long, by the event loop's clock."""


class Batcher(Generic[Answer]):
    """The queue before one signature of one version of one model.

    Args:
        call: what the rows are for.
        model: whose version it is.
        stage: what the call is named in the metrics.
        max_batch_size: rows in one call.
        max_queue: rows that may wait.
        max_in_flight: calls at once.
        metrics: where it is measured.
        spans: what traces it, or None.

    Attributes:
        waiting: rows that wait.
        coming: rows that threads prepare for it; counted by whoever has them prepared.
    """

    def __init__(
        self,
        call: Call[Answer],
        *,
        model: str,
        stage: Literal["predict", "explain"] = "predict",
        max_batch_size: int,
        max_queue: int,
        max_in_flight: int = MAX_IN_FLIGHT,
        metrics: Metrics,
        spans: "Spans | None" = None,
    ) -> None:
        self._call = call
        self._model = model
        self._stage = stage
        self._queue_stage = "queue" if stage == "predict" else f"{stage}_queue"
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._max_in_flight = max_in_flight
        self._metrics = metrics
        self._spans = spans
        self._queues: defaultdict[int, deque[_Waiting[Answer]]] = defaultdict(deque)
        self.waiting = 0
        self._pace = Pace()
        self._full_paces: defaultdict[int, Pace] = defaultdict(Pace)
        self._costs: defaultdict[int, CallCost] = defaultdict(CallCost)
        self._in_flight: dict[asyncio.Task[None], _Sent] = {}
        self._rows_in_flight = 0
        self._company = 0
        self._company_until = 0.0
        self.coming = 0
        self._dispatch_is_due = False
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def is_full(self) -> bool:
        """Whether no further row may wait."""
        return self.waiting >= self._max_queue

    @property
    def ahead(self) -> int:
        """Rows that wait or are under way."""
        return self.waiting + self._rows_in_flight

    async def submit(
        self,
        row: Row,
        *,
        deadline: float,
        patience: float = 0.0,
        ahead: int | None = None,
        stages: Stages | None = None,
    ) -> Answer:
        """One row → its answer.

        Args:
            row: as the preprocessor prepared it.
            deadline: by the event loop's clock; the caller gives up then, and so does the call to the model server.
            patience: seconds for which it may wait for those who are coming.
            ahead: rows of others that may come before, a request is never refused for its own; None: all that wait.
            stages: where it is noted how long the row waited, and how long its call took.

        Raises:
            Overloaded: the queue is full, or too long for the deadline.
            Problem: what the call to the model server raised.
        """
        if ahead is None and self.is_full:
            raise self._overloaded()
        if sum(map(len, self._queues.values())) >= 2 * self._max_queue:
            self._forget_those_who_gave_up()
        self.check(deadline, ahead=ahead or 0)
        loop = asyncio.get_running_loop()
        now = loop.time()
        spare = deadline - now - HEADROOM * self._pace.foretell(1)
        patient_until = now + min(patience, MOST_PATIENCE * spare)
        waiting: _Waiting[Answer] = _Waiting(
            row, deadline, patient_until, loop.create_future(), {} if stages is None else stages
        )
        if self._spans is not None:
            waiting.span = self._spans.current()
        self._queues[likeness(row)].append(waiting)
        self.waiting += 1
        if not self._dispatch_is_due:
            # not at once: whatever else is ready in this turn of the loop comes along
            self._dispatch_is_due = True
            loop.call_soon(self._dispatch)
        try:
            return await waiting.answer
        finally:
            self._leave(waiting)

    def check(self, deadline: float, *, ahead: int, seconds_before: float = 0.0) -> None:
        """Refuse what would find no room, or be answered too late; what is late already is not refused.

        Args:
            deadline: by the event loop's clock.
            ahead: rows of others that may come before; those that were answered meanwhile do not count.
            seconds_before: until its row comes here.

        Raises:
            Overloaded: the queue is full, or there would be no answer before the deadline.
        """
        others = min(ahead, self.waiting)
        if others >= self._max_queue:
            raise self._overloaded()
        if not others:
            return
        seconds = deadline - asyncio.get_running_loop().time()
        ahead = min(ahead, self.ahead)
        # nearly always this is enough to know; it is no less than what is foretold
        if seconds - seconds_before >= HEADROOM * self._pace.foretell(ahead + self._max_batch_size):
            return
        if seconds > 0 and seconds - seconds_before < HEADROOM * self._foretell(ahead):
            raise self._overloaded()

    def foretell(self, to_come: int) -> float:
        """Seconds until who comes after so many more is answered; 0 while nobody waits."""
        return self._foretell(self.ahead + to_come) if self.waiting else 0.0

    def learn_full(self, rows: Sequence[Row], seconds: float) -> None:
        """A call of so many rows took so long before there were any requests, and by itself."""
        self._full_paces[max(map(likeness, rows))].learn(len(rows), seconds)

    def _foretell(self, ahead: int) -> float:
        """Seconds until who comes after so many rows is answered.

        Where a call may be beside another, it ends when as many rows as its own were answered, too. After light traffic
        a row seems to cost as much as a call: it never takes longer than full batches did, of the slowest likeness.
        """
        along = min(ahead + 1, self._max_batch_size) if self._max_in_flight > 1 else 1
        rows = ahead + along
        in_full = math.ceil(rows / self._max_batch_size) * self._max_batch_size
        slowest = max((pace.foretell(in_full) for pace in self._full_paces.values()), default=math.inf)
        return min(self._pace.foretell(rows), slowest)

    def _overloaded(self) -> Overloaded:
        wait = math.ceil(self._foretell(self.ahead))
        return Overloaded(f"{self.waiting:,} items wait for {self._model} already.", retry_after=max(1, wait))

    def _leave(self, waiting: _Waiting[Answer]) -> None:
        """Count no more among those who wait: it is answered, under way, or given up."""
        if waiting.is_queued:
            waiting.is_queued = False
            self.waiting -= 1

    def _forget_those_who_gave_up(self) -> None:
        """While calls hang, whoever gave up would be held on to."""
        for likeness, queue in self._queues.items():
            self._queues[likeness] = deque(waiting for waiting in queue if waiting.is_queued)

    def _dispatch(self) -> None:
        self._dispatch_is_due = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        loop = asyncio.get_running_loop()
        while self.waiting and len(self._in_flight) < self._max_in_flight and (queues := self._by_age()):
            now = loop.time()
            not_before = {likeness: self._not_before(likeness) for likeness in queues}
            likeness = next((likeness for likeness in queues if not_before[likeness] <= now), None)
            if likeness is None:
                self._alarm = loop.call_at(max(min(not_before.values()), now + TICK), self._dispatch)
                return
            if batch := self._next_batch(likeness, now):
                task = asyncio.create_task(self._run(batch, likeness))
                self._in_flight[task] = _Sent(
                    perf_counter(), now + OVERDUE * self._costs[likeness].foretell(len(batch))
                )
                self._rows_in_flight += len(batch)
                task.add_done_callback(partial(self._landed, likeness, len(batch)))

    def _by_age(self) -> list[int]:
        """The likenesses of those who wait, whoever has waited longest first."""
        waiting = [likeness for likeness, queue in self._queues.items() if queue]
        return sorted(waiting, key=lambda likeness: self._queues[likeness][0].since)

    def _not_before(self, likeness: int) -> float:
        """When a call for these goes out if nobody else comes, by the event loop's clock."""
        queue = islice(self._queues[likeness], self._max_batch_size)
        batch = [waiting for waiting in queue if not waiting.answer.done()]
        rows = len(batch)
        cost = self._costs[likeness]
        if not rows or rows == self._max_batch_size:
            return 0.0
        if self._in_flight:
            sent = self._in_flight.values()
            # nobody is overtaken twice: where others never stop coming, that would go on for ever
            is_overtaken = all(call.since > batch[0].since for call in sent)
            is_worth_it = rows * cost.per_row >= cost.fixed
            until = 0.0 if is_worth_it or is_overtaken else max(call.overdue for call in sent)
        else:
            until = 0.0 if self.waiting >= self._company else self._company_until
        until = max(until, min([waiting.patient_until for waiting in batch]))
        # nobody waits for company until it is too late
        return min(until, min([waiting.deadline for waiting in batch]) - HEADROOM * cost.foretell(rows))

    def _next_batch(self, likeness: int, now: float) -> list[_Waiting[Answer]]:
        """Those who are alike and have waited longest. Empty: all of them gave up."""
        queue = self._queues[likeness]
        batch: list[_Waiting[Answer]] = []
        while queue and len(batch) < self._max_batch_size:
            waiting = queue.popleft()
            self._leave(waiting)
            # whoever gave up, or is about to, costs the model server nothing
            if not waiting.answer.done() and waiting.deadline > now:
                batch.append(waiting)
        return batch

    def _landed(self, likeness: int, rows: int, task: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        self._rows_in_flight -= rows
        patience = min(SHARE_FOR_COMPANY * self._costs[likeness].fixed, SECONDS_FOR_COMPANY)
        self._company_until = asyncio.get_running_loop().time() + patience
        self._dispatch()

    async def _run(self, batch: list[_Waiting[Answer]], likeness: int) -> None:
        sent = perf_counter()
        queue_seconds = self._metrics.stage_seconds(self._model, self._queue_stage)
        for waiting in batch:
            queue_seconds.observe(sent - waiting.since)
            spent(waiting.stages, self._queue_stage, sent - waiting.since)
            if self._spans is not None:
                self._spans.stage(self._queue_stage, sent - waiting.since, within=waiting.span)
        self._metrics.batch_rows(self._model).observe(len(batch))
        timeout = max([waiting.deadline for waiting in batch]) - asyncio.get_running_loop().time()
        # a call has one parent: of many requests in a batch it is the first that came with one
        traceparent = next((waiting.traceparent for waiting in batch if waiting.traceparent), None)
        try:
            with self._metrics.stage_seconds(self._model, self._stage).time():
                rows = [waiting.row for waiting in batch]
                if self._spans is None:
                    answers = await self._call(rows, timeout, traceparent)
                else:
                    requests = [waiting.span for waiting in batch]
                    with self._spans.call(self._stage, self._model, requests) as traceparent:
                        answers = await self._call(rows, timeout, traceparent)
        except Refused as refused:
            self._fail(batch, Unavailable(f"{self._model} could not answer: {refused}.", retry_after=1))
            return
        except DeadlineExceeded as late:
            self._learn(len(batch), likeness, perf_counter() - sent, was_given_up=True)
            self._fail(batch, late)
            return
        except asyncio.CancelledError:
            self._fail(batch, Unavailable(f"{self._model} is being closed.", retry_after=1))
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to those who wait for it
            self._fail(batch, error)
            return
        seconds = perf_counter() - sent
        # before they know: who asks again is to be waited for, and does not wait already
        self._company = min(len(batch) + self.waiting, self._max_batch_size)
        for waiting, answer in zip(batch, answers, strict=True):
            spent(waiting.stages, self._stage, seconds)
            if not waiting.answer.done():
                waiting.answer.set_result(answer)
        asyncio.get_running_loop().call_soon(self._learn, len(batch), likeness, seconds)

    def _learn(self, rows: int, likeness: int, seconds: float, *, was_given_up: bool = False) -> None:
        """A call took so long. One that was given up would have taken longer: it tells nothing but of slowness."""
        cost, units = self._costs[likeness], rows * len(self._in_flight)
        if not was_given_up or seconds > cost.foretell(rows):
            cost.learn(rows, seconds)
        paces = [self._pace]
        if rows >= FULL * self._max_batch_size:
            paces.append(self._full_paces[likeness])
        for pace in paces:
            if not was_given_up or seconds > pace.foretell(units):
                pace.learn(units, seconds)

    @staticmethod
    def _fail(batch: Sequence[_Waiting[Answer]], error: Exception) -> None:
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)

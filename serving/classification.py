"""From raw inputs to answers: a version is chosen, prepares, predicts, and its probabilities become labels."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from serving.batching import Row, Stages, spent
from serving.decoding import Decoders
from serving.explanation import Explanation, overlay
from serving.metrics import Metrics
from serving.problems import BadRequest, Overloaded, Problem, TooLarge, Unavailable, UnknownVersion
from serving.proving import Version
from serving.traffic import Traffic
from serving.turns import Turns
from serving.versions import Model

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from serving.spans import Spans

MAX_TAKEOVERS = 3
PATIENCE = 1.5
"""Times what it took to prepare a row, it waits for those that keep all threads busy, to share a call with them: each
thread brings one in that time, and calls of their own would only take processors from the others."""
MAX_EXPLAINED = 16
"""Items of one request that are explained: each costs about as much as a hundred that are not."""

Outcome = dict[str, Any] | Problem
"""One item's answer, or why there is none."""


class Classification(NamedTuple):
    """The items' outcomes, in their order, and the version that answered them all."""

    version: Version
    outcomes: list[Outcome]
    stages: Stages


class Ahead(NamedTuple):
    """Items of others that may come before a request's own: it never waits for itself.

    Attributes:
        decode: on the threads.
        predict: in the queue of its version.
        explain: in the queue of its version's explanations.
    """

    decode: int
    predict: int
    explain: int


class Forecast(NamedTuple):
    """What an item has to wait for.

    Attributes:
        turn: seconds until its turn.
        queue: seconds from then until its answer; 0 where nobody waits for that, or where it is not known.
        is_full: whether there is no room for it.
    """

    turn: float
    queue: float
    is_full: bool


class Wanted(NamedTuple):
    """What an answer tells.

    Attributes:
        top_k: how many labels it names.
        explain: whether it says what it rests on.
        overlay: whether it shows that as a picture, too; for pictures only.
    """

    top_k: int
    explain: bool = False
    overlay: bool = False


class Classifier:
    """Classifies with one model.

    Args:
        model: whose versions answer.
        traffic: which of them answers whoever names none.
        decoders: where large inputs are prepared.
        turns: who works on the event loop next.
        metrics: where the stages are measured.
        spans: what traces them, or None.
    """

    def __init__(
        self,
        model: Model,
        *,
        traffic: Traffic,
        decoders: Decoders,
        turns: Turns,
        metrics: Metrics,
        spans: "Spans | None" = None,
    ) -> None:
        self.model = model
        self._traffic = traffic
        self._decoders = decoders
        self._turns = turns
        self._metrics = metrics
        self._spans = spans

    def encoding(self) -> AbstractContextManager[None]:
        """Measures how long an answer takes to be written."""
        return self._metrics.stage_seconds(self.model.name, "encode").time()

    def foretell(self, version: int | None, to_come: int) -> Forecast:
        """What a small item has to wait for that comes after so many others.

        Args:
            version: the version that must answer, or None.
            to_come: items that were let in and do not wait anywhere yet.
        """
        turn = self._turns.foretell(to_come)
        expected = self._traffic.expect(version)
        if expected is None:
            return Forecast(turn, 0.0, is_full=False)
        return Forecast(turn, expected.batcher.foretell(to_come), is_full=expected.batcher.is_full)

    @property
    def queued(self) -> int:
        """Items that wait for the model server."""
        return sum([version.batcher.waiting for version in self.model.proven.values()])

    def check(self, deadline: float, *, is_large_picture: bool) -> None:
        """Refuse a request before its body is read: under load even that, in vain, costs the others.

        Args:
            deadline: by the event loop's clock.
            is_large_picture: whether a thread will decode it.

        Raises:
            Overloaded: so much waits already that there would be no answer before the deadline.
        """
        try:
            self._turns.check(deadline)
            if is_large_picture:
                self._decoders.check(deadline=deadline, ahead=self._decoders.waiting)
        except Overloaded:
            self._metrics.shed(self.model.name).inc()
            raise

    async def classify(
        self,
        items: Sequence[bytes | str],
        *,
        deadline: float,
        wanted: Wanted,
        version: int | None = None,
        label: str | None = None,
        session: str | None = None,
    ) -> Classification:
        """Raw items (encoded pictures or texts) → their outcomes.

        Args:
            items: what the client sent.
            deadline: by the event loop's clock.
            wanted: what the answers tell.
            version: the version that must answer, or None.
            label: the version label that must answer, or None.
            session: whose requests go to one version while that is shared out by chance, or None.

        Raises:
            Problem: what concerns all items alike, such as an unknown version. What concerns one is its outcome.
        """
        if wanted.explain and len(items) > MAX_EXPLAINED:
            raise TooLarge(f"At most {MAX_EXPLAINED} items of one request are explained. Send fewer at a time.")
        is_free = version is None and label is None
        try:
            chosen = await (self._traffic.choose(session) if is_free else self.model.choose(version, label))
            for _ in range(MAX_TAKEOVERS):
                try:
                    classification = await self._classify_all(chosen, items, deadline, wanted)
                except UnknownVersion:
                    if version is not None:
                        raise
                    if label is not None:
                        chosen = await self.model.choose(label=label, anew=True)
                        continue
                    # unloaded between the choice and the call: whoever named no version gets the one that took over
                    chosen = await self.model.replace(chosen)
                else:
                    if is_free:
                        self._cast_shadow(classification, items)
                    return classification
        except Overloaded:
            self._metrics.shed(self.model.name).inc(len(items))
            raise
        raise Unavailable(f"The versions of {self.model.name} change too fast.", retry_after=1)

    def _cast_shadow(self, classification: Classification, items: Sequence[bytes | str]) -> None:
        async def classify(shadow: Version, deadline: float) -> Sequence[Outcome]:
            return (await self._classify_all(shadow, items, deadline, Wanted(top_k=1))).outcomes

        is_busy = self._turns.waiting > 0 or self._decoders.is_busy
        self._traffic.cast_shadow(classification.version, classification.outcomes, items, classify, is_busy=is_busy)

    async def _classify_all(
        self, version: Version, items: Sequence[bytes | str], deadline: float, wanted: Wanted
    ) -> Classification:
        if wanted.explain and version.explainer is None:
            raise BadRequest(f"Version {version.number} of {self.model.name} gives no explanations.")
        turn = self._turns.foretell()
        predict, explain = version.batcher.ahead, version.explainer.ahead if version.explainer else 0
        version.batcher.check(deadline, ahead=predict, seconds_before=turn)
        if wanted.explain and version.explainer is not None:
            version.explainer.check(deadline, ahead=explain, seconds_before=turn)
        # those who wait for their turn, or for a thread, go on to the queue
        to_come = self._turns.waiting + self._decoders.waiting
        ahead = Ahead(self._decoders.waiting, predict + to_come, explain + to_come)
        stages: Stages = {}
        classify = partial(self._classify_one, version, deadline=deadline, wanted=wanted, stages=stages, ahead=ahead)
        if len(items) == 1:
            return Classification(version, [await classify(items[0])], stages)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(classify(item)) for item in items]
        except ExceptionGroup as errors:
            # what is raised and not returned concerns all items alike: the first says it
            raise errors.exceptions[0] from None
        return Classification(version, [task.result() for task in tasks], stages)

    async def _classify_one(
        self, version: Version, raw: bytes | str, *, deadline: float, wanted: Wanted, stages: Stages, ahead: Ahead
    ) -> Outcome:
        if not self._turns.has_come():
            await self._wait_for_turn(stages)
            # meanwhile more may wait there than when the request came
            version.batcher.check(deadline, ahead=ahead.predict)
        start = perf_counter()
        trouble: Problem | None = None
        patience = 0.0
        try:
            # a small input costs less here than the way to a thread would; a large one would hold up everybody else
            row = version.preprocessor.prepare_quickly(raw)
            if row is None:
                row, remarks, patience = await self._prepare_in_thread(version, raw, deadline, ahead.decode)
            else:
                remarks = version.preprocessor.remarks(raw, row)
        except Problem as problem:
            trouble = problem
            if isinstance(problem, Overloaded):
                raise
            # as an outcome it comes from nowhere: its frames would hold the item, and itself
            return problem.with_traceback(None)
        finally:
            seconds = perf_counter() - start
            self._metrics.stage_seconds(self.model.name, "decode").observe(seconds)
            spent(stages, "decode", seconds)
            if self._spans is not None:
                self._spans.stage("decode", seconds, within=self._spans.current(), error=trouble)
        ranking = await version.batcher.submit(
            row, deadline=deadline, patience=patience, ahead=ahead.predict, stages=stages
        )
        if not ranking.is_finite:
            return Unavailable(f"{self.model.name} has no answer to this: its probabilities are not numbers.")
        answer = _answer(version.contract.labels, ranking.best(wanted.top_k)) | remarks
        self._metrics.predicted(self.model.name, version.number, answer["label"], answer["score"])
        if not wanted.explain or version.explainer is None:
            return answer
        explanation = await version.explainer.submit(row, deadline=deadline, ahead=ahead.explain, stages=stages)
        if not explanation.is_finite:
            return Unavailable(f"{self.model.name} cannot explain this: its attributions are not numbers.")
        return answer | {"explanation": await self._tell(explanation, version, raw, deadline, wanted)}

    async def _wait_for_turn(self, stages: Stages) -> None:
        waited = await self._turns.take()
        self._metrics.stage_seconds(self.model.name, "turn").observe(waited)
        spent(stages, "turn", waited)
        if self._spans is not None:
            self._spans.stage("turn", waited, within=self._spans.current())

    async def _tell(
        self, explanation: Explanation, version: Version, raw: bytes | str, deadline: float, wanted: Wanted
    ) -> dict[str, Any]:
        """An explanation as JSON. It tells of the raw input, and takes long."""

        def tell() -> dict[str, Any]:
            told = version.preprocessor.explain(raw, explanation.attribution)
            return told | ({"overlay": overlay(explanation.attribution)} if wanted.overlay else {})

        told = await self._decoders.run(tell, deadline=deadline, ahead=0)
        label = version.contract.labels[explanation.label]
        return {"label": label, "score": round(explanation.score, 6), **told}

    async def _prepare_in_thread(
        self, version: Version, raw: bytes | str, deadline: float, ahead: int
    ) -> tuple[Row, dict[str, Any], float]:
        """A raw item → its row, what is remarked on it, and the seconds for which it may wait for others."""
        preprocessor, batcher = version.preprocessor, version.batcher

        def prepare() -> tuple[Row, dict[str, Any], float]:
            start = perf_counter()
            row = preprocessor.prepare(raw)
            return row, preprocessor.remarks(raw, row), perf_counter() - start

        # meanwhile, while it waited for its turn, those before it may have been done
        ahead = min(ahead, self._decoders.waiting)
        batcher.coming += 1
        try:
            row, remarks, seconds = await self._decoders.run(prepare, deadline=deadline, ahead=ahead)
        finally:
            batcher.coming -= 1
        return row, remarks, PATIENCE * seconds if batcher.coming >= self._decoders.threads else 0.0


def _answer(labels: Sequence[str], best: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """The best labels and their probabilities → the answer's JSON."""
    predictions = [{"label": labels[index], "score": round(probability, 6)} for index, probability in best]
    return {**predictions[0], "predictions": predictions}

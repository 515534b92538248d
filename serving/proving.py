"""A version's proof: its own golden examples, through this gateway and that server, before it takes traffic."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ValidationError

from serving.batching import Batcher, Row
from serving.contract import Contract
from serving.drift import Drift
from serving.explanation import Explanation
from serving.golden import Unproven, compare_golden_answers, compare_golden_explanation, prepare_golden_examples
from serving.metrics import Metrics
from serving.model_server import ModelServer, Refused
from serving.preprocessing import Preprocessor, preprocessor_for
from serving.ranking import Ranking
from serving.settings import Settings

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from serving.spans import Spans

PROOF_SECONDS = 60.0
"""A version's very first call may compile, or wait for a GPU."""
MAX_EXPLAINED_AT_ONCE = 4
"""Rows in one call for explanations. Each costs about as much as a hundred classifications, whatever its company: a
larger batch would only make the first wait for the last."""


@dataclass(frozen=True)
class Version:
    """A version that proved itself: everything that a request needs to be answered by it."""

    number: int
    contract: Contract
    preprocessor: Preprocessor
    batcher: Batcher[Ranking]
    explainer: Batcher[Explanation] | None
    """None: its contract names no signature for it."""
    drift: Drift
    told: bytes
    """Its contract as the server told it: another one under the same number is another version."""


class Prover:
    """Makes versions of one model that proved themselves.

    Args:
        name: the model's.
        kind: what its contracts must be for.
        server: who has the versions.
        settings: limits of inputs and batches.
        metrics: where the versions' calls are measured.
        spans: what traces these, or None.
    """

    def __init__(
        self,
        name: str,
        kind: Literal["image", "text"],
        *,
        server: ModelServer,
        settings: Settings,
        metrics: Metrics,
        spans: "Spans | None",
    ) -> None:
        self._name = name
        self._kind = kind
        self._server = server
        self._settings = settings
        self._metrics = metrics
        self._spans = spans

    async def prove(self, number: int) -> Version:
        """Ask the server for a version's contract and for its golden examples' answers → what answers with it.

        Raises:
            Unproven: it does not do here what it did in training, or its contract cannot be used.
            Refused: the server said that it cannot do it.
            Problem: the server did not answer, which says nothing of the version.
        """
        told = await self._server.contract(self._name, number, timeout=PROOF_SECONDS)
        # a contract with a tokenizer takes a tenth of a second to read
        contract, preprocessor, rows = await asyncio.to_thread(self._prepare, told)

        async def predict(
            rows: Sequence[Row],
            timeout: float,  # noqa: ASYNC109  # gRPC's own deadline
            traceparent: str | None = None,
        ) -> list[list[float]]:
            answers = await self._server.predict(
                self._name,
                number,
                preprocessor.collate(rows),
                input_name=contract.input.name,
                output_name=contract.output.name,
                timeout=timeout,
                traceparent=traceparent,
            )
            if len(answers[0]) != len(contract.labels):
                raise Refused(f"it gives {len(answers[0])} probabilities for {len(contract.labels)} labels")
            return answers

        def tell_drift(of: str, distance: float) -> None:
            self._metrics.drift(self._name, number, of).set(distance)

        drift = Drift(contract, tell_drift, self._metrics.unwritten)

        async def answer(rows: Sequence[Row], timeout: float, traceparent: str | None) -> list[Ranking]:  # noqa: ASYNC109
            probabilities = await predict(rows, timeout, traceparent)
            drift.see_later(rows, probabilities)
            return list(map(Ranking, probabilities))

        batcher = Batcher(
            answer,
            model=self._name,
            max_batch_size=self._settings.max_batch_size,
            max_queue=self._settings.max_queue,
            metrics=self._metrics,
            spans=self._spans,
        )
        answers: list[list[float]] = []
        # the largest batch that traffic will make: the server may take fewer rows than we were told
        for batch in _full_batches(rows, self._settings.max_batch_size):
            began = perf_counter()
            answers += await predict(batch, PROOF_SECONDS)
            batcher.learn_full(batch, perf_counter() - began)
        compare_golden_answers(contract, np.array(answers[: len(rows)], np.float32))
        explainer = await self._prove_explanations(number, contract, preprocessor, rows)

        return Version(number, contract, preprocessor, batcher, explainer, drift, told)

    def _prepare(self, told: bytes) -> tuple[Contract, Preprocessor, list[Row]]:
        """A contract, its preprocessor, and its golden examples as rows."""
        try:
            contract = Contract.model_validate_json(told)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors()[:3]]
            raise Unproven(f"its contract is not one of schema 1 ({'; '.join(faults)})") from error
        if contract.kind != self._kind:
            raise Unproven(f"it is of kind {contract.kind!r}, and {self._name} is served as {self._kind!r}")
        preprocessor = preprocessor_for(
            contract.input,
            max_pixels=self._settings.max_pixels,
            max_characters=self._settings.max_text_characters,
        )
        return contract, preprocessor, prepare_golden_examples(contract, preprocessor.without_limits())

    async def _prove_explanations(
        self, number: int, contract: Contract, preprocessor: Preprocessor, rows: Sequence[Row]
    ) -> Batcher[Explanation] | None:
        signature = contract.explain
        if signature is None:
            return None

        async def explain(
            rows: Sequence[Row],
            timeout: float,  # noqa: ASYNC109  # gRPC's own deadline
            traceparent: str | None = None,
        ) -> list[Explanation]:
            explanations = await self._server.explain(
                self._name,
                number,
                preprocessor.collate(rows),
                signature=signature,
                input_name=contract.input.name,
                timeout=timeout,
                traceparent=traceparent,
            )
            if not all(0 <= explanation.label < len(contract.labels) for explanation in explanations):
                raise Refused(f"it explains another label than its {len(contract.labels)}")
            return explanations

        compare_golden_explanation(contract, *await explain(rows[:1], PROOF_SECONDS))
        return Batcher(
            explain,
            model=self._name,
            stage="explain",
            max_batch_size=min(MAX_EXPLAINED_AT_ONCE, self._settings.max_batch_size),
            max_queue=self._settings.max_queue,
            # the model server's other hands stay free for plain classifications
            max_in_flight=1,
            metrics=self._metrics,
            spans=self._spans,
        )


def _full_batches(rows: Sequence[Row], size: int) -> Iterable[list[Row]]:
    """All rows, in batches of this size; the first ones once more where the last batch would not be full."""
    again = cycle(rows)
    return (list(islice(again, size)) for _ in range(0, len(rows), size))

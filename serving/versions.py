"""A model's versions: followed while the model server loads and unloads them, proven, and chosen for a request."""

import asyncio
import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from serving.batching import Batcher, Row
from serving.contract import Contract
from serving.drift import Drift
from serving.explanation import Explanation
from serving.golden import Unproven, compare_golden_answers, compare_golden_explanation, prepare_golden_examples
from serving.metrics import Metrics
from serving.model_server import MOMENT, ModelServer, Refused, VersionStatus
from serving.preprocessing import Preprocessor, preprocessor_for
from serving.problems import DeadlineExceeded, Overloaded, Problem, Unavailable, UnknownVersion
from serving.ranking import Ranking, rank
from serving.settings import Settings

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from serving.spans import Spans

logger = logging.getLogger("sightread.versions")

PROOF_SECONDS = 60.0
"""A version's very first call may compile, or wait for a GPU."""
STATUS_SECONDS = 5.0
EAGER_POLL_SECONDS = 0.1
"""Between two looks while no version is proven: the first one should not wait for a whole poll."""
PATIENCE_SECONDS = 15.0
"""For which a start waits for a newer version that still loads, while an older one could answer."""
STABLE = "stable"
"""The label of the version that answers when a request names none."""
MAX_EXPLAINED_AT_ONCE = 4
"""Rows in one call for explanations. Each costs about as much as a hundred classifications, whatever its company: a
larger batch would only make the first wait for the last."""
MAX_LABELS = 64
"""Labels are what clients say; only so many resolutions are remembered."""


@dataclass(frozen=True)
class Resolution:
    """What a label was found to name."""

    version: int | None
    """None: nothing."""
    until: float
    """When it is asked for anew, by the event loop's clock."""
    looks: int
    """Looks for versions that had begun before."""


@dataclass(frozen=True)
class Version:
    """A version that proved itself: everything that a request needs to be answered by it."""

    number: int
    contract: Contract
    preprocessor: Preprocessor
    batcher: Batcher[Ranking]
    explainer: Batcher[Explanation] | None
    """None: its contract names no signature for it."""
    told: bytes
    """Its contract as the server told it: another one under the same number is another version."""


class Model:
    """One model behind the gateway, and which of its versions take traffic."""

    def __init__(
        self,
        name: str,
        kind: Literal["image", "text"],
        *,
        server: ModelServer,
        settings: Settings,
        metrics: Metrics,
        spans: "Spans | None" = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self._server = server
        self._settings = settings
        self._metrics = metrics
        self._spans = spans
        self._proven: dict[int, Version] = {}
        self._refused: dict[int, str] = {}
        self._delayed: dict[int, str] = {}
        self._statuses: list[VersionStatus] = []
        self._trouble: str | None = "the model server has not been asked yet"
        self._labels: dict[str, Resolution] = {}
        self._resolving: dict[str, asyncio.Task[Resolution]] = {}
        self._stable: int | None = None
        self._patient_until: float | None = None
        self._looking = asyncio.Lock()
        self._looks = 0

    @property
    def current(self) -> Version | None:
        """The version that answers when a request names none: the proven one labelled `stable`, or else the latest."""
        if self._stable in self._proven:
            return self._proven[self._stable]
        return self._proven[max(self._proven)] if self._proven else None

    @property
    def trouble(self) -> str | None:
        """Why no version takes traffic, or None while one does."""
        if self.current is not None:
            return None
        if self._trouble is not None:
            return self._trouble
        if self._refused:
            return "; ".join(f"version {number} was refused: {why}" for number, why in self._refused.items())
        if self._delayed:
            return "; ".join(
                f"version {number} could not be proven yet: {why}" for number, why in self._delayed.items()
            )
        if ended := [status for status in self._statuses if status.error]:
            return "; ".join(f"version {status.version} could not be loaded: {status.error}" for status in ended)
        return "no version is ready yet"

    def describe(self) -> dict[str, Any]:
        """The model's versions and their states, for /models and /readyz."""
        current = self.current
        return {
            "name": self.name,
            "kind": self.kind,
            "ready": current is not None,
            "serving": current.number if current else None,
            **({"reason": self.trouble} if self.trouble else {}),
            "versions": [self._describe_version(status) for status in self._statuses],
        }

    def _describe_version(self, status: VersionStatus) -> dict[str, Any]:
        if status.version in self._proven:
            return {"version": status.version, "state": "proven"}
        if status.version in self._refused:
            return {"version": status.version, "state": "refused", "reason": self._refused[status.version]}
        if status.available:
            reason = {"reason": self._delayed[status.version]} if status.version in self._delayed else {}
            return {"version": status.version, "state": "proving", **reason}
        reason = {"reason": status.error} if status.error else {}
        return {"version": status.version, "state": status.state.lower(), **reason}

    async def choose(self, version: int | None = None, label: str | None = None, *, anew: bool = False) -> Version:
        """The version that a request asks for, or the current one.

        Args:
            version: its number, or None.
            label: a version label, or None.
            anew: the label is asked for again, for the version that it named a moment ago is gone.

        Raises:
            UnknownVersion: it does not exist, or did not prove itself.
            Unavailable: none is ready.
        """
        if label is not None:
            if anew:
                self._labels.pop(label, None)
            resolution = await self._resolve(label)
            version = resolution.version
            if version is None:
                raise UnknownVersion(f"No version of {self.name} carries the label {label!r}.")
            if version not in self._proven and version not in self._refused:
                await self._look_once_after(resolution.looks)  # the label was quicker than the poll
        if version is None:
            return self.current or self._unavailable()
        if version in self._proven:
            return self._proven[version]
        if not self._proven:
            self._unavailable()
        if version in self._refused:
            raise UnknownVersion(f"Version {version} of {self.name} takes no traffic: {self._refused[version]}.")
        raise UnknownVersion(
            f"{self.name} has no version {version} in service; it has {', '.join(map(str, sorted(self._proven)))}."
        )

    async def labelled(self, label: str) -> Version | None:
        """The proven version that carries a label, or None. Nobody waits for one that is still to prove itself."""
        try:
            version = (await self._resolve(label)).version
        except Problem:
            return None
        return None if version is None else self._proven.get(version)

    def _unavailable(self) -> NoReturn:
        raise Unavailable(f"{self.name} is not ready: {self.trouble}.", retry_after=1)

    async def _resolve(self, label: str) -> Resolution:
        """What a label names. Those who ask for one at once share a question to the server, and its failure, too."""
        known = self._labels.get(label)
        if known is not None and known.until > asyncio.get_running_loop().time():
            return known
        if self.current is None:
            self._unavailable()
        asking = self._resolving.get(label)
        if asking is None:
            asking = self._resolving[label] = asyncio.create_task(self._ask_for_label(label, known))
            asking.add_done_callback(lambda _: self._resolving.pop(label))
        return await asyncio.shield(asking)

    async def _ask_for_label(self, label: str, known: Resolution | None) -> Resolution:
        try:
            version: int | None = await self._server.labelled(self.name, label, timeout=STATUS_SECONDS)
        except (Refused, UnknownVersion):
            version = None
        except Problem:  # says nothing of the label: what it named goes on answering
            if known is None or known.version is None:
                raise
            version = known.version
        until = asyncio.get_running_loop().time() + self._settings.poll_seconds
        if len(self._labels) >= MAX_LABELS:
            self._labels.clear()
        self._labels[label] = Resolution(version, until, self._looks)
        return self._labels[label]

    async def follow(self) -> NoReturn:
        """Look for new and vanished versions, for ever."""
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("following %s failed; going on", self.name)
            await asyncio.sleep(self._settings.poll_seconds if self.current else EAGER_POLL_SECONDS)

    async def look(self) -> None:
        """Ask the model server for its versions once; prove the new ones, drop the vanished."""
        async with self._looking:
            await self._look()

    async def _look_once_after(self, looks: int) -> None:
        """Look, unless a look began after so many: those who wait for the same answer share one."""
        async with self._looking:
            if self._looks == looks:
                await self._look()

    async def replace(self, gone: Version) -> Version:
        """The version that takes over from one of which the server just said that it is gone.

        Raises:
            Unavailable: none does.
        """
        async with self._looking:
            if self._proven.get(gone.number) is gone:  # nobody else has looked meanwhile
                await self._look()
        return self.current or self._unavailable()

    async def _look(self) -> None:
        self._looks += 1
        try:
            self._statuses = await self._ask()
        except UnknownVersion:
            self._statuses = []
            self._trouble = f"the model server has no model {self.name!r}"
        except (Overloaded, DeadlineExceeded):
            return  # busy: what was true at the last look still is
        except Refused as refused:
            self._lost(f"the model server's status cannot be had: {refused}")
            return
        except Problem as problem:
            self._lost(problem.detail.rstrip("."))
            return
        else:
            self._trouble = None
        available = {status.version for status in self._statuses if status.available}
        self._forget([number for number in self._proven.keys() & available if await self._is_another(number)])
        if not await self._follow_stable(available) or self._expects_newer(available):
            return
        # in this order: who asks while the new one proves itself is not told that there is none
        for number in sorted(available - self._proven.keys() - self._refused.keys(), reverse=True):
            await self._admit(number)
        self._forget([known for known in [*self._proven, *self._refused] if known not in available])
        self._delayed = {number: why for number, why in self._delayed.items() if number in available}

    async def _follow_stable(self, available: AbstractSet[int]) -> bool:
        """Let the version that is labelled `stable` answer, once it has proved itself; until then all stays as it is.

        Returns:
            whether others may be proven now: not before the first one, while the labelled one may still be loading.
        """
        try:
            number = await self._server.labelled(self.name, STABLE, timeout=STATUS_SECONDS)
        except Refused:
            self._stable = None  # there is no such label
            return True
        except UnknownVersion:
            loading = any(status.state in {"START", "LOADING"} for status in self._statuses)
            return self.current is not None or not loading
        except Problem:
            return True  # says nothing of the label
        if number in available - self._proven.keys() - self._refused.keys():
            await self._admit(number)
        if number in self._proven and number != self._stable:
            self._stable = number
            logger.info("%s: version %d is labelled %s and answers", self.name, number, STABLE)
        return True

    def _expects_newer(self, available: AbstractSet[int]) -> bool:
        """Whether a start is to wait: what answers first should be what goes on answering, if it comes soon."""
        loading = [status.version for status in self._statuses if status.state in {"START", "LOADING"}]
        if self.current is not None or not available or max(loading, default=0) < max(available):
            return False
        now = asyncio.get_running_loop().time()
        self._patient_until = self._patient_until or now + PATIENCE_SECONDS
        return now < self._patient_until

    async def _is_another(self, number: int) -> bool:
        """Whether the server has another version under a proven one's number."""
        try:
            return await self._server.contract(self.name, number, timeout=STATUS_SECONDS) != self._proven[number].told
        except Problem:
            return False  # says nothing of the version
        except Refused:
            return True

    async def _ask(self) -> list[VersionStatus]:
        try:
            return await self._server.versions(self.name, timeout=STATUS_SECONDS)
        except Unavailable:
            # one lost call may be one lost server of many
            await asyncio.sleep(MOMENT)
            return await self._server.versions(self.name, timeout=STATUS_SECONDS)

    def _lost(self, why: str) -> None:
        """Nobody answers. What comes back may be another server: everything has to prove itself again."""
        if self._trouble is None:
            logger.error("%s takes no traffic: %s", self.name, why)
        elif why != self._trouble:
            logger.info("%s waits for the model server: %s yet", self.name, why)
        self._trouble = why
        self._patient_until = None
        self._statuses = []
        self._forget([*self._proven, *self._refused])

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._refused.pop(number, None)
            if self._proven.pop(number, None):
                self._metrics.version_proven(self.name, number).set(0)
                logger.info("%s: version %d takes no more traffic: the server no longer has it", self.name, number)
            self._labels.clear()

    async def _admit(self, number: int) -> None:
        """Let a version take traffic if it proves itself."""
        start = perf_counter()
        try:
            with self._metrics.stage_seconds(self.name, "prove").time():
                version = await self._prove(number)
        except (Unavailable, Overloaded, DeadlineExceeded, UnknownVersion) as problem:
            # says nothing of the version: the next look tries again
            if self._delayed.get(number) != problem.detail:
                logger.warning("%s: version %d could not be proven yet: %s", self.name, number, problem.detail)
            self._delayed[number] = problem.detail
        except (Unproven, Refused, ValueError) as error:
            self._refused[number] = _one_line(error)
            self._delayed.pop(number, None)
            self._metrics.proof_failures(self.name, number).inc()
            self._metrics.version_proven(self.name, number).set(0)
            logger.error("%s: version %d takes no traffic: %s", self.name, number, self._refused[number])  # noqa: TRY400  # the sentence says it all
        else:
            self._proven[number] = version
            self._delayed.pop(number, None)
            self._metrics.version_proven(self.name, number).set(1)
            logger.info(
                "%s: version %d proved itself on %d golden examples in %.2f s and takes traffic",
                self.name,
                number,
                len(version.contract.golden.examples),
                perf_counter() - start,
            )

    async def _prove(self, number: int) -> Version:
        told = await self._server.contract(self.name, number, timeout=PROOF_SECONDS)
        # a contract with a tokenizer takes a tenth of a second to read
        contract, preprocessor, rows = await asyncio.to_thread(self._prepare, told)

        async def predict(
            rows: Sequence[Row],
            timeout: float,  # noqa: ASYNC109  # gRPC's own deadline
            traceparent: str | None = None,
        ) -> NDArray[np.float32]:
            answers = await self._server.predict(
                self.name,
                number,
                preprocessor.collate(rows),
                input_name=contract.input.name,
                output_name=contract.output.name,
                timeout=timeout,
                traceparent=traceparent,
            )
            if answers.shape[1] != len(contract.labels):
                raise Refused(f"it gives {answers.shape[1]} probabilities for {len(contract.labels)} labels")
            return answers

        def tell_drift(of: str, distance: float) -> None:
            self._metrics.drift(self.name, number, of).set(distance)

        drift = Drift(contract, tell_drift, self._metrics.unwritten)

        async def answer(rows: Sequence[Row], timeout: float, traceparent: str | None) -> list[Ranking]:  # noqa: ASYNC109
            probabilities = await predict(rows, timeout, traceparent)
            drift.see_later(rows, probabilities)
            return rank(probabilities)

        batcher = Batcher(
            answer,
            model=self.name,
            max_batch_size=self._settings.max_batch_size,
            max_queue=self._settings.max_queue,
            metrics=self._metrics,
            spans=self._spans,
        )
        size = self._settings.max_batch_size
        # the largest batch that traffic will make: the server may take fewer rows than we were told
        full = [rows[at % len(rows)] for at in range(max(size, len(rows)))]
        answers = [await predict(full[at : at + size], PROOF_SECONDS) for at in range(0, len(full), size)]
        compare_golden_answers(contract, np.concatenate(answers)[: len(rows)])
        explainer = await self._prove_explanations(number, contract, preprocessor, rows)

        return Version(number, contract, preprocessor, batcher, explainer, told)

    def _prepare(self, told: bytes) -> tuple[Contract, Preprocessor, list[Row]]:
        """A contract, its preprocessor, and its golden examples as rows."""
        contract = Contract.model_validate_json(told)
        if contract.kind != self.kind:
            raise Unproven(f"it is of kind {contract.kind!r}, and {self.name} is served as {self.kind!r}")
        preprocessor = preprocessor_for(
            contract.input,
            max_pixels=self._settings.max_pixels,
            max_characters=self._settings.max_text_characters,
        )
        return contract, preprocessor, prepare_golden_examples(contract, preprocessor)

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
                self.name,
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
            model=self.name,
            stage="explain",
            max_batch_size=min(MAX_EXPLAINED_AT_ONCE, self._settings.max_batch_size),
            max_queue=self._settings.max_queue,
            # the model server's other hands stay free for plain classifications
            max_in_flight=1,
            metrics=self._metrics,
            spans=self._spans,
        )


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors()[:3]]
        return f"its contract is not one of schema 1 ({'; '.join(faults)})"
    return " ".join(str(error).split())[:500]

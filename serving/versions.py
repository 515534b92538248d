"""A model's versions: followed while the model server loads and unloads them, proven, and chosen for a request."""

import asyncio
import logging
import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from serving.golden import Unproven
from serving.labels import Labels
from serving.metrics import Metrics
from serving.model_server import MOMENT, STATUS_SECONDS, ModelServer, Refused, VersionStatus
from serving.problems import DeadlineExceeded, Overloaded, Problem, Unavailable, UnknownVersion
from serving.proving import Prover, Version
from serving.settings import Settings

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from serving.spans import Spans

logger = logging.getLogger("sightread.versions")

EAGER_POLL_SECONDS = 0.1
"""Between two looks while no version is proven: the first one should not wait for a whole poll."""
PATIENCE_SECONDS = 15.0
"""For which a start waits for a newer version that still loads, while an older one could answer."""
STABLE = "stable"
"""The label of the version that answers when a request names none."""
MAX_REASON = 500
"""Characters of why a version was refused."""


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
        self._prover = Prover(name, kind, server=server, settings=settings, metrics=metrics, spans=spans)
        self.has_been_ready = False
        """Whether a version of it took traffic once."""
        self.proven: dict[int, Version] = {}
        """The versions that take traffic, by their numbers."""
        self._refused: dict[int, str] = {}
        self._delayed: dict[int, str] = {}
        self._statuses: list[VersionStatus] = []
        self._trouble: str | None = "the model server has not been asked yet"
        self._labels = Labels(name, server=server, patience=settings.poll_seconds)
        self._stable: int | None = None
        self._patient_until: float | None = None
        self._looking = asyncio.Lock()
        self._look_began = -math.inf
        """The last one that came to its end, by the clock of `perf_counter`."""

    @property
    def current(self) -> Version | None:
        """The version that answers when a request names none: the proven one labelled `stable`, or else the latest."""
        if self._stable in self.proven:
            return self.proven[self._stable]
        return self.proven[max(self.proven)] if self.proven else None

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
        if status.version in self.proven:
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
            if self.current is None:
                self._unavailable()
            if anew:
                self._labels.forget(label)
            named = await self._labels.resolve(label)
            version = named.version
            if version is None:
                raise UnknownVersion(f"No version of {self.name} carries the label {label!r}.")
            if version not in self.proven and version not in self._refused:
                await self._look_once_after(named.at)  # the label was quicker than the poll
        if version is None:
            return self.current or self._unavailable()
        if version in self.proven:
            return self.proven[version]
        if not self.proven:
            self._unavailable()
        if version in self._refused:
            raise UnknownVersion(f"Version {version} of {self.name} takes no traffic: {self._refused[version]}.")
        raise UnknownVersion(
            f"{self.name} has no version {version} in service; it has {', '.join(map(str, sorted(self.proven)))}."
        )

    async def labelled(self, label: str) -> Version | None:
        """The proven version that carries a label, or None. Nobody waits for one that is still to prove itself."""
        if self.current is None:
            return None  # a server that is gone would only be waited for
        try:
            version = (await self._labels.resolve(label)).version
        except Problem:
            return None
        return None if version is None else self.proven.get(version)

    def _unavailable(self) -> NoReturn:
        raise Unavailable(f"{self.name} is not ready: {self.trouble}.", retry_after=1)

    async def follow(self) -> NoReturn:
        """Look for new and vanished versions, for ever."""
        self._tell_whether_ready()
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

    async def _look_once_after(self, moment: float) -> None:
        """Look, unless a look has begun since: those who wait for the same answer share one."""
        async with self._looking:
            if self._look_began <= moment:
                await self._look()

    async def replace(self, gone: Version) -> Version:
        """The version that takes over from one of which the server just said that it is gone.

        Raises:
            Unavailable: none does.
        """
        async with self._looking:
            if self.proven.get(gone.number) is gone:  # nobody else has looked meanwhile
                await self._look()
        return self.current or self._unavailable()

    async def _look(self) -> None:
        began = perf_counter()
        await self._compare()
        self._look_began = began  # one that was broken off has told nobody anything
        self._tell_whether_ready()

    def _tell_whether_ready(self) -> None:
        is_ready = self.current is not None
        self.has_been_ready |= is_ready
        self._metrics.model_ready(self.name).set(is_ready)

    async def _compare(self) -> None:
        """Compare what the server has with what is known here."""
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
        self._forget([number for number in self.proven.keys() & available if await self._is_another(number)])
        if not await self._follow_stable(available) or self._expects_newer(available):
            return
        # in this order: who asks while the new one proves itself is not told that there is none
        for number in sorted(available - self.proven.keys() - self._refused.keys(), reverse=True):
            await self._admit(number)
        self._forget([known for known in [*self.proven, *self._refused] if known not in available])
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
        if number in available - self.proven.keys() - self._refused.keys():
            await self._admit(number)
        if number in self.proven and number != self._stable:
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
            return await self._server.contract(self.name, number, timeout=STATUS_SECONDS) != self.proven[number].told
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
        self._forget([*self.proven, *self._refused])

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._refused.pop(number, None)
            if gone := self.proven.pop(number, None):
                gone.drift.end()
                self._metrics.version_proven(self.name, number).set(0)
                logger.info("%s: version %d takes no more traffic: the server no longer has it", self.name, number)
            self._labels.forget_all()

    async def _admit(self, number: int) -> None:
        """Let a version take traffic if it proves itself."""
        start = perf_counter()
        try:
            with self._metrics.stage_seconds(self.name, "prove").time():
                version = await self._prover.prove(number)
        except (Unavailable, Overloaded, DeadlineExceeded, UnknownVersion) as problem:
            # says nothing of the version: the next look tries again
            if self._delayed.get(number) != problem.detail:
                logger.warning("%s: version %d could not be proven yet: %s", self.name, number, problem.detail)
            self._delayed[number] = problem.detail
        except (Unproven, Refused, ValueError) as error:
            self._refused[number] = " ".join(str(error).split())[:MAX_REASON]
            self._delayed.pop(number, None)
            self._metrics.proof_failures(self.name, number).inc()
            self._metrics.version_proven(self.name, number).set(0)
            logger.error("%s: version %d takes no traffic: %s", self.name, number, self._refused[number])  # noqa: TRY400  # the sentence says it all
        else:
            self.proven[number] = version
            self._delayed.pop(number, None)
            self._metrics.version_proven(self.name, number).set(1)
            logger.info(
                "%s: version %d proved itself on %d golden examples in %.2f s and takes traffic",
                self.name,
                number,
                len(version.contract.golden.examples),
                perf_counter() - start,
            )

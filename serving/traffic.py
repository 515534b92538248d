"""Which version answers a request that names none: a share goes to a canary, and a copy of a share to a shadow."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any

from serving.metrics import Metrics
from serving.problems import Problem
from serving.proving import Version
from serving.settings import Settings
from serving.versions import Model

logger = logging.getLogger("sightread.traffic")

MAX_SHADOWS = 16
"""Requests that are answered in the shadow at once, for each model; further ones cast none …"""
MAX_SHADOW_BYTES = 32 * 1024 * 1024
"""… nor do they when their items and those of the others have more bytes than this."""

Outcomes = Sequence[dict[str, Any] | Problem]
"""What the items of a request were answered."""


class Traffic:
    """How the requests for one model are spread over its versions.

    Args:
        model: whose versions answer.
        settings: the canary's and the shadow's labels and shares.
        metrics: where the shadow's answers are counted.
    """

    def __init__(self, model: Model, *, settings: Settings, metrics: Metrics) -> None:
        self._model = model
        self._settings = settings
        self._metrics = metrics
        self._shadows: set[asyncio.Task[None]] = set()
        self._held = 0

    async def choose(self, session: str | None) -> Version:
        """The canary for its share of the requests, and else the current version.

        Args:
            session: while the share stays, one session's requests all go to one of the two.

        Raises:
            Unavailable: none is ready.
        """
        if _draw(session) < self._settings.canary_share:
            canary = await self._model.labelled(self._settings.canary_label)
            if canary is not None:
                return canary
        return await self._model.choose()

    def expect(self, version: int | None) -> Version | None:
        """Who will answer a request, or None where that is not known before it is asked.

        Args:
            version: the version that must answer, or None.
        """
        if version is not None:
            return self._model.proven.get(version)
        return None if self._settings.canary_share else self._model.current

    def cast_shadow(
        self,
        version: Version,
        outcomes: Outcomes,
        items: Sequence[bytes | str],
        classify: Callable[[Version, float], Awaitable[Outcomes]],
        *,
        is_busy: bool,
    ) -> None:
        """Have the shadow answer the same items as well, for its share of the requests; its answers are only counted.

        Args:
            version: that answered.
            outcomes: what it answered.
            items: what was asked.
            classify: has another version answer the items before a deadline.
            is_busy: whether that would have others wait for longer: then it is dropped.
        """
        if random.random() >= self._settings.shadow_share:  # noqa: S311  # no secret
            return
        size = sum(map(len, items))
        if is_busy or len(self._shadows) >= MAX_SHADOWS or self._held + size > MAX_SHADOW_BYTES:
            self._metrics.shadow_answers(self._model.name, version.number, "", "dropped").inc(len(outcomes))
            return
        self._held += size
        task = asyncio.create_task(self._answer_in_the_shadow(version, outcomes, classify))
        self._shadows.add(task)

        def end(task: asyncio.Task[None]) -> None:
            self._shadows.discard(task)
            self._held -= size

        task.add_done_callback(end)

    async def _answer_in_the_shadow(
        self, version: Version, outcomes: Outcomes, classify: Callable[[Version, float], Awaitable[Outcomes]]
    ) -> None:
        shadow = await self._model.labelled(self._settings.shadow_label)
        if shadow is None or shadow is version:
            return
        deadline = asyncio.get_running_loop().time() + self._settings.deadline_seconds
        try:
            async with asyncio.timeout_at(deadline):
                answers = await classify(shadow, deadline)
        except (Problem, TimeoutError) as error:
            logger.info("the shadow did not answer: %s", error)
            answers = [Problem("")] * len(outcomes)
        for outcome, answer in zip(outcomes, answers, strict=True):
            if not isinstance(outcome, Problem):  # what could not be answered says nothing of the shadow
                self._metrics.shadow_answers(
                    self._model.name, version.number, shadow.number, _agreement(outcome, answer)
                ).inc()


def _draw(session: str | None) -> float:
    """A number from [0, 1): by chance, or always the same for a session."""
    if session is None:
        return random.random()  # noqa: S311  # no secret
    return int.from_bytes(sha256(session.encode()).digest()[:6]) / 2**48


def _agreement(outcome: dict[str, Any], answer: dict[str, Any] | Problem) -> str:
    if isinstance(answer, Problem):
        return "failed"
    return "same" if answer["label"] == outcome["label"] else "different"

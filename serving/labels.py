"""What version labels name. Only the model server knows; it is asked for each of them once in a while."""

import asyncio
from dataclasses import dataclass
from time import perf_counter

from serving.model_server import STATUS_SECONDS, ModelServer, Refused
from serving.problems import Problem, UnknownVersion

MAX_REMEMBERED = 64
"""Labels are what clients say; only so many are remembered."""


@dataclass(frozen=True)
class Named:
    """What a label was found to name."""

    version: int | None
    """None: nothing."""
    at: float
    """When, by the clock of `perf_counter`."""


class Labels:
    """The labels of one model's versions.

    Args:
        model: its name.
        server: who is asked.
        patience: seconds for which an answer holds.
    """

    def __init__(self, model: str, *, server: ModelServer, patience: float) -> None:
        self._model = model
        self._server = server
        self._patience = patience
        self._known: dict[str, Named] = {}
        self._asking: dict[str, asyncio.Task[Named]] = {}

    async def resolve(self, label: str) -> Named:
        """What a label names. Those who ask for one at once share a question to the server, and its failure, too.

        Raises:
            Problem: the server does not say, and did not say before.
        """
        known = self._known.get(label)
        if known is not None and perf_counter() < known.at + self._patience:
            return known
        asking = self._asking.get(label)
        if asking is None:
            asking = self._asking[label] = asyncio.create_task(self._ask(label, known))
            asking.add_done_callback(lambda _: self._asking.pop(label))
        return await asyncio.shield(asking)

    def forget(self, label: str) -> None:
        """Ask for it anew the next time."""
        self._known.pop(label, None)

    def forget_all(self) -> None:
        """Ask for each of them anew."""
        self._known.clear()

    async def _ask(self, label: str, known: Named | None) -> Named:
        version: int | None
        try:
            version = await self._server.labelled(self._model, label, timeout=STATUS_SECONDS)
        except (Refused, UnknownVersion):
            version = None
        except Problem:  # says nothing of the label: what it named goes on answering
            if known is None or known.version is None:
                raise
            version = known.version
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[label] = Named(version, perf_counter())
        return self._known[label]

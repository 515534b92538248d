"""Who works on the event loop next, and who is refused because that would come too late."""

import asyncio
import math
from collections import deque
from time import perf_counter

from serving.pace import Pace
from serving.problems import Overloaded

SLICE = 0.02
"""Seconds of a turn of the loop in which work begins; whoever comes after that waits for another turn."""
BEGUN_IN_A_TURN = 16
"""Of those who waited. In between the loop takes connections, reads, and answers, its health probes among others."""
TELLING = 16
"""So many before one tell how long the next will wait. How long one waits behind fewer, chance decides."""


class Turns:
    """Lets requests and items begin their work on the event loop in the order in which they came, a few in a turn.

    Without it the loop would work on all that has come in one go, while as much again comes: for seconds it would
    answer no probe, and no deadline would count for whoever came meanwhile.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._slice_ends: float | None = None
        """None: nobody has begun in this turn of the loop."""
        self._pace = Pace()

    async def take(self) -> float:
        """Wait until it is one's turn → the seconds that it took. Who gives up meanwhile costs no time."""
        if not self._waiting and perf_counter() < self._slice():
            return 0.0
        since, ahead = perf_counter(), len(self._waiting)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn
        waited = perf_counter() - since
        if ahead >= TELLING:
            self._pace.learn(ahead, waited)
        return waited

    def check(self, deadline: float) -> None:
        """Refuse a request that would wait for too long.

        Args:
            deadline: by the event loop's clock.

        Raises:
            Overloaded: there would be no answer before the deadline.
        """
        ahead = len(self._waiting)
        if ahead >= TELLING and self._pace.is_too_late(ahead, deadline - asyncio.get_running_loop().time()):
            wait = math.ceil(self._pace.foretell(ahead))
            raise Overloaded(f"{ahead:,} inputs wait for their turn already.", retry_after=wait)

    def _slice(self) -> float:
        """When this turn's slice ends; it begins with the first who asks."""
        if self._slice_ends is None:
            self._slice_ends = perf_counter() + SLICE
            asyncio.get_running_loop().call_soon(self._next_turn)
        return self._slice_ends

    def _next_turn(self) -> None:
        self._slice_ends = None
        begun = 0
        while self._waiting and begun < BEGUN_IN_A_TURN:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                begun += 1
        if begun:
            self._slice()

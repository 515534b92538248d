"""Who works on the event loop next, and who is refused because that would come too late."""

import asyncio
from collections import deque
from time import perf_counter

from serving.pace import Pace

SLICE = 0.03
"""Seconds of a turn of the loop in which work begins; whoever comes after that waits for another turn."""
BEGUN_IN_A_TURN = 32
"""Of those who waited, at most …"""
WORK_SECONDS = 0.03
"""… and no more than are worked on in this time, …"""
FEWEST_BEGUN = 4
"""… but so many. In between the loop takes connections, reads, and answers, its health probes among others …"""
QUIET_TURNS = 4
"""… until so many turns of the loop have passed in which no request came: of a new connection the first one is read in
the third …"""
PAUSE = 0.002
"""… or so many seconds: those who have to be refused at the door do not count, and are many."""


class Turns:
    """Lets inputs be worked on in the order in which they came, a few in each turn of the event loop.

    Without it the loop would work on all that has come in one go, while as much again comes: for seconds it would
    answer no probe, and no deadline would count for whoever came meanwhile.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._slice_ends: float | None = None
        """None: nobody has begun in this turn of the loop."""
        self._begun = 0
        """How many of those who waited began in the last turn."""
        self._quiet_turns = 0
        self._pace = Pace()
        self._work = Pace()
        """The same without the pauses."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def has_come(self) -> bool:
        """Whether it is one's turn at once: nobody waits, and there is time left in this turn of the loop."""
        return not self._waiting and perf_counter() < self._slice()

    async def take(self) -> float:
        """Wait until it is one's turn → the seconds that it took. Who gives up meanwhile costs no time."""
        if self.has_come():
            return 0.0
        since = perf_counter()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn
        return perf_counter() - since

    def check(self, deadline: float) -> None:
        """A request has come: refuse one that would wait for too long.

        Args:
            deadline: by the event loop's clock.

        Raises:
            Overloaded: there would be no answer before the deadline.
        """
        self._quiet_turns = 0
        if self._waiting:
            self._pace.check(len(self._waiting), deadline - asyncio.get_running_loop().time(), "for their turn")

    def foretell(self, to_come: int = 0) -> float:
        """Seconds until the turn of who comes after so many more."""
        return self._pace.foretell(len(self._waiting) + to_come)

    def _slice(self) -> float:
        """When this turn's slice ends; it begins with the first who asks."""
        if self._slice_ends is None:
            self._begin_turn(perf_counter() + SLICE)
        assert self._slice_ends is not None, "it has begun"  # noqa: S101
        return self._slice_ends

    def _begin_turn(self, slice_ends: float) -> None:
        self._began = perf_counter()
        self._slice_ends = slice_ends
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._slice_ends = None
        if self._begun:
            self._work.learn(self._begun, perf_counter() - self._began)
        if self._waiting:
            self._quiet_turns = 0
            self._pause(perf_counter() + PAUSE)
        elif self._begun:
            self._begin_waiting()

    def _pause(self, until: float) -> None:
        """Nobody begins while others come: whoever would come too late is to be told so now, and not then."""
        if self._quiet_turns < QUIET_TURNS and perf_counter() < until:
            self._quiet_turns += 1
            asyncio.get_running_loop().call_soon(self._pause, until)
        else:
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        if self._begun:
            self._pace.learn(self._begun, perf_counter() - self._began)
        self._begun = 0
        most = self._most_begun()
        while self._waiting and self._begun < most:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            # they begin in the turn that comes now, and nobody who comes meanwhile overtakes them
            self._begin_turn(slice_ends=0.0)

    def _most_begun(self) -> int:
        seconds = self._work.foretell(1)
        return BEGUN_IN_A_TURN if not seconds else max(FEWEST_BEGUN, min(BEGUN_IN_A_TURN, int(WORK_SECONDS / seconds)))

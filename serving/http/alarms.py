"""Many alarms on one timer: nearly all of them are called off before they ring."""

import asyncio
import math
from collections.abc import Callable

TICK = 0.001
"""Of the event loop's clock: what is due within one rings now."""

Ring = Callable[[], None]


class Alarms:
    """Alarms of one event loop.

    Every request sets two that never ring: when it must be answered, and when its idle connection is closed. To begin
    and end a timer of the loop for each would cost more than to look, now and then, which of them is next.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._at: dict[Ring, float] = {}
        self._timer: asyncio.Handle | None = None
        self._next_look = math.inf

    def set(self, ring: Ring, at: float) -> None:
        """Have it called then, by the loop's clock, unless it is set anew or called off before."""
        self._at[ring] = at
        if at < self._next_look:
            self._look_at(at)

    def call_off(self, ring: Ring) -> None:
        """Have it not called; nothing happens where it was not set."""
        self._at.pop(ring, None)

    def _look_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._look)
        self._next_look = at

    def _look(self) -> None:
        self._next_look = math.inf
        now = self._loop.time() + TICK
        try:
            for ring in [ring for ring, at in self._at.items() if at <= now]:
                if self._at.get(ring, math.inf) <= now:  # none before it called it off, or set it anew
                    del self._at[ring]
                    ring()
        finally:
            if self._at:
                self._look_at(min(self._at.values()))


_ALARMS: dict[asyncio.AbstractEventLoop, Alarms] = {}


def alarms_of(loop: asyncio.AbstractEventLoop) -> Alarms:
    """The loop's alarms."""
    alarms = _ALARMS.get(loop)
    if alarms is None:
        for closed in [other for other in _ALARMS if other.is_closed()]:
            del _ALARMS[closed]
        alarms = _ALARMS[loop] = Alarms(loop)
    return alarms

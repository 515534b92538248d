"""How long what waits will take, by what the last pieces took."""

import math

from serving.problems import Overloaded

SHARE_OF_NEWEST = 0.2
HEADROOM = 1.5
"""Times what is foretold, there has to be before a deadline: of those that would come just in time half come late."""
STRAINED_HEADROOM = 6.0
"""The same while some have to be refused: in a queue that is full all the time everybody waits as long as anybody may,
and some wait for too long; a short one is worked off as fast."""
STRAINED_SECONDS = 1.0
"""After the last refusal."""
SHARE_OF_FORMER = 0.97
"""What a call still weighs when the next one is known."""
MOST_SURPRISE = 4.0
"""Times what was foretold, at most, work is taken to have cost: a call that was held up for long tells nothing of the
next. Where calls do get slower, all of them tell."""
LEAST_SPREAD = 1e-3
"""Of the calls' sizes (variance over squared mean): calls of nearly one size say nothing new of what a row adds."""


class Strain:
    """Whether somebody had to be refused a moment ago, though having as much time to wait as who comes now.

    So a client in a hurry changes nothing for those who have time.
    """

    def __init__(self) -> None:
        self._until = -math.inf
        self._seconds = 0.0

    def refused(self, now: float, seconds: float) -> None:
        """Somebody with so many seconds until the deadline is, now."""
        if seconds >= self._seconds or now >= self._until:
            self._until = now + STRAINED_SECONDS
            self._seconds = seconds

    def headroom(self, now: float, seconds: float) -> float:
        """How many times what is foretold there has to be before a deadline, for who has so many seconds."""
        return STRAINED_HEADROOM if now < self._until and seconds <= self._seconds else HEADROOM


class Pace:
    """The recent mean of the seconds that a unit of work takes. Before the first one is done, nothing is foretold."""

    def __init__(self) -> None:
        self._seconds_per_unit: float | None = None

    def learn(self, units: int, seconds: float) -> None:
        """A piece of so many units took so long."""
        newest = seconds / max(1, units)
        if self._seconds_per_unit is None:
            self._seconds_per_unit = newest
        else:
            newest = min(newest, MOST_SURPRISE * self._seconds_per_unit)
            self._seconds_per_unit += SHARE_OF_NEWEST * (newest - self._seconds_per_unit)

    def foretell(self, units: float) -> float:
        """Seconds that so many units will take, one after the other."""
        return units * (self._seconds_per_unit or 0.0)

    def check(self, ahead: int, seconds: float, what_for: str, *, at_once: int = 1, headroom: float = HEADROOM) -> None:
        """Refuse an input that is not sure to be done in time; what is late already is not refused.

        Args:
            ahead: inputs that come before it.
            seconds: that are left until its deadline.
            what_for: they wait, in words.
            at_once: how many of them are worked on at a time.
            headroom: times what is foretold, there has to be.

        Raises:
            Overloaded: so much waits already.
        """
        wait = self.foretell(ahead / at_once)
        if 0 < seconds < headroom * wait:
            raise Overloaded(f"{ahead:,} inputs wait {what_for} already.", retry_after=math.ceil(wait))


class CallCost:
    """What a call takes by itself, and what each of its rows adds: a line through the recent calls (least squares).

    Both are 0 until calls of different sizes were seen: nothing else tells them apart.

    Attributes:
        fixed: seconds of a call, however few its rows.
        per_row: seconds that a row adds.
    """

    def __init__(self) -> None:
        self.fixed = 0.0
        self.per_row = 0.0
        self._is_known = False
        # sums over the calls, the recent ones weighing more
        self._calls = self._rows = self._seconds = self._rows_squared = self._rows_seconds = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """A call of so many rows took so long."""
        if self._is_known:
            seconds = min(seconds, MOST_SURPRISE * self.foretell(rows))
        self._calls = self._calls * SHARE_OF_FORMER + 1
        self._rows = self._rows * SHARE_OF_FORMER + rows
        self._seconds = self._seconds * SHARE_OF_FORMER + seconds
        self._rows_squared = self._rows_squared * SHARE_OF_FORMER + rows * rows
        self._rows_seconds = self._rows_seconds * SHARE_OF_FORMER + rows * seconds
        spread = self._calls * self._rows_squared - self._rows**2
        if spread > LEAST_SPREAD * self._rows**2:
            slope = (self._calls * self._rows_seconds - self._rows * self._seconds) / spread
            self.per_row = min(max(slope, 0.0), self._seconds / self._rows)
            self._is_known = True
        if self._is_known:
            self.fixed = max(0.0, (self._seconds - self.per_row * self._rows) / self._calls)

    def foretell(self, rows: int) -> float:
        """Seconds that a call of so many rows will take."""
        return self.fixed + self.per_row * rows

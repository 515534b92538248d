"""How long what waits will take, by what the last pieces took."""

SHARE_OF_NEWEST = 0.2


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
            self._seconds_per_unit += SHARE_OF_NEWEST * (newest - self._seconds_per_unit)

    def foretell(self, units: int) -> float:
        """Seconds that so many units will take, one after the other."""
        return units * (self._seconds_per_unit or 0.0)

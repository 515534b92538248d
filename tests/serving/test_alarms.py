"""Alarms ring at their time, in their order, unless they are called off."""

import asyncio
from collections.abc import Callable

from serving.http.alarms import alarms_of

SOON, LATER, LAST = 0.02, 0.05, 0.08


def rung(set_alarms: Callable[[Callable[[str], Callable[[], None]]], None]) -> list[str]:
    """The names of the alarms that rang, in their order."""
    names: list[str] = []

    def named(name: str) -> Callable[[], None]:
        return lambda: names.append(name)

    async def scenario() -> None:
        set_alarms(named)
        await asyncio.sleep(2 * LAST)

    asyncio.run(scenario())
    return names


def at(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def test_they_ring_in_the_order_of_their_times_whichever_was_set_first() -> None:
    def set_alarms(named: Callable[[str], Callable[[], None]]) -> None:
        alarms = alarms_of(asyncio.get_running_loop())
        for name, seconds in {"last": LAST, "soon": SOON, "later": LATER}.items():
            alarms.set(named(name), at(seconds))

    assert rung(set_alarms) == ["soon", "later", "last"]


def test_what_was_called_off_does_not_ring_and_what_was_set_anew_rings_then() -> None:
    def set_alarms(named: Callable[[str], Callable[[], None]]) -> None:
        alarms = alarms_of(asyncio.get_running_loop())
        off, again = named("off"), named("again")
        alarms.set(off, at(SOON))
        alarms.set(again, at(SOON))
        alarms.set(named("later"), at(LATER))
        alarms.call_off(off)
        alarms.call_off(named("never set"))
        alarms.set(again, at(LAST))

    assert rung(set_alarms) == ["later", "again"]


def test_none_rings_before_its_time() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        has_rung: asyncio.Future[float] = loop.create_future()
        due = at(LATER)
        alarms_of(loop).set(lambda: has_rung.set_result(loop.time()), due)
        alarms_of(loop).set(lambda: None, at(SOON))
        return await has_rung - due

    assert asyncio.run(scenario()) > -0.002  # the loop's clock has milliseconds


def test_one_that_rings_may_call_off_another_and_one_that_fails_takes_none_along() -> None:
    def set_alarms(named: Callable[[str], Callable[[], None]]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: named(str(context["exception"]))())
        alarms = alarms_of(loop)
        off, due = named("off"), at(SOON)

        def fail() -> None:
            alarms.call_off(off)
            raise ValueError("failed")

        alarms.set(fail, due)
        alarms.set(off, due)
        alarms.set(named("same time"), due)
        alarms.set(named("later"), at(LATER))

    assert rung(set_alarms) == ["failed", "same time", "later"]

"""Alarms ring at their time, in their order, unless they are called off."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import TypeVar

import pytest
import uvloop

from serving.http.alarms import alarms_of

Result = TypeVar("Result")
SOON, LATER, LAST = 0.02, 0.05, 0.08


NewLoop = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    """Of either kind: their timers differ."""
    loop: NewLoop = request.param
    return loop


def rung(new_loop: NewLoop, set_alarms: Callable[[Callable[[str], Callable[[], None]]], None]) -> list[str]:
    """The names of the alarms that rang, in their order."""
    names: list[str] = []

    def named(name: str) -> Callable[[], None]:
        return lambda: names.append(name)

    async def scenario() -> None:
        set_alarms(named)
        await asyncio.sleep(2 * LAST)

    run(new_loop, scenario())
    return names


def run(new_loop: NewLoop, scenario: Coroutine[None, None, Result]) -> Result:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(scenario)


def at(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def test_they_ring_in_the_order_of_their_times_whichever_was_set_first(new_loop: NewLoop) -> None:
    def set_alarms(named: Callable[[str], Callable[[], None]]) -> None:
        alarms = alarms_of(asyncio.get_running_loop())
        for name, seconds in {"last": LAST, "soon": SOON, "later": LATER}.items():
            alarms.set(named(name), at(seconds))

    assert rung(new_loop, set_alarms) == ["soon", "later", "last"]


def test_what_was_called_off_does_not_ring_and_what_was_set_anew_rings_then(new_loop: NewLoop) -> None:
    def set_alarms(named: Callable[[str], Callable[[], None]]) -> None:
        alarms = alarms_of(asyncio.get_running_loop())
        off, again = named("off"), named("again")
        alarms.set(off, at(SOON))
        alarms.set(again, at(SOON))
        alarms.set(named("later"), at(LATER))
        alarms.call_off(off)
        alarms.call_off(named("never set"))
        alarms.set(again, at(LAST))

    assert rung(new_loop, set_alarms) == ["later", "again"]


def test_none_rings_before_its_time(new_loop: NewLoop) -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        has_rung: asyncio.Future[float] = loop.create_future()
        due = at(LATER)
        alarms_of(loop).set(lambda: has_rung.set_result(loop.time()), due)
        alarms_of(loop).set(lambda: None, at(SOON))
        return await has_rung - due

    assert run(new_loop, scenario()) > -0.002  # the loop's clock has milliseconds


def test_one_that_rings_may_call_off_another_and_one_that_fails_takes_none_along(new_loop: NewLoop) -> None:
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

    assert rung(new_loop, set_alarms) == ["failed", "same time", "later"]


def test_what_is_due_already_rings_and_so_do_those_that_are_set_beside_it(new_loop: NewLoop) -> None:
    def set_alarms(named: Callable[[str], Callable[[], None]]) -> None:
        alarms = alarms_of(asyncio.get_running_loop())
        for name, seconds in {"past": -1.0, "now": 0.0, "nearly": 0.0001, "soon": SOON}.items():
            alarms.set(named(name), at(seconds))

    assert rung(new_loop, set_alarms) == ["past", "now", "nearly", "soon"]


def test_one_that_another_sets_anew_rings_only_then(new_loop: NewLoop) -> None:
    def set_alarms(named: Callable[[str], Callable[[], None]]) -> None:
        alarms = alarms_of(asyncio.get_running_loop())
        anew, due = named("anew"), at(SOON)
        alarms.set(lambda: alarms.set(anew, at(LATER)), due)
        alarms.set(anew, due)
        alarms.set(named("between"), at(2 * SOON))

    assert rung(new_loop, set_alarms) == ["between", "anew"]


def test_a_closed_loop_is_not_held() -> None:
    async def scenario() -> None:
        alarms_of(asyncio.get_running_loop()).set(lambda: None, at(60))

    loops = []
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(scenario())
        loop.close()
        loops.append(weakref.ref(loop))
        del loop
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1

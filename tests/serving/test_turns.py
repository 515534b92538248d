"""Work on the event loop begins in the order in which it came, a few pieces in a turn, and none that would be late."""

import asyncio
import math
import time
from collections.abc import Callable

import pytest

from serving.problems import Overloaded
from serving.turns import BEGUN_IN_A_TURN, PAUSE, QUIET_TURNS, SLICE, Turns

MANY = 5 * BEGUN_IN_A_TURN


async def crowd(turns: Turns, work: Callable[[int], None], count: int = MANY) -> list[asyncio.Task[None]]:
    """So many who came together; the first of them has used up the slice."""

    async def one(number: int) -> None:
        await turns.take()
        work(number)
        if not number:
            time.sleep(SLICE)  # noqa: ASYNC251  # what holds up the loop is what this is about

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    await asyncio.sleep(0)
    return tasks


def test_the_loop_sees_to_others_between_the_pieces_and_keeps_their_order() -> None:
    async def scenario() -> None:
        begun: list[int] = []
        turns = Turns()
        tasks = await crowd(turns, begun.append)
        most = 0
        while len(begun) < MANY:
            before = len(begun)
            await asyncio.sleep(0)
            most = max(most, len(begun) - before)
        assert 0 < most <= BEGUN_IN_A_TURN
        assert begun == list(range(MANY))
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [MANY, 3])
def test_who_comes_later_does_not_overtake_those_who_wait(count: int) -> None:
    async def scenario() -> None:
        begun: list[int] = []
        turns = Turns()
        tasks = await crowd(turns, begun.append, count)
        for _ in range(MANY):
            if turns.waiting:
                await asyncio.sleep(0)
        # the last of them were told that it is their turn, and have not begun yet
        late = asyncio.create_task(turns.take())
        late.add_done_callback(lambda _: begun.append(-1))
        await asyncio.gather(late, *tasks)
        assert begun == [*range(count), -1]

    asyncio.run(scenario())


def test_who_gives_up_takes_nobodys_turn() -> None:
    async def scenario() -> None:
        begun: list[int] = []
        turns = Turns()
        tasks = await crowd(turns, begun.append)
        for task in tasks[1:-1]:
            task.cancel()
        # the cancelled ones leave, the pause passes, and a single turn lets the last one in
        for _ in range(QUIET_TURNS + 3):
            await asyncio.sleep(0)
        assert begun == [0, MANY - 1]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await turns.take() == 0.0

    asyncio.run(scenario())


def test_while_requests_come_nobody_begins_but_not_for_ever() -> None:
    async def scenario() -> None:
        begun: list[int] = []
        turns = Turns()
        start = time.perf_counter()
        tasks = await crowd(turns, begun.append, 3)
        for _ in range(5 * QUIET_TURNS):
            turns.check(math.inf)
            await asyncio.sleep(0)
        assert begun == [0] or time.perf_counter() - start > PAUSE
        while len(begun) < 3:
            turns.check(math.inf)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_who_would_wait_beyond_the_deadline_is_refused() -> None:
    async def scenario() -> None:
        turns = Turns()
        now = asyncio.get_running_loop().time
        turns.check(now() + 0.001)  # nobody waits
        await asyncio.gather(*await crowd(turns, lambda _: time.sleep(0.005)))  # now the pace is known
        waiting = await crowd(turns, lambda _: None)
        with pytest.raises(Overloaded) as refused:
            turns.check(now() + 0.01)
        assert refused.value.retry_after == 1
        turns.check(now() + 60)
        turns.check(math.inf)
        await asyncio.gather(*waiting)
        turns.check(now() + 0.01)

    asyncio.run(scenario())


def test_a_standstill_is_forgotten_though_those_who_would_wait_are_refused_meanwhile() -> None:
    async def scenario() -> None:
        turns = Turns()
        now = asyncio.get_running_loop().time
        begun: list[int] = []

        def stand_still(number: int) -> None:
            begun.append(number)
            if number == 1:
                time.sleep(1)

        await asyncio.gather(*await crowd(turns, stand_still, 3))
        refusals = []
        for _ in range(50):
            waiting = await crowd(turns, begun.append, 3)
            try:
                turns.check(now() + 0.5)
                refusals.append(False)
            except Overloaded:
                refusals.append(True)
            await asyncio.gather(*waiting)
        assert refusals[0]
        assert not refusals[-1]

    asyncio.run(scenario())

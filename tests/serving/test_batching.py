"""Concurrent rows become few calls; nobody waits for company in vain, and nobody pays for another's trouble."""

import asyncio
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.batching import MAX_IN_FLIGHT, Batcher, Row
from serving.metrics import Metrics
from serving.pace import CallCost
from serving.problems import DeadlineExceeded, Overloaded, Unavailable
from serving.tracing import TRACEPARENT

FAR = 1e9


class Server:
    """Answers each row with itself, when it is let; remembers the sizes of the calls."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.traceparents: list[str | None] = []
        self.open = asyncio.Event()
        self.open.set()
        self.trouble: Exception | None = None

    async def predict(
        self,
        rows: Sequence[Row],
        timeout: float,  # noqa: ASYNC109
        traceparent: str | None,
    ) -> NDArray[np.float32]:
        self.calls.append(len(rows))
        self.traceparents.append(traceparent)
        assert timeout > 0
        await self.open.wait()
        if self.trouble:
            raise self.trouble
        return np.stack(rows).astype(np.float32)


def batcher(server: Server, *, max_batch_size: int = 64, max_queue: int = 1000) -> Batcher[NDArray[np.float32]]:
    return Batcher(server.predict, model="m", max_batch_size=max_batch_size, max_queue=max_queue, metrics=Metrics())


def row(value: int) -> Row:
    return np.array([value], dtype=np.int32)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_each_row_gets_its_own_answer() -> None:
    async def scenario() -> None:
        queue = batcher(Server(), max_batch_size=7)
        answers = await asyncio.gather(*(queue.submit(row(value), deadline=FAR) for value in range(100)))
        assert [int(answer[0]) for answer in answers] == list(range(100))

    asyncio.run(scenario())


def test_what_arrives_together_goes_out_together() -> None:
    async def scenario() -> None:
        server = Server()
        queue = batcher(server)
        await asyncio.gather(*(queue.submit(row(value), deadline=FAR) for value in range(20)))
        assert server.calls == [20]

    asyncio.run(scenario())


def test_a_lone_row_goes_out_at_once_and_what_comes_meanwhile_is_the_next_batch() -> None:
    async def scenario() -> None:
        server = Server()
        server.open.clear()
        queue = batcher(server)
        tasks = []
        for value in range(MAX_IN_FLIGHT + 30):
            tasks.append(asyncio.create_task(queue.submit(row(value), deadline=FAR)))
            await settled()
        assert server.calls == [1] * MAX_IN_FLIGHT
        server.open.set()
        await asyncio.gather(*tasks)
        assert server.calls == [*[1] * MAX_IN_FLIGHT, 30]

    asyncio.run(scenario())


def test_who_is_patient_goes_with_those_on_their_way_and_alone_where_none_come() -> None:
    async def scenario() -> None:
        server = Server()
        queue = batcher(server, max_batch_size=8)
        patient = [asyncio.create_task(queue.submit(row(value), deadline=FAR, patience=60)) for value in range(2)]
        await settled()
        assert server.calls == []
        await asyncio.gather(queue.submit(row(2), deadline=FAR), *patient)
        assert server.calls == [3]
        await asyncio.gather(*(queue.submit(row(value), deadline=FAR, patience=60) for value in range(8)))
        assert server.calls == [3, 8]  # none could come along
        now = asyncio.get_running_loop().time
        begun = now()
        await queue.submit(row(0), deadline=FAR, patience=0.05)
        assert now() - begun >= 0.05
        await queue.submit(row(0), deadline=(deadline := now() + 0.2), patience=60)
        assert now() < deadline
        assert server.calls == [3, 8, 1, 1]

    asyncio.run(scenario())


def test_no_batch_is_larger_than_the_limit() -> None:
    async def scenario() -> None:
        server = Server()
        queue = batcher(server, max_batch_size=8)
        await asyncio.gather(*(queue.submit(row(value), deadline=FAR) for value in range(50)))
        assert sum(server.calls) == 50
        assert max(server.calls) == 8

    asyncio.run(scenario())


def test_beyond_the_queue_a_row_is_refused_and_the_waiting_ones_are_answered() -> None:
    async def scenario() -> None:
        server = Server()
        server.open.clear()
        queue = batcher(server, max_batch_size=1, max_queue=3)
        tasks = [asyncio.create_task(queue.submit(row(value), deadline=FAR)) for value in range(MAX_IN_FLIGHT)]
        await settled()
        tasks += [asyncio.create_task(queue.submit(row(value), deadline=FAR)) for value in range(3)]
        await settled()
        with pytest.raises(Overloaded):
            await queue.submit(row(9), deadline=FAR)
        server.open.set()
        assert len(await asyncio.gather(*tasks)) == MAX_IN_FLIGHT + 3

    asyncio.run(scenario())


def test_a_request_is_not_refused_for_rows_of_its_own() -> None:
    async def scenario() -> None:
        server = Server()
        queue = batcher(server, max_batch_size=2, max_queue=3)
        own = await asyncio.gather(*(queue.submit(row(value), deadline=FAR, ahead=0) for value in range(20)))
        assert [int(answer[0]) for answer in own] == list(range(20))

    asyncio.run(scenario())


def test_a_row_whose_deadline_passed_or_whose_client_left_is_not_sent() -> None:
    async def scenario() -> None:
        server = Server()
        server.open.clear()
        queue = batcher(server)
        busy = []
        for value in range(MAX_IN_FLIGHT):
            busy.append(asyncio.create_task(queue.submit(row(value), deadline=FAR)))
            await settled()
        sent = sum(server.calls)
        late = asyncio.create_task(queue.submit(row(1), deadline=asyncio.get_running_loop().time() - 1))
        left = asyncio.create_task(queue.submit(row(2), deadline=FAR))
        await settled()
        left.cancel()
        server.open.set()
        await asyncio.gather(*busy)
        await settled()
        assert sum(server.calls) == sent
        late.cancel()

    asyncio.run(scenario())


def test_trouble_reaches_everybody_in_the_batch_and_nobody_after_it() -> None:
    async def scenario() -> None:
        server = Server()
        server.trouble = Unavailable("gone")
        queue = batcher(server)
        outcomes = await asyncio.gather(
            *(queue.submit(row(value), deadline=FAR) for value in range(3)), return_exceptions=True
        )
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        server.trouble = None
        assert (await queue.submit(row(5), deadline=FAR)).tolist() == [5]

    asyncio.run(scenario())


def test_a_batch_carries_the_first_trace_context_among_its_requests() -> None:
    async def scenario() -> None:
        server = Server()
        queue = batcher(server)

        async def ask(traceparent: str | None) -> None:
            TRACEPARENT.set(traceparent)
            await queue.submit(row(1), deadline=FAR)

        await asyncio.gather(ask(None), ask("00-a-b-01"), ask("00-c-d-01"))
        await ask(None)
        assert server.traceparents == ["00-a-b-01", None]

    asyncio.run(scenario())


def test_no_more_calls_are_in_flight_than_allowed_and_a_row_knows_its_stages() -> None:
    async def scenario() -> None:
        server = Server()
        server.open.clear()
        queue = Batcher(
            server.predict,
            model="m",
            stage="explain",
            max_batch_size=2,
            max_queue=100,
            max_in_flight=1,
            metrics=Metrics(),
        )
        stages: dict[str, float] = {}
        waiting = [asyncio.create_task(queue.submit(row(value), deadline=FAR, stages=stages)) for value in range(5)]
        await settled()
        assert server.calls == [2]
        server.open.set()
        await asyncio.gather(*waiting)
        assert server.calls == [2, 2, 1]
        assert stages.keys() == {"explain_queue", "explain"}

    asyncio.run(scenario())


def test_texts_of_like_length_share_a_batch_and_the_one_that_waited_longest_goes_first() -> None:
    async def scenario() -> None:
        server = Server()
        lengths: list[list[int]] = []

        async def predict(rows: Sequence[Row], timeout: float, traceparent: str | None) -> NDArray[np.float32]:  # noqa: ASYNC109
            lengths.append([len(row) for row in rows])
            await server.predict([row[:1] for row in rows], timeout, traceparent)
            return np.array([[len(row)] for row in rows], np.float32)

        queue = Batcher(predict, model="m", max_batch_size=64, max_queue=1000, max_in_flight=1, metrics=Metrics())
        sent = [200, 3, 150, 2, 1000, 130, 3]
        answers = await asyncio.gather(*(queue.submit(np.ones(n, np.int32), deadline=FAR) for n in sent))
        assert [int(answer[0]) for answer in answers] == sent
        assert lengths == [[200, 150, 130], [3, 2, 3], [1000]]

    asyncio.run(scenario())


def test_rows_that_were_given_up_are_not_waited_for() -> None:
    async def scenario() -> None:
        server = Server()
        server.open.clear()
        queue = batcher(server, max_batch_size=1, max_queue=3)
        tasks = [asyncio.create_task(queue.submit(row(value), deadline=FAR)) for value in range(3)]
        await settled()
        late = [asyncio.create_task(queue.submit(row(value), deadline=FAR)) for value in range(3, 5)]
        await settled()
        with pytest.raises(Overloaded):
            await queue.submit(row(9), deadline=FAR)
        for task in late:
            task.cancel()
        await settled()
        taken = asyncio.create_task(queue.submit(row(7), deadline=FAR))
        await settled()
        server.open.set()
        assert await taken == [7]
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_what_could_not_be_answered_in_time_is_refused_with_the_time_that_the_queue_takes() -> None:
    async def scenario() -> None:
        server = Server()
        queue = batcher(server, max_batch_size=1)
        loop = asyncio.get_running_loop()
        await learned(server, queue, seconds=0.3)
        waiting = [asyncio.create_task(queue.submit(row(value), deadline=FAR)) for value in range(12)]
        await settled()  # two are in flight, ten wait: each takes 0.3 s
        with pytest.raises(Overloaded) as refused:
            queue.check(loop.time() + 1, ahead=queue.ahead)
        assert refused.value.retry_after is not None
        assert refused.value.retry_after >= 3
        patient = asyncio.create_task(queue.submit(row(7), deadline=FAR))
        await settled()
        server.open.set()
        await asyncio.gather(*waiting)
        assert await patient == [7]

    asyncio.run(scenario())


def test_those_under_way_and_those_who_come_along_count_too() -> None:
    async def scenario() -> None:
        server = Server()
        queue = batcher(server, max_batch_size=1)
        await learned(server, queue, seconds=0.3)
        under_way = [asyncio.create_task(queue.submit(row(value), deadline=FAR)) for value in range(MAX_IN_FLIGHT + 1)]
        await settled()  # one waits: by itself it would take 0.3 s
        now = asyncio.get_running_loop().time()
        with pytest.raises(Overloaded):
            queue.check(now + 1, ahead=queue.ahead)
        with pytest.raises(Overloaded):  # nor where it was prepared meanwhile
            await queue.submit(row(9), deadline=now + 1, ahead=queue.ahead)
        with pytest.raises(Overloaded):  # nor where the way here takes its time
            queue.check(now + 30, ahead=queue.ahead, seconds_before=29)
        with pytest.raises(Overloaded):  # and even where that alone takes too long
            queue.check(now + 30, ahead=queue.ahead, seconds_before=31)
        queue.check(now + 30, ahead=queue.ahead)
        queue.check(now + 1, ahead=0)  # what waits are its own
        server.open.set()
        await asyncio.gather(*under_way)

    asyncio.run(scenario())


def test_calls_that_end_too_late_tell_how_long_they_take() -> None:
    async def scenario() -> None:
        server = Server()
        server.trouble = DeadlineExceeded("The model server did not answer within the deadline.")
        queue = batcher(server, max_batch_size=1)
        with pytest.raises(DeadlineExceeded):
            await learned(server, queue, seconds=0.3)
        await a_second_is_too_short_after_twelve(server, queue)

    asyncio.run(scenario())


def test_calls_that_were_given_up_soon_do_not_tell_that_they_are_quick() -> None:
    async def scenario() -> None:
        server = Server()
        queue = batcher(server, max_batch_size=1)
        await learned(server, queue, seconds=0.3)
        server.open.set()
        server.trouble = DeadlineExceeded("The model server did not answer within the deadline.")
        for _ in range(20):
            with pytest.raises(DeadlineExceeded):
                await queue.submit(row(0), deadline=FAR)
        server.open.clear()
        await a_second_is_too_short_after_twelve(server, queue)

    asyncio.run(scenario())


def test_many_rows_of_one_request_are_not_refused_for_one_another() -> None:
    async def scenario() -> None:
        server = Server()
        queue = batcher(server)
        await learned(server, queue, seconds=0.1)
        deadline = asyncio.get_running_loop().time() + 5
        ahead = queue.ahead
        many = [asyncio.create_task(queue.submit(row(value), deadline=deadline, ahead=ahead)) for value in range(128)]
        await settled()  # by what one row took alone, they would take 13 s
        server.open.set()
        assert await asyncio.gather(*many) == [[value] for value in range(128)]

    asyncio.run(scenario())


async def a_second_is_too_short_after_twelve(server: Server, queue: Batcher[NDArray[np.float32]]) -> None:
    """The queue knows that a row takes some tenths of it."""
    waiting = [asyncio.create_task(queue.submit(row(value), deadline=FAR)) for value in range(12)]
    await settled()
    with pytest.raises(Overloaded):
        queue.check(asyncio.get_running_loop().time() + 1, ahead=queue.ahead)
    server.open.set()
    await asyncio.gather(*waiting, return_exceptions=True)


async def learned(server: Server, queue: Batcher[NDArray[np.float32]], *, seconds: float) -> None:
    """One call takes so long; the server answers no further one yet."""
    server.open.clear()
    slow = asyncio.create_task(queue.submit(row(0), deadline=FAR))
    await asyncio.sleep(seconds)
    server.open.set()
    try:
        await slow
    finally:
        server.open.clear()


class Timed:
    """Takes so long for a call and so long for each of its rows; remembers how many calls ran at once."""

    def __init__(self, *, fixed: float, per_row: float) -> None:
        self.fixed = fixed
        self.per_row = per_row
        self.calls: list[int] = []
        self.at_once: list[int] = []
        self.running = 0
        self.has_begun = asyncio.Event()

    async def predict(self, rows: Sequence[Row], timeout: float, traceparent: str | None) -> NDArray[np.float32]:  # noqa: ASYNC109
        del timeout, traceparent
        self.calls.append(len(rows))
        self.running += 1
        self.at_once.append(self.running)
        self.has_begun.set()
        try:
            await asyncio.sleep(self.fixed + self.per_row * len(rows))
        finally:
            self.running -= 1
        return np.stack(rows).astype(np.float32)

    def batcher(self) -> Batcher[NDArray[np.float32]]:
        return Batcher(self.predict, model="m", max_batch_size=64, max_queue=1000, metrics=Metrics())


async def ask_again_and_again(queue: Batcher[NDArray[np.float32]], *, clients: int, rounds: int) -> None:
    """Each asks again as soon as it was answered, a little after the others."""

    async def client(number: int) -> None:
        for _ in range(rounds):
            await queue.submit(row(number), deadline=FAR)
            await asyncio.sleep(0.0002 * number)

    await asyncio.gather(*map(client, range(clients)))


def test_where_rows_cost_next_to_nothing_one_call_at_a_time_takes_all_who_were_answered_together() -> None:
    async def scenario() -> None:
        server = Timed(fixed=0.02, per_row=0.0)
        queue = server.batcher()
        await ask_again_and_again(queue, clients=8, rounds=40)
        assert server.calls.count(8) > 10
        assert server.at_once.count(1) > 10

    asyncio.run(scenario())


def test_where_rows_are_the_cost_calls_go_out_beside_each_other() -> None:
    async def scenario() -> None:
        server = Timed(fixed=0.0, per_row=0.02)
        await ask_again_and_again(server.batcher(), clients=8, rounds=15)
        assert server.at_once.count(MAX_IN_FLIGHT) > len(server.at_once) / 2

    asyncio.run(scenario())


def test_texts_of_another_length_overtake_one_that_waits_but_not_for_ever() -> None:
    async def scenario() -> None:
        calls: list[int] = []

        async def predict(rows: Sequence[Row], timeout: float, traceparent: str | None) -> NDArray[np.float32]:  # noqa: ASYNC109
            del timeout, traceparent
            calls.append(len(rows[0]))
            await asyncio.sleep(0.01 + 1e-6 * len(rows) * len(rows[0]))
            return np.zeros((len(rows), 1), np.float32)

        queue = Batcher(predict, model="m", max_batch_size=16, max_queue=1000, metrics=Metrics())
        short, long = np.ones(16, np.int32), np.ones(200, np.int32)

        async def ask_together(text: Row, count: int) -> None:
            await asyncio.gather(*(queue.submit(text, deadline=FAR) for _ in range(count)))

        for count in (1, 2, 4, 8, 1, 2, 4, 8):  # now it is known what a call costs by itself
            await ask_together(short, count)
            await ask_together(long, count)

        async def go_on_asking() -> None:
            while True:
                await queue.submit(long, deadline=FAR)

        crowd = [asyncio.create_task(go_on_asking()) for _ in range(48)]
        await asyncio.sleep(0.1)
        for _ in range(3):
            before = len(calls)
            await queue.submit(short, deadline=FAR)
            since = calls[before:]
            assert since.index(16) <= 2 * MAX_IN_FLIGHT
        for client in crowd:
            client.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    asyncio.run(scenario())


def test_who_asks_one_after_the_other_never_waits_for_company() -> None:
    async def scenario() -> None:
        server = Timed(fixed=0.01, per_row=0.0)
        queue = server.batcher()
        await ask_again_and_again(queue, clients=8, rounds=10)
        await queue.submit(row(1), deadline=FAR)
        for sent in range(len(server.calls) + 1, len(server.calls) + 6):
            task = asyncio.create_task(queue.submit(row(1), deadline=FAR))
            await settled()
            assert len(server.calls) == sent
            await task

    asyncio.run(scenario())


def test_a_call_that_hangs_holds_up_nobody_else() -> None:
    async def scenario() -> None:
        server = Timed(fixed=0.01, per_row=0.0)
        queue = server.batcher()
        await ask_again_and_again(queue, clients=8, rounds=10)
        server.fixed = 3600.0
        server.has_begun.clear()
        hangs = asyncio.create_task(queue.submit(row(1), deadline=FAR))
        await server.has_begun.wait()
        server.fixed = 0.01
        async with asyncio.timeout(30):
            await queue.submit(row(2), deadline=FAR)  # once what hangs is overdue
        for sent in range(len(server.calls) + 1, len(server.calls) + 6):
            task = asyncio.create_task(queue.submit(row(2), deadline=FAR))
            await settled()
            assert len(server.calls) == sent
            await task
        assert not hangs.done()
        hangs.cancel()

    asyncio.run(scenario())


def test_who_has_no_time_to_wait_for_company_goes_out_beside() -> None:
    async def scenario() -> None:
        server = Timed(fixed=0.2, per_row=0.0)
        queue = server.batcher()
        await ask_again_and_again(queue, clients=8, rounds=4)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.1)
        server.has_begun.clear()
        under_way = asyncio.create_task(queue.submit(row(1), deadline=FAR))
        await server.has_begun.wait()
        hurried = asyncio.create_task(queue.submit(row(2), deadline=loop.time() + 0.25))
        await settled()
        assert server.running == 2
        await asyncio.gather(under_way, hurried)

    asyncio.run(scenario())


def test_a_full_batch_does_not_wait_behind_others_who_wait_for_company() -> None:
    async def scenario() -> None:
        server = Timed(fixed=0.2, per_row=0.0)

        async def predict(rows: Sequence[Row], timeout: float, traceparent: str | None) -> NDArray[np.float32]:  # noqa: ASYNC109
            return await server.predict([row[:1] for row in rows], timeout, traceparent)

        queue = Batcher(predict, model="m", max_batch_size=8, max_queue=1000, metrics=Metrics())
        await ask_again_and_again(queue, clients=4, rounds=10)
        await asyncio.sleep(0.2)
        server.has_begun.clear()
        tasks = [asyncio.create_task(queue.submit(row(1), deadline=FAR))]
        await server.has_begun.wait()
        tasks.append(asyncio.create_task(queue.submit(row(2), deadline=FAR)))
        await settled()
        assert server.running == 1
        tasks += [asyncio.create_task(queue.submit(np.ones(200, np.int32), deadline=FAR)) for _ in range(8)]
        await settled()
        assert server.running == 2
        assert server.calls[-1] == 8
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


def test_a_call_that_was_held_up_tells_little_of_the_next() -> None:
    cost = CallCost()
    for rows in (1, 2, 8, 3, 16, 5) * 20:
        cost.learn(rows, 0.003 + 0.001 * rows)
    cost.learn(2, 9.0)
    assert cost.foretell(2) < 0.01
    for rows in (1, 2, 8, 3, 16, 5) * 40:
        cost.learn(rows, 0.03 + 0.01 * rows)  # ten times as slow, from now on
    assert cost.foretell(2) == pytest.approx(0.05, rel=0.05)


def test_what_a_call_and_what_a_row_costs_is_told_apart_and_remembered() -> None:
    cost = CallCost()
    for _ in range(10):
        cost.learn(4, 0.005)
    assert cost.foretell(4) == 0  # calls of one size tell nothing yet
    for rows in (1, 2, 8, 3, 16, 5) * 20:
        cost.learn(rows, 0.003 + 0.0005 * rows)
    for _ in range(1000):
        cost.learn(8, 0.007)
    assert cost.fixed == pytest.approx(0.003, rel=0.02)
    assert cost.per_row == pytest.approx(0.0005, rel=0.02)
    assert cost.foretell(10) == pytest.approx(0.008, rel=0.02)


def test_a_cost_is_never_negative() -> None:
    sinking, proportional = CallCost(), CallCost()
    for rows in (1, 2, 8, 3, 16, 5) * 5:
        sinking.learn(rows, 0.02 - 0.001 * rows)
        proportional.learn(rows, 0.001 * rows**2)
    assert sinking.per_row == 0
    assert sinking.fixed > 0
    assert proportional.fixed == pytest.approx(0, abs=1e-12)
    assert proportional.per_row > 0


def test_the_rows_of_those_who_gave_up_are_not_held_while_calls_hang() -> None:
    async def scenario() -> None:
        server = Server()
        server.open.clear()
        queue = batcher(server, max_queue=10)
        hanging = [asyncio.create_task(queue.submit(row(0), deadline=FAR))]
        await settled()
        gone = [row(number) for number in range(100)]
        held = [weakref.ref(one) for one in gone]
        while gone:
            impatient = asyncio.create_task(queue.submit(gone.pop(), deadline=FAR))
            await settled()
            impatient.cancel()
            await asyncio.wait([impatient])
            del impatient
        assert sum(one() is not None for one in held) <= 2 * 10 + 2  # and what is in flight
        server.open.set()
        await asyncio.gather(*hanging)

    asyncio.run(scenario())

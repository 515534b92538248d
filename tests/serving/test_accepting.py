"""Connections are taken as they come, and shared out among the workers."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator, MutableSequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar, cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serving.http.accepting import (
    ABSENT,
    BYTES,
    FILE,
    Acceptor,
    Loop,
    OpenConnections,
    open_connections,
    prepare_open_connections,
)
from serving.http.connections import limited_connection
from serving.settings import Settings

CROWD = 300


@pytest.fixture(autouse=True)
def no_connection_is_open() -> Iterator[None]:
    """Those of other tests in this process are not counted, nor are these among theirs."""
    open_connections.cache_clear()
    yield
    open_connections.cache_clear()


class Hello(asyncio.Protocol):
    """Says it, and holds the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"hello")


@contextmanager
def listening() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=CROWD)) as listener:
        yield listener


def come(listener: socket.socket, stack: ExitStack) -> socket.socket:
    """A client connects, and waits to be taken."""
    client = stack.enter_context(closing(socket.create_connection(listener.getsockname())))
    client.setblocking(False)
    return client


async def heard(client: socket.socket) -> bytes:
    """What a client is told first."""
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 30)


async def greeted(listener: socket.socket, stack: ExitStack, clients: int) -> None:
    """So many clients come, one after the other, and each hears the greeting."""
    for _ in range(clients):
        assert await heard(come(listener, stack)) == b"hello"


def taking(listener: socket.socket, counts: MutableSequence[int]) -> Acceptor:
    return Acceptor(asyncio.get_running_loop(), listener, Hello, OpenConnections(counts, 0))


def run(scenario: Coroutine[None, None, None]) -> None:
    async def scenario_and_end() -> None:
        await scenario
        await asyncio.sleep(0.1)  # the connections end with their clients'

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scenario_and_end())


def test_a_crowd_that_comes_at_once_is_taken() -> None:
    async def scenario() -> None:
        with listening() as listener, ExitStack() as stack:
            crowd = [come(listener, stack) for _ in range(CROWD)]
            counts = [0]
            acceptor = taking(listener, counts)
            for client in crowd:
                assert await heard(client) == b"hello"
            assert counts == [CROWD]
            acceptor.close()

    run(scenario())


def test_who_has_come_before_the_end_is_taken() -> None:
    async def scenario() -> None:
        with listening() as listener, ExitStack() as stack:
            acceptor = taking(listener, [CROWD, 0])  # they are rather the other's
            crowd = [come(listener, stack) for _ in range(CROWD)]
            acceptor.close()
            listener.close()
            for client in crowd:
                assert await heard(client) == b"hello"

    run(scenario())


def test_who_has_more_than_another_leaves_it_the_next_and_takes_it_when_the_other_does_not_come() -> None:
    async def scenario() -> None:
        with listening() as listener, ExitStack() as stack:
            counts = [0, 0]
            acceptor = taking(listener, counts)
            await greeted(listener, stack, 2)
            assert counts == [2, 0]
            hello = asyncio.create_task(heard(come(listener, stack)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert counts == [2, 0]
            assert not hello.done()
            assert await hello == b"hello"  # nobody waits for a worker that is stuck
            assert counts == [3, 0]
            for client in [come(listener, stack) for _ in range(CROWD)]:
                assert await heard(client) == b"hello"
            assert counts == [3 + CROWD, 0]
            acceptor.close()

    run(scenario())


@pytest.mark.parametrize("come_at_once", [True, False])
def test_of_two_that_take_connections_each_gets_its_share(*, come_at_once: bool) -> None:
    async def scenario() -> None:
        counts = [0, 0]
        loop = asyncio.get_running_loop()
        with listening() as listener, ExitStack() as stack:
            both = [
                Acceptor(loop, end, Hello, OpenConnections(counts, own))
                for own, end in enumerate([listener, stack.enter_context(listener.dup())])
            ]
            if come_at_once:
                for client in [come(listener, stack) for _ in range(100)]:
                    assert await heard(client) == b"hello"
            else:
                await greeted(listener, stack, 100)
            assert sum(counts) == 100
            assert min(counts) >= 40
            for acceptor in both:
                acceptor.close()
            assert min(counts) >= ABSENT

    run(scenario())


@pytest.mark.parametrize(("own", "other"), [(1, 0), (1000, ABSENT), (1251, 1000), (0, 0)])
def test_few_more_than_another_has_do_no_harm(own: int, other: int) -> None:
    assert not counted(own, other).another_has_fewer()


@pytest.mark.parametrize(("own", "other"), [(2, 0), (1252, 1000)])
def test_many_more_than_another_has_are_too_many(own: int, other: int) -> None:
    assert counted(own, other).another_has_fewer()


def counted(own: int, other: int) -> OpenConnections:
    connections = OpenConnections(counts := [0, other], 0)
    connections.add(own)
    assert counts == [own, other]
    return connections


def test_a_client_that_fails_before_it_is_connected_counts_no_more() -> None:
    async def scenario() -> None:
        def broken() -> asyncio.Protocol:
            raise RuntimeError("no protocol today")

        counts = [0]
        loop = asyncio.get_running_loop()
        with listening() as listener, ExitStack() as stack:
            acceptor = Acceptor(loop, listener, broken, OpenConnections(counts, 0))
            assert await heard(come(listener, stack)) == b""
            assert counts == [0]
            acceptor.close()

    run(scenario())


def test_until_a_worker_comes_nothing_is_left_to_it(tmp_path: Path) -> None:
    prepare_open_connections(tmp_path, 3)
    told = (tmp_path / FILE).read_bytes()
    assert [int.from_bytes(told[at : at + BYTES], "little") for at in range(0, len(told), BYTES)] == [ABSENT] * 6


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers that to everything."""
    del receive
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def serving(config: uvicorn.Config, listener: socket.socket) -> uvicorn.Server:
    """A server that has started, without its own way of ending."""
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    return server


Found = TypeVar("Found")


async def until(condition: Callable[[], Found]) -> Found:
    """A while, at most, until it holds → what it found."""
    async with asyncio.timeout(30):
        while not (found := condition()):  # noqa: ASYNC110  # what changes is the server's
            await asyncio.sleep(0.01)
    return found


def test_only_open_connections_are_waited_for_and_only_while_they_ask_nothing() -> None:
    connection = limited_connection(Settings())
    waited_for = connection.keywords["waited_for"]
    may_answer = asyncio.Event()

    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        await may_answer.wait()
        await ok(scope, receive, send)

    async def scenario() -> None:
        with listening() as listener, ExitStack() as stack:
            server = await serving(uvicorn.Config(patient, http=connection, lifespan="off"), listener)
            silent, leaving, asking = (come(listener, stack) for _ in range(3))
            await until(lambda: len(waited_for) == 3)
            for client in (leaving, asking):
                await asyncio.get_running_loop().sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: len(waited_for) == 1)
            silent.close()
            leaving.close()
            await until(lambda: not waited_for and len(server.server_state.connections) == 1)
            may_answer.set()
            assert await heard(asking)
            await until(lambda: list(waited_for) == list(server.server_state.connections))
            await server.shutdown(sockets=[listener])

    run(scenario())


@pytest.mark.parametrize("client_is", ["asking", "silent"])
def test_who_is_taken_when_the_server_is_asked_to_stop_is_answered_once_and_holds_it_up_no_longer(
    client_is: str,
) -> None:
    async def scenario() -> None:
        config = uvicorn.Config(ok, http=limited_connection(Settings()), lifespan="off", timeout_graceful_shutdown=60)
        with listening() as listener, ExitStack() as stack:
            server = await serving(config, listener)
            client = come(listener, stack)
            # in one turn of the loop: it is taken, and the server begins to stop
            server.servers[0]._take()  # type: ignore[attr-defined]  # noqa: SLF001
            stopping = asyncio.create_task(server.shutdown(sockets=[listener]))
            await asyncio.sleep(0.1)
            assert not stopping.done()
            if client_is == "asking":
                await asyncio.get_running_loop().sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"connection: close" in await heard(client)
            await asyncio.wait_for(stopping, 30)

    run(scenario())

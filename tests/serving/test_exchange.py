"""What comes over a connection is, byte for byte, what the HTTP server's own protocol would send."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving.http.connections import LINGER_SECONDS, limited_connection
from serving.settings import Settings

Send = Callable[[dict[str, Any]], Any]
Receive = Callable[[], Any]
App = Callable[[dict[str, Any], Receive, Send], Any]

QUIET_SECONDS = 0.5
"""After which nothing more is expected."""


def answering(*bodies: bytes, headers: list[tuple[bytes, bytes]] | None = None, status: int = 200) -> App:
    """An application that answers with these pieces of a body."""
    length = b"%d" % sum(map(len, bodies))

    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        told = [(b"content-length", length)] if headers is None else headers
        await send({"type": "http.response.start", "status": status, "headers": told})
        for number, body in enumerate(bodies):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies) - 1})

    return app


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answers with what it was asked, then waits for what else comes."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    told = repr([scope["method"], scope["path"], scope["raw_path"], scope["query_string"], scope["http_version"], body])
    await answering(told.encode())(scope, receive, send)


async def hasty(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answers before the body has come, and asks for it afterwards."""
    await answering(b"at once")(scope, receive, send)
    assert (await receive())["type"] == "http.disconnect"


async def broken(_: dict[str, Any], __: Receive, ___: Send) -> None:
    raise ValueError("a defect")


async def silent(_: dict[str, Any], __: Receive, ___: Send) -> None:
    """Answers nothing."""


APPS = {
    "whole": answering(b"abc"),
    "echo": echo,
    "hasty": hasty,
    "empty": answering(b""),
    "in pieces": answering(b"abc", b"def", b""),
    "of no length": answering(b"abc", headers=[]),
    "of no length, in pieces": answering(b"abc", b"", b"def", headers=[]),
    "too short": answering(b"abc", headers=[(b"content-length", b"4")]),
    "too long": answering(b"abc", headers=[(b"content-length", b"2")]),
    "nothing": answering(b"", headers=[], status=204),
    "closing": answering(b"abc", headers=[(b"content-length", b"3"), (b"connection", b"close")]),
    "closing, in capitals": answering(b"abc", headers=[(b"content-length", b"3"), (b"Connection", b"Close")]),
    "capitals": answering(b"abc", headers=[(b"Content-Length", b"3"), (b"X-Y", b"z")]),
    "broken": broken,
    "silent": silent,
}
REQUESTS = {
    "get": b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\n\r\n",
    "head": b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    "post": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyz",
    "chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n",
    "expects": b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nxyz",
    "old": b"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
    "last": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "upgrade": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "two": 2 * b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyz",
    "half": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nxyz",
}


async def serve(
    protocol: Any, app: App, app_state: dict[str, Any] | None = None, **options: Any
) -> tuple[asyncio.Server, ServerState]:
    config = uvicorn.Config(
        app, log_config=None, access_log=False, ws="none", lifespan="off", proxy_headers=False, **options
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: protocol(config=config, server_state=state, app_state=app_state or {}, _loop=loop), "127.0.0.1", 0
    )
    return server, state


async def asked(protocol: Any, app: App, request: bytes) -> bytes:
    """What comes back until the connection is closed, or nothing more does."""
    server, state = await serve(protocol, app)
    received = b""
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request)
        try:
            while piece := await asyncio.wait_for(reader.read(65536), QUIET_SECONDS):
                received += piece
            received += b"<closed>"
        except TimeoutError:
            pass
        writer.close()
        if state.tasks:
            await asyncio.wait(state.tasks)
    return received


async def all_asked(protocol: Any, app: App) -> dict[str, bytes]:
    """By the name of the request."""
    answers = await asyncio.gather(*(asked(protocol, app, request) for request in REQUESTS.values()))
    return dict(zip(REQUESTS, answers, strict=True))


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_an_answer_is_the_same_as_the_servers_own(app: App) -> None:
    theirs = uvloop.run(all_asked(HttpToolsProtocol, app))
    assert uvloop.run(all_asked(limited_connection(Settings()), app)) == theirs
    assert [name for name, answer in theirs.items() if not answer] == (["half"] if app is echo else [])


def ours(app: App, request: bytes) -> bytes:
    return uvloop.run(asked(limited_connection(Settings()), app, request))


@pytest.mark.parametrize("value", [b"a\nX-Y: b", b"a\rb", b"a\r\n\r\nb", b"a\0b"])
def test_a_header_that_is_not_one_line_of_text_never_goes_out(value: bytes) -> None:
    app = answering(b"abc", headers=[(b"content-length", b"3"), (b"x-a", value)])
    assert re.match(rb"HTTP/1.1 500 [^\0]*Internal Server Error$", ours(app, REQUESTS["get"]).removesuffix(b"<closed>"))


def test_what_fails_before_its_body_is_a_500_and_no_half_of_an_answer() -> None:
    async def app(_: dict[str, Any], __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        raise ValueError("a defect")

    assert ours(app, REQUESTS["get"]).startswith(b"HTTP/1.1 500 ")


def test_who_does_not_read_a_last_answer_keeps_nobody_out() -> None:
    async def scenario() -> bytes:
        app = answering(b"x" * 20_000_000)  # more than the kernel holds
        server, state = await serve(limited_connection(Settings(max_connections=2)), app)
        async with server:
            address = server.sockets[0].getsockname()
            held = [await asyncio.open_connection(*address) for _ in range(2)]
            for reader, writer in held:
                # what it has read ahead is not asked for, and so nothing more is read
                writer.write(REQUESTS["last"])
                await reader.readexactly(1)
            if state.tasks:
                await asyncio.wait(state.tasks)
            reader, writer = await asyncio.open_connection(*address)
            writer.write(REQUESTS["last"])
            answer = await reader.readexactly(len(b"HTTP/1.1 200"))
            for _, opened in [*held, (reader, writer)]:
                opened.transport.abort()
            await asyncio.sleep(0.1)  # in which the connections end
            return answer

    assert uvloop.run(scenario()) == b"HTTP/1.1 200"


def test_a_second_body_may_come_slowly_after_a_first_answer() -> None:
    """The moment for who is answered before the body has come is not the next request's."""

    async def scenario() -> bytes:
        server, _ = await serve(limited_connection(Settings()), echo)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(REQUESTS["post"] + REQUESTS["half"])
            await asyncio.sleep(LINGER_SECONDS + QUIET_SECONDS)
            writer.write(b"abcdef")
            answers = await reader.readuntil(b"b'xyzabcdef']")
            writer.close()
            return answers

    assert uvloop.run(scenario()).count(b"HTTP/1.1 200") == 2

"""A request and its answer on a connection, as the HTTP server hands them to the application: ASGI at little cost."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uvicorn._types import ASGIReceiveEvent, ASGISendEvent

UNUSUAL = frozenset({b"connection", b"transfer-encoding"})
"""Headers of an answer that the server must understand."""


class Exchange(RequestResponseCycle):
    """The server's own cycle, with a short way for what is usual: an answer that comes whole.

    That goes out in one piece, the head together with its body. Each piece would be a call of the kernel and a packet,
    and wake whoever reads for half an answer. All else goes the server's way.

    Args:
        connection: that the request came on.
        scope: the request's.
        keep_alive: whether the connection stays open after the answer.
        on_end: is told of this exchange once it is answered.
    """

    access_log = False
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding = None
    expected_content_length = 0
    received = 0
    """Bytes of the body that were received."""

    def __init__(
        self, connection: HttpToolsProtocol, scope: Any, *, keep_alive: bool, on_end: "Callable[[Exchange], None]"
    ) -> None:
        # not the server's: most of what that sets is the same for all, and stands above
        self.scope = scope
        self.transport = connection.transport
        self.flow = connection.flow
        self._pipeline = connection.pipeline
        self.logger = connection.logger
        self.access_logger = connection.access_logger
        self.default_headers = connection.server_state.default_headers
        self.on_response = partial(on_end, self)
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = connection.expect_100_continue
        self.body = bytearray()
        self._pieces: list[bytes] = []
        self._has_news = False
        self._waits_for_news: asyncio.Event | None = None
        self._start: ASGISendEvent | None = None

    @property
    def message_event(self) -> "Exchange":  # type: ignore[override]  # the server only sets it
        """What the server sets when there is news of the client."""
        return self

    def set(self) -> None:
        """There is news of the client: more of the body, its end, or that of the connection."""
        self._has_news = True
        if self._waits_for_news is not None:
            self._waits_for_news.set()

    def take(self, piece: bytes) -> None:
        """More of the body has come, which the parser does not see."""
        self._pieces.append(piece)
        # until it is received; but the end of a connection is heard only while it is read
        if self.more_body and sum(map(len, self._pieces)) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.set()

    async def receive(self) -> "ASGIReceiveEvent":
        """The body as far as it has come since, or that the client has gone away."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            if not self._pipeline:
                self.flow.resume_reading()
            if not self._has_news:
                self._waits_for_news = self._waits_for_news or asyncio.Event()
                self._waits_for_news.clear()
                await self._waits_for_news.wait()
            self._has_news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        # of one piece nothing is copied, and most are received one by one
        body = b"".join(self._pieces) if self._pieces else bytes(self.body)
        self._pieces, self.body = [], bytearray()
        self.received += len(body)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: "ASGISendEvent") -> None:
        """The head, which is held back, and then the body, with which it is sent."""
        if message["type"] == "http.response.start" and not self.response_started:
            self._start = message
            return
        start: Any = self._start
        self._start = None
        if start is not None:
            if self.flow.write_paused and not self.disconnected:
                await self.flow.drain()
                self.disconnected = self.disconnected or self.transport.is_closing()
            if self._is_usual(start, message):
                whole: Any = message
                self.answer(start["status"], start["headers"], whole.get("body", b""))
                return
            await super().send(start)
        await super().send(message)

    def _is_usual(self, start: Any, message: Any) -> bool:
        """Whether an answer comes whole, and there is nothing in its head for the server to see to."""
        fields = dict(start["headers"])
        return (
            fields.get(b"content-length") == b"%d" % len(message.get("body", b""))
            and not message.get("more_body", False)
            and not self.disconnected
            and self.scope["method"] != "HEAD"
            and UNUSUAL.isdisjoint(fields)
            and b"".join(fields).islower()
        )

    def answer(self, status: int, headers: "Iterable[tuple[bytes, bytes]]", body: bytes) -> None:
        """Send a whole answer; nothing of it was sent before."""
        headers = [*self.default_headers, *headers]
        # whoever waits to be told to go on may never send its body: what comes next would be taken for that
        if not self.keep_alive or (self.waiting_for_100_continue and self.more_body):
            headers.append((b"connection", b"close"))
        answer = whole_answer(status, headers, body)
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self._pieces.clear()  # a connection has its last exchange until the next one
        self.transport.write(answer)
        self.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def whole_answer(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
    """An answer as it goes over the wire, in one piece.

    Raises:
        RuntimeError: a header would be more than one line.
    """
    head = STATUS_LINE[status] + b"\r\n".join([b": ".join(header) for header in headers]) + b"\r\n\r\n"
    # one line each, one for the status, and an empty one
    if not head.count(b"\n") == head.count(b"\r") == len(headers) + 2 or b"\0" in head:
        raise RuntimeError("A header of an answer is not one line of text.")
    return head + body

"""HTTP connections that cannot be held for nothing: limits on their number, and on the time and size of headers."""

import asyncio
import functools
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http.middleware import give_up
from serving.problems import BadRequest, HeadersTooLarge, Problem, RequestTimeout
from serving.settings import Settings

logger = logging.getLogger("sightread.connections")


LINGER_SECONDS = 2.0


class JoinedWrites:
    """A transport that sends an answer's head together with its body.

    The server writes them one after the other. Each write would be a call of the kernel and a packet, and wake whoever
    reads for half an answer.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send what was held back and this, or hold this back for this turn of the loop."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        else:
            self._head = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Close once all is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""


class LimitedConnection(HttpToolsProtocol):
    """A connection of the HTTP server, which itself limits none of this.

    What is refused here is refused before there is a request: the answer is a problem document, and the connection
    is closed.
    """

    def __init__(self, *arguments: Any, settings: Settings, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._settings = settings
        self._header_bytes = 0
        self._in_headers = True
        self._idle_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self._settings.max_connections and not self._push_out():
            # no words: who opens this many reads none, and each would cost
            transport.abort()
            return
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]  # it does what one does
        self._idle_since = self.loop.time()
        self._start_timer()

    def _push_out(self) -> bool:
        """Make room: the connection that has idled longest goes, so that a crowd of idlers keeps nobody out."""
        idle = {
            other: other._idle_since  # noqa: SLF001  # our own kind
            for other in self.connections
            if isinstance(other, LimitedConnection) and other._idle_since is not None  # noqa: SLF001
        }
        if not idle:
            return False
        idler = min(idle, key=idle.__getitem__)
        self.connections.discard(idler)
        idler.transport.abort()
        return True

    def data_received(self, data: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            return  # it was refused; what still comes is nobody's
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._timer is None:
            self._start_timer()
        # a body's first bytes may have come in the same piece as the last of the headers: only what is still
        # unfinished can be told to be too long by its length
        if self._in_headers and self._header_bytes > self._settings.max_header_bytes:
            self._refuse_headers()

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._header_bytes = 0
        self._stop_timer()  # it starts anew when this piece of data did not hold them all
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._idle_since = None
        self._stop_timer()
        size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        if size > self._settings.max_header_bytes:
            self._refuse_headers()
            raise ValueError("refused")  # ends the parsing; see send_400_response
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read, and what ended the parsing because it was refused already."""
        self._refuse(BadRequest(f"{msg.rstrip('.')}: it is not valid HTTP/1.1."))

    def on_response_complete(self) -> None:
        if not self.pipeline:
            self._idle_since = self.loop.time()
        if self.cycle.more_body:
            # answered before its body had come: what still trickles in must not hold the connection; but who is still
            # sending gets a moment to read the answer
            self.loop.call_later(LINGER_SECONDS, self._close_after, self.cycle)
        super().on_response_complete()

    def _close_after(self, cycle: object) -> None:
        if self.cycle is cycle:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self.transport is None:  # it was turned away at the door
            return
        super().connection_lost(exc)
        if self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete:
            give_up(self.cycle.scope.get("state", {}))

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self._settings.header_seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._refuse(RequestTimeout(f"The headers took more than {self._settings.header_seconds:g} seconds."))

    def _refuse_headers(self) -> None:
        most = self._settings.max_header_bytes
        self._refuse(HeadersTooLarge(f"The path and the headers have more than {most:,} bytes."))

    def _refuse(self, problem: Problem) -> None:
        if not self.transport.is_closing():
            logger.info("refused", extra={"status": problem.status, "reason": problem.detail})
            body = problem.json()
            head = (
                f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: application/problem+json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()


def limited_connection(settings: Settings) -> Any:
    """The protocol class for `uvicorn.Config(http=…)`."""
    return functools.partial(LimitedConnection, settings=settings)

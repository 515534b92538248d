"""HTTP connections that cannot be held for nothing: limits on their number, and on the time and size of headers."""

import asyncio
import functools
import itertools
import logging
import select
from collections import OrderedDict
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http.accepting import open_connections
from serving.http.alarms import alarms_of
from serving.http.exchange import Exchange
from serving.http.middleware import give_up
from serving.problems import BadRequest, HeadersTooLarge, Problem, RequestTimeout
from serving.settings import Settings

if TYPE_CHECKING:  # the parent of workers does without what it needs
    from serving.http.plain_way import PlainWay

logger = logging.getLogger("sightread.connections")

PLAIN_WAY = "sightread.plain_way"
"""Where the state of the application's lifespan has it, if there is one."""
LINGER_SECONDS = 2.0
LOOKED_AT = 8
"""Idlers, at most, to find one whose next request has not come."""
MOST_PIPELINED = 100
"""Requests of one connection that wait for their turn: what comes beyond them is not looked at before …"""
LOOKED_INTO = 16 * 1024
"""… and so many bytes at once."""
OF_AN_UPGRADE = frozenset({b"connection", b"upgrade", b"http2-settings"})
"""Headers by which a client asks for another protocol. It may be answered as if it had not."""

WaitedFor = OrderedDict["LimitedConnection", None]
"""The connections whose clients are to ask something, or to read: the longer, the further in front."""


class LimitedConnection(HttpToolsProtocol):
    """A connection of the HTTP server, which itself limits none of this.

    What is refused here is refused before there is a request: the answer is a problem document, and the connection
    is closed.
    """

    def __init__(self, *arguments: Any, settings: Settings, waited_for: WaitedFor, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._settings = settings
        self._waited_for = waited_for
        self._alarms = alarms_of(self.loop)
        self._piece_bytes = 0
        self._first_piece_bytes = 0
        self._header_bytes = 0
        self._in_headers = True
        self._bytes_beside_body = 0
        self._is_in_request = False
        """Whether the parser is within one: its next bytes are that one's."""
        self._rest = b""
        """What has come and was not looked at yet."""
        self._is_idle = False
        """Whether the client has asked nothing that is still to be answered."""
        self._is_unread = False
        """Whether the client does not read what was written."""
        self._body_to_come = 0
        """Bytes of the body of a request that the parser has not seen."""
        self._body_of: Exchange | None = None
        """Whose body that is; None where nobody reads it, since its request was refused."""
        self._plain_way: PlainWay | None = self.app_state.get(PLAIN_WAY)
        self._unread_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self._settings.max_connections and not self._push_out():
            # no words: who opens this many reads none, and each would cost
            transport.abort()
            return
        super().connection_made(transport)
        self.client = client_without_mapping(self.client)
        self._is_idle = True
        self._wait_for()
        self._start_timer()
        if open_connections().is_closed:
            # it was taken when the server was asked to stop, which closes idle connections: nobody looks at this one
            self.loop.call_later(LINGER_SECONDS, self._close_idle)

    def shutdown(self) -> None:
        if self._is_idle and self._has_asked():
            # what has come is read next, and its answer is the connection's last
            self.loop.call_later(LINGER_SECONDS, self._close_idle)
        else:
            super().shutdown()

    def _close_idle(self) -> None:
        if self._is_idle:
            self.transport.close()

    def _push_out(self) -> bool:
        """Make room: whoever idled longest, or did not read, goes, so that a crowd of these keeps nobody out."""
        longest = itertools.islice(self._waited_for, LOOKED_AT)
        idler = next((other for other in longest if not other._has_asked()), None)  # noqa: SLF001  # our own kind
        if idler is None:
            return False
        self.connections.discard(idler)
        del self._waited_for[idler]
        idler.transport.abort()
        return True

    def _wait_for(self) -> None:
        """From now on the client is waited for: it is to ask something, or to read."""
        if self in self.connections:  # and has not gone while it was answered
            self._waited_for[self] = None
            self._waited_for.move_to_end(self)

    def _stop_waiting(self) -> None:
        if not self._is_idle and not self._is_unread:
            self._waited_for.pop(self, None)

    def _has_asked(self) -> bool:
        """Whether something has come that the event loop did not get round to reading, of a client that reads, too."""
        if self._is_unread:
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), select.POLLIN)
        return bool(poll.poll(0))

    def pause_writing(self) -> None:
        self._wait_for_reader()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._is_unread = False
        self._stop_waiting()
        self._alarms.call_off(self._give_reader_up)
        super().resume_writing()

    def _wait_for_reader(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._is_unread = True
        self._wait_for()
        self._alarms.set(self._give_reader_up, self.loop.time() + self.timeout_keep_alive)

    def _give_reader_up(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread_bytes:
            self._wait_for_reader()  # it is slow, but it reads
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._body_to_come and not (data := self._take_body(data)):
            return
        if self._plain_way is not None and self._is_at_rest() and self._goes_plainly(self._plain_way, data):
            return
        for start in range(0, len(data), LOOKED_INTO):
            if self.transport is None or self.transport.is_closing():
                return  # it was refused; what still comes is nobody's
            if len(self.pipeline) >= MOST_PIPELINED:
                self._rest = data[start:]
                return
            self._look_into(data[start : start + LOOKED_INTO])

    def _goes_plainly(self, way: "PlainWay", data: bytes) -> bool:
        """Whether what has come is a plain request, which is answered, or refused, without the parser."""
        is_crowded = not way.shedder.lets_in()
        request = way.requests.read(data)
        if request is None:
            return False
        # empty lines may stand between requests: what came of them does not add up
        self._header_bytes = self._bytes_beside_body = 0
        refusal = way.shedder.refusal(request, self.server_state.default_headers) if is_crowded else None
        if refusal is not None:
            self._shed(refusal, request.bytes_to_come)
            return True
        self._in_headers = False
        self._is_idle = False
        self._stop_waiting()
        self._stop_timer()
        self._unset_keepalive_if_required()
        self.expect_100_continue = False  # that was said by another request, if at all
        self.cycle = Exchange(self, request.scope(), keep_alive=True, on_end=self._end)
        self._expect_body(request.bytes_to_come, self.cycle)
        self.cycle.take(request.body)
        self._start_asgi_task(self.cycle, functools.partial(way.answer, self.cycle, request.head))
        return True

    def _shed(self, answer: bytes, body_to_come: int) -> None:
        """Send a refusal, and have nobody read the rest of the body."""
        self.server_state.total_requests += 1
        self._stop_timer()
        self._wait_for()
        self._alarms.set(self.timeout_keep_alive_handler, self.loop.time() + self.timeout_keep_alive)
        self.transport.write(answer)
        self._expect_body(body_to_come, None)
        if body_to_come:
            # what trickles in must not hold the connection; but who is still sending gets a moment to read the answer
            self._alarms.set(self._give_sender_up, self.loop.time() + LINGER_SECONDS)

    def _expect_body(self, size: int, exchange: Exchange | None) -> None:
        self._body_to_come = size
        self._body_of = exchange
        if exchange is not None:
            exchange.more_body = size > 0

    def _take_body(self, data: bytes) -> bytes:
        """Pass on what belongs to a body whose head the parser has not seen, or drop it → the rest."""
        size = min(self._body_to_come, len(data))
        self._body_to_come -= size
        if not self._body_to_come:
            self._alarms.call_off(self._give_sender_up)
        if self._body_of is not None:
            self._body_of.more_body = self._body_to_come > 0
            if not self._body_of.response_complete:
                self._body_of.take(data[:size])
        return data[size:]

    def _give_sender_up(self) -> None:
        self.transport.close()

    def _is_at_rest(self) -> bool:
        """Whether the next request begins with what comes now, and its answer need not be the connection's last."""
        is_busy = self._is_in_request or not self._is_idle or self._is_unread or self._rest
        return not is_busy and not open_connections().is_ending

    def _look_into(self, data: bytes) -> None:
        self._piece_bytes = len(data)
        self._bytes_beside_body += self._piece_bytes
        if self._in_headers:
            self._header_bytes += self._piece_bytes
        self._parse(data)
        if self._in_headers and self._timer is None:
            self._start_timer()
        # a body's first bytes may have come in the same piece as the last of the headers: only what is still
        # unfinished can be told to be too long by its length
        if self._in_headers and self._header_bytes > self._settings.max_header_bytes:
            self._refuse_headers()
        if not self._in_headers and self._bytes_beside_body > self._settings.max_header_bytes:
            self._refuse_trailers()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as upgrade:
            if self.parser.get_method() != b"CONNECT":
                (parsed,) = upgrade.args
                self._parse(self._head_without_upgrade() + data[parsed:])

    def _head_without_upgrade(self) -> bytes:
        """The request's head for a new parser: the one that was asked for an upgrade reads no body."""
        target = self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()
        headers = [header for header in self.headers if header[0] not in OF_AN_UPGRADE]
        if any(b"close" in value.lower() for name, value in self.headers if name == b"connection"):
            headers.append((b"connection", b"close"))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the server does
        return b"\r\n".join([target, *(b": ".join(header) for header in headers), b"", b""])

    def on_message_begin(self) -> None:
        self._is_in_request = True
        self._in_headers = True
        self._first_piece_bytes = self._piece_bytes
        self._header_bytes = 0
        self._stop_timer()  # it starts anew when this piece of data did not hold them all
        self._unset_keepalive_if_required()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # and not after the body: whoever passed the headers on has not seen these
            super().on_header(name, value.rstrip(b" \t"))  # blanks around a value are no part of it (RFC 9110, 5.5)

    def on_body(self, body: bytes) -> None:
        self._bytes_beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_request = False
        self._bytes_beside_body = 0
        if not self._asks_for_upgrade():
            self.cycle.more_body = False  # of one that was answered before, the server takes no note
            super().on_message_complete()

    def _asks_for_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def on_headers_complete(self) -> None:
        """Begin the exchange, as the server does, which also knows upgrades and paths mounted below another."""
        self._in_headers = False
        self._bytes_beside_body = 0
        self._is_idle = False
        self._stop_waiting()
        self._stop_timer()
        self._check_header_bytes()
        if self._asks_for_upgrade():
            return  # its head is parsed anew
        version, url = self.parser.get_http_version(), httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        self.scope["path"] = unquote(path) if "%" in path else path
        self.scope["raw_path"] = url.path
        self.scope["query_string"] = url.query or b""
        before = self.cycle
        # in time, so that nobody asks again on a connection that is closed at that moment
        is_ending = open_connections().is_ending
        keep_alive = version != "1.0" and self.parser.should_keep_alive() and not is_ending
        self.cycle = Exchange(self, self.scope, keep_alive=keep_alive, on_end=self._end)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _check_header_bytes(self) -> None:
        if self._first_piece_bytes + self._header_bytes <= self._settings.max_header_bytes:
            return  # that is all that has come, what is not of these headers included
        size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        if size > self._settings.max_header_bytes:
            self._refuse_headers()
            raise ValueError("refused")  # ends the parsing; see send_400_response

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read, and what ended the parsing because it was refused already."""
        self._refuse(BadRequest(f"{msg.rstrip('.')}: it is not valid HTTP/1.1."))

    def _end(self, exchange: Exchange) -> None:
        # take the next request, as the server does, which has a timer of its own for each that is waited for
        self.server_state.total_requests += 1
        if exchange.more_body:
            # answered before its body had come: what still trickles in must not hold the connection; but who is still
            # sending gets a moment to read the answer
            self.loop.call_later(LINGER_SECONDS, self._close_after, exchange)
        if not self.pipeline:
            self._is_idle = True
            self._wait_for()
        if self.transport.is_closing():
            return  # when the client has read what there is; until then it may be pushed out
        if self.pipeline:
            # read on when the last of these wants its body, or was answered; until then nothing comes behind the rest
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.flow.resume_reading()
            if not self._in_headers:  # the next request has not begun
                self._alarms.set(self.timeout_keep_alive_handler, self.loop.time() + self.timeout_keep_alive)
        if self._rest and len(self.pipeline) < MOST_PIPELINED:
            rest, self._rest = self._rest, b""
            self.data_received(rest)

    def _close_after(self, exchange: Exchange) -> None:
        if self.cycle is exchange and exchange.more_body:
            self.transport.close()

    def _unset_keepalive_if_required(self) -> None:
        self._alarms.call_off(self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        open_connections().add(-1)
        self._waited_for.pop(self, None)
        self._stop_timer()
        self._unset_keepalive_if_required()
        self._alarms.call_off(self._give_reader_up)
        self._alarms.call_off(self._give_sender_up)
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
        if self.flow.read_paused:  # it is we who do not read
            self._start_timer()
            return
        self._refuse(RequestTimeout(f"The headers took more than {self._settings.header_seconds:g} seconds."))

    def _refuse_headers(self) -> None:
        most = self._settings.max_header_bytes
        self._refuse(HeadersTooLarge(f"The path and the headers have more than {most:,} bytes."))

    def _refuse_trailers(self) -> None:
        most = self._settings.max_header_bytes
        if self.cycle.response_started:
            self.transport.abort()
        else:
            self._refuse(HeadersTooLarge(f"Beside its chunks the body has more than {most:,} bytes."))

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


def client_without_mapping(client: tuple[str, int] | None) -> tuple[str, int] | None:
    """A client's address and port; of one that asks an IPv6 socket over IPv4 its IPv4 address, by which it is known."""
    if client is None or not client[0].startswith("::ffff:"):
        return client
    return str(IPv6Address(client[0]).ipv4_mapped or client[0]), client[1]


def limited_connection(settings: Settings) -> Any:
    """The protocol class for `uvicorn.Config(http=…)`."""
    return functools.partial(LimitedConnection, settings=settings, waited_for=OrderedDict())

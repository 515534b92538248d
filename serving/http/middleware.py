"""Around every request: its id, its body's limit, its line in the log and its place in the metrics. Plain ASGI."""

import asyncio
import logging
import random
import re
from collections.abc import Mapping, MutableMapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.errors import defect, problem_response
from serving.http.headers import announced_length, header
from serving.logs import log_request
from serving.metrics import Metrics
from serving.problems import Overloaded, TooLarge, Unavailable
from serving.tracing import TRACEPARENT

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from serving.spans import Spans

logger = logging.getLogger("sightread.requests")
defects = logging.getLogger("sightread.defects")

ACCEPTABLE_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""What of a client's request id may go into our logs and headers."""


SECURITY_HEADERS: Mapping[bytes, bytes] = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
"""On every response; a page that needs more sets a policy of its own."""

CLIENT_CLOSED_REQUEST = 499
"""In the log and the metrics, after nginx: who would get a status is gone."""
TIME_IS_UP = Unavailable("The service was asked to stop, and this took longer than it waits.", retry_after=1)
MAX_LOGGED_PATH = 200
MAX_TRACEPARENT = 128
TRACEPARENT_LINE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?")
"""Such as gRPC hands on: its metadata are printable ASCII, and one that it refuses would fail a whole batch."""


def give_up(state: MutableMapping[str, Any]) -> None:
    """End the work on a request whose client has gone away, by the request's `state`."""
    if task := state.get("task"):
        state["given_up"] = True
        task.cancel()


class RequestRecord:
    """Gives a request its id, echoes it, writes one log line and counts it.

    Endpoints say in `request.state` which `model` and `version` answered.

    Args:
        app: answers.
        metrics: where it is counted.
        spans: what traces it, or None.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, spans: "Spans | None" = None) -> None:
        self._app = app
        self._metrics = metrics
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        request_id = request_id_of(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["task"] = asyncio.current_task()
        follow_trace(scope)
        span = None if self._spans is None else self._spans.request(scope, request_id)
        status = 0
        has_ended = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, has_ended
            has_ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                told = dict(message["headers"])  # Starlette writes their names in lower case
                ours = [header for header in SECURITY_HEADERS.items() if header[0] not in told]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *ours]
            await send(message)

        self._metrics.in_flight.add(1)
        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError as stop:
            if status and not state.get("given_up", False):
                raise
            last_words = answer_to_failure(scope, stop)
            if last_words is None:
                status = CLIENT_CLOSED_REQUEST
            else:
                await last_words(scope, receive, send_with_id)
        except Exception as error:
            last_words = answer_to_failure(scope, error)
            if not status and last_words is not None:
                await last_words(scope, receive, send_with_id)
            elif not has_ended:
                raise  # the server closes the connection: nobody takes half an answer for a whole one
        finally:
            self._metrics.in_flight.add(-1)
            trace_id = None if self._spans is None or span is None else self._spans.answered(span, scope, status)
            tell_request(self._metrics, scope, status, perf_counter() - start, trace_id=trace_id)


def answer_to_failure(scope: Scope, failure: BaseException) -> Response | None:
    """What is answered to a request whose work ended so; None: whoever asked has gone away."""
    state = scope["state"]
    if isinstance(failure, asyncio.CancelledError):
        state["task"].uncancel()
        return None if state.get("given_up", False) else problem_response(Request(scope), TIME_IS_UP)
    defects.error("defect", exc_info=failure, extra={"request_id": state["request_id"]})
    return problem_response(Request(scope), defect())


def follow_trace(scope: Scope) -> None:
    """Have the calls that are made for a request carry its trace."""
    traceparent = header(scope, b"traceparent")[:MAX_TRACEPARENT]
    TRACEPARENT.set(traceparent if traceparent and TRACEPARENT_LINE.fullmatch(traceparent) else None)


def tell_request(metrics: Metrics, scope: Scope, status: int, seconds: float, *, trace_id: str | None = None) -> None:
    """Count a request that was answered, and write its line in the log.

    Args:
        metrics: where it is counted.
        scope: the request's; its `state` has the `request_id`, and the `model`, `version` and `client` if there are.
        status: of the answer.
        seconds: from its headers to the answer.
        trace_id: of its trace, or None.
    """
    state = scope["state"]
    model, version = state.get("model", ""), state.get("version", "")
    metrics.requests(model, version, status).inc()
    metrics.request_seconds(model).observe(seconds)
    fields = {
        "request_id": state["request_id"],
        "method": scope["method"],
        "path": scope["path"][:MAX_LOGGED_PATH],
        "status": status,
        "seconds": round(seconds, 6),
    }
    if model:
        fields |= {"model": model, "version": version}
    if client := state.get("client"):
        fields["client"] = client
    if traceparent := header(scope, b"traceparent")[:MAX_TRACEPARENT]:
        fields["traceparent"] = traceparent
    if trace_id is not None:
        fields["trace_id"] = trace_id
    log_request(logger, fields)


def request_id_of(scope: Scope) -> str:
    """The client's, or one of our own. It is no secret."""
    sent = header(scope, b"x-request-id")
    return sent if sent and ACCEPTABLE_ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"


class Bodies:
    """Those that came and are not answered yet: how many bytes they have together.

    Args:
        most: bytes that they may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0

    def hold(self, size: int) -> None:
        """So many bytes have come."""
        self._bytes += size

    def release(self, size: int) -> None:
        """So many are not needed any more."""
        self._bytes -= size

    def check(self) -> None:
        """Raise Overloaded where they are too many."""
        if self._bytes > self._most:
            raise Overloaded(f"{self._most:,} bytes of bodies wait to be answered already.", retry_after=1)


class BodyLimit:
    """Refuses a body over the limit: by its announced length at once, else when that many bytes have come.

    FastAPI's own limit stands around all other middleware: its refusals would have no id and no line in the log.

    Args:
        app: what is guarded.
        max_bytes: of one body.
        bodies: all that came and are not answered yet.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, bodies: Bodies) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_long = announced_length(scope) > self._max_bytes
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            if too_long:
                raise self._too_large()
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self._bodies.hold(size)
            if received > self._max_bytes:
                raise self._too_large()
            self._bodies.check()
            return message

        try:
            await self._app(scope, receive_within_limit, send)
        finally:
            self._bodies.release(received)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body has more than {self._max_bytes:,} bytes. Send a smaller one, or fewer items.")

"""The way of plain requests: from the connection to the endpoint, past the parser and the layers.

To a small input these take as long as all that makes its answer. Nearly all requests are plain.
"""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serving.http.api_keys import ApiKeys
from serving.http.endpoints import Endpoint
from serving.http.errors import disconnected, problem_response
from serving.http.exchange import Exchange
from serving.http.middleware import (
    CLIENT_CLOSED_REQUEST,
    SECURITY_HEADERS,
    Bodies,
    answer_to_failure,
    follow_trace,
    tell_request,
)
from serving.http.plain_requests import Head, PlainRequests
from serving.http.requests import Deadline, Items
from serving.http.shedding import Shedder
from serving.metrics import Metrics
from serving.problems import InternalError, Problem
from serving.settings import Settings
from serving.turns import Turns


class PlainWay:
    """Answers plain requests as the application does, or refuses them before that costs anything.

    Args:
        endpoints: that are asked.
        keys: who may come in; None for everybody.
        turns: who works on the event loop next.
        bodies: all that came and are not answered yet.
        metrics: where requests are counted.
        settings: the deadline, and the limits of what comes.

    Attributes:
        requests: reads them.
        shedder: refuses them.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        keys: ApiKeys | None,
        turns: Turns,
        bodies: Bodies,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self.requests = PlainRequests(endpoints, keys=keys, settings=settings)
        self.shedder = Shedder(endpoints, turns=turns, metrics=metrics)
        self._bodies = bodies
        self._metrics = metrics
        self._settings = settings

    async def answer(self, exchange: Exchange, head: Head, *_: Any) -> None:
        """Answer a request of this head, whose body may still come. The server calls it as it calls an application."""
        start = perf_counter()
        scope: Any = exchange.scope
        state = scope["state"]
        state["task"] = asyncio.current_task()
        follow_trace(scope)
        self._metrics.in_flight.add(1)
        status = InternalError.status
        try:
            response = await self._respond(exchange, head)
            if response is None:
                status = CLIENT_CLOSED_REQUEST
            else:
                status = response.status_code
                own = (b"x-request-id", state["request_id"].encode())
                if not exchange.disconnected:
                    exchange.answer(
                        status, [*response.raw_headers, own, *SECURITY_HEADERS.items()], bytes(response.body)
                    )
        finally:
            self._metrics.in_flight.add(-1)
            tell_request(self._metrics, scope, status, perf_counter() - start)

    async def _respond(self, exchange: Exchange, head: Head) -> Response | None:
        """The response, whatever happens; None: the client has gone away."""
        scope: Any = exchange.scope
        try:
            with Deadline(scope["state"]["task"], head.timeout, self._settings.deadline_seconds) as deadline:
                head.endpoint.classifier.check(deadline.at, is_large_picture=head.is_large_picture)
                items = await self._items(exchange, head)
                deadline.body_has_come()
                return await head.endpoint.answer(scope, head.options, items, deadline)
        except Problem as problem:
            return problem_response(Request(scope), problem)
        except ClientDisconnect:
            return problem_response(Request(scope), disconnected())
        except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001  # it is logged there
            return answer_to_failure(scope, failure)
        finally:
            self._bodies.release(exchange.received)

    async def _items(self, exchange: Exchange, head: Head) -> Items[Any]:
        """The items of a request, when its body is whole; nothing but they is kept of that."""
        pieces: list[bytes] = []
        more_body = True
        while more_body:
            message: Any = await exchange.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            pieces.append(message["body"])
            self._bodies.hold(len(message["body"]))
            self._bodies.check()
            more_body = message["more_body"]
        return head.endpoint.items_in(head.content_type, b"".join(pieces), max_items=self._settings.max_items)

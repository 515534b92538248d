"""Refusing at the door: under overload a plain request is told so from its head, before it becomes an exchange.

A refusal that went the way of an answer would cost as much as one. Whoever is asked for three times what it can do
refuses twice as many as it answers: nothing would be left for these. So what all refusals of one turn of the event
loop have in common is made once for them.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

from pydantic_core import to_json

from serving.classification import Forecast
from serving.http.endpoints import Endpoint
from serving.http.errors import PROBLEM_TYPE, instance_of
from serving.http.exchange import whole_answer
from serving.http.middleware import SECURITY_HEADERS, tell_request
from serving.http.plain_requests import PlainRequest
from serving.metrics import Metrics
from serving.pace import Strain
from serving.problems import Overloaded
from serving.turns import Turns

CROWD = 64
"""Items that wait, or were let in since: while there are fewer, the door stands open …"""
CROWD_SECONDS = 0.05
"""… if their turns take no longer than this: of larger pictures few are a crowd."""
ID = "0123456789abcdef" * 2
"""Stands for a request's id in what is made for many of them, and is as long as those that we make."""


class _Asked(NamedTuple):
    """Requests that wait for the same thing."""

    endpoint: Endpoint
    version: int | None


@dataclass
class _Verdict:
    """Who of them is refused in this turn of the event loop.

    Attributes:
        wait: seconds that are foretold; infinite without room.
        let_in: after how many others that was.
        problem: what they are told.
        pieces: the answer, around the request's id where that stands in it; None until there is one.
    """

    wait: float
    let_in: int
    problem: Overloaded
    pieces: list[bytes] | None = None


class Shedder:
    """Refuses requests for one item each, for which there would be no answer in time.

    Args:
        endpoints: whose requests are refused.
        turns: who works on the event loop next.
        metrics: where refusals are counted.
    """

    def __init__(self, endpoints: Iterable[Endpoint], *, turns: Turns, metrics: Metrics) -> None:
        self._turns = turns
        self._metrics = metrics
        self._strains = {endpoint: Strain() for endpoint in endpoints}
        self._verdicts: dict[_Asked, _Verdict] = {}
        self._waiting: int | None = None
        """At the beginning of this turn; None: nothing has come in it."""
        self._let_in = 0

    def lets_in(self) -> bool:
        """Whether whatever comes now is let in, since there is no crowd; if so, it is counted."""
        if self._waiting is None:
            queued = [endpoint.classifier.queued for endpoint in self._strains]
            self._waiting = self._turns.waiting + sum(queued)
            asyncio.get_running_loop().call_soon(self._end_turn)
        if self._waiting + self._let_in >= CROWD or self._turns.foretell(self._let_in) >= CROWD_SECONDS:
            return False
        self._let_in += 1
        return True

    def _end_turn(self) -> None:
        self._waiting = None
        self._let_in = 0
        self._verdicts.clear()

    def refusal(self, request: PlainRequest, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        """What a client is answered, as it goes over the wire; None: the request is let in.

        Args:
            request: what has come.
            headers: of every answer.
        """
        start = perf_counter()
        head = request.head
        # of a list whose beginning has not come one item is counted
        if head.options.explain or head.options.version_label is not None or head.endpoint.is_list(request.body):
            return None
        now = asyncio.get_running_loop().time()
        asked = _Asked(head.endpoint, head.options.version)
        verdict = self._verdict(asked)
        strain = self._strains[head.endpoint]
        if head.timeout >= verdict.wait * strain.headroom(now, head.timeout):
            self._let_in += 1
            return None
        strain.refused(now, head.timeout)
        return self._refuse(request, verdict, headers, start)

    def _refuse(
        self, request: PlainRequest, verdict: _Verdict, headers: Sequence[tuple[bytes, bytes]], start: float
    ) -> bytes:
        scope = request.scope()
        request_id: str = scope["state"]["request_id"]
        self._metrics.shed(scope["state"]["model"]).inc()
        if b"x-request-id" in request.head.headers:
            answer = _answer(verdict.problem, request_id, headers)
        else:
            if verdict.pieces is None:
                verdict.pieces = _answer(verdict.problem, ID, headers).split(ID.encode())
            answer = request_id.encode().join(verdict.pieces)
        tell_request(self._metrics, scope, Overloaded.status, perf_counter() - start)
        return answer

    def _verdict(self, asked: _Asked) -> _Verdict:
        verdict = self._verdicts.get(asked)
        if verdict is None or verdict.let_in != self._let_in:
            forecast = asked.endpoint.classifier.foretell(asked.version, self._let_in)
            wait = forecast.turn + forecast.queue
            problem = Overloaded(self._what_waits(asked, forecast), retry_after=max(1, math.ceil(wait)))
            verdict = _Verdict(math.inf if forecast.is_full else wait, self._let_in, problem)
            self._verdicts[asked] = verdict
        return verdict

    def _what_waits(self, asked: _Asked, forecast: Forecast) -> str:
        if forecast.turn > forecast.queue and not forecast.is_full:
            return f"{self._turns.waiting + self._let_in:,} inputs wait for their turn already."
        classifier = asked.endpoint.classifier
        return f"{classifier.queued:,} items wait for {classifier.model.name} already."


def _answer(problem: Overloaded, request_id: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    body = to_json(instance_of(problem, request_id))
    own = [
        (b"retry-after", b"%d" % (problem.retry_after or 0)),
        (b"content-length", b"%d" % len(body)),
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"x-request-id", request_id.encode()),
    ]
    return whole_answer(problem.status, [*headers, *own, *SECURITY_HEADERS.items()], body)

"""Refusing at the door: under overload a plain request is told so from its head, before it becomes an exchange.

A refusal that went the way of an answer would cost as much as one. Whoever is asked for three times what it can do
refuses twice as many as it answers: nothing would be left for these. So what all refusals of one turn of the event
loop have in common is made once for them.
"""

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

from pydantic_core import to_json
from starlette.types import Scope

from serving.classification import LARGE_PICTURE, Classifier, Forecast
from serving.http.api_keys import ApiKeys
from serving.http.errors import PROBLEM_TYPE, instance_of
from serving.http.exchange import whole_answer
from serving.http.guard import holder_of
from serving.http.headers import BY_NAME, header
from serving.http.middleware import SECURITY_HEADERS, request_id_of, tell_request
from serving.http.requests import parse_query, timeout_of
from serving.http.schemas import Options
from serving.metrics import Metrics
from serving.pace import Strain
from serving.problems import Overloaded, Problem
from serving.settings import Settings
from serving.turns import Turns

CROWD = 64
"""Items that wait, or were let in since: while there are fewer, the door stands open."""
HEAD = re.compile(
    rb"POST (/[a-z-]+)(?:\?([!-~]*))? HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+)\r\n"
)
"""Of a request as nearly all clients write it (RFC 9112; field names by RFC 9110). All else is left to the parser."""
ELSEWHERE = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection", b"content-encoding"})
"""Headers of which the parser, another layer or another refusal has to know."""
ONCE = (
    b"connection",
    b"content-length",
    b"content-type",
    b"x-request-id",
    b"x-request-timeout",
    b"authorization",
    b"x-api-key",
)
"""Headers of which two may contradict each other."""
MOST_DIGITS = 9
"""Of a body's length, in bytes."""
KEEP_ALIVE = [b"keep-alive"]
REMEMBERED = 256
"""Paths and queries, which clients choose; the limit of headers bounds each."""
ID = "0123456789abcdef" * 2
"""Stands for a request's id in what is made for many of them, and is as long as those that we make."""


@dataclass(frozen=True)
class Endpoint:
    """One whose requests are refused here."""

    classifier: Classifier
    options: type[Options]
    strain: Strain = field(default_factory=Strain)


class Refusal(NamedTuple):
    """What a client is answered.

    Attributes:
        answer: as it goes over the wire.
        body_to_come: bytes of the request's body that have not come yet.
    """

    answer: bytes
    body_to_come: int


@dataclass(frozen=True, eq=False)
class _Asked:
    """What requests of one path and query have in common."""

    path: str
    model: str
    classifier: Classifier
    version: int | None
    strain: Strain


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
    """Refuses requests for one small item each, for which there would be no answer in time.

    Args:
        endpoints: by their paths.
        turns: who works on the event loop next.
        keys: who may come in; None for everybody. Who may not hears that first, from the guard.
        metrics: where refusals are counted.
        settings: the deadline, and the limits of what comes.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        *,
        turns: Turns,
        keys: ApiKeys | None,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._turns = turns
        self._elsewhere = ELSEWHERE | {b"origin"} if settings.cors_origins else ELSEWHERE
        self._endpoints = {path.encode(): endpoint for path, endpoint in endpoints.items()}
        self._keys = keys
        self._metrics = metrics
        self._settings = settings
        self._asked: dict[tuple[bytes, bytes], _Asked | None] = {}
        self._verdicts: dict[_Asked, _Verdict] = {}
        self._waiting: int | None = None
        """At the beginning of this turn; None: nothing has come in it."""
        self._let_in = 0

    def lets_in(self) -> bool:
        """Whether whatever comes now is let in, since there is no crowd; if so, it is counted."""
        if self._waiting is None:
            queued = [endpoint.classifier.queued for endpoint in self._endpoints.values()]
            self._waiting = self._turns.waiting + sum(queued)
            asyncio.get_running_loop().call_soon(self._end_turn)
        if self._waiting + self._let_in >= CROWD:
            return False
        self._let_in += 1
        return True

    def _end_turn(self) -> None:
        self._waiting = None
        self._let_in = 0
        self._verdicts.clear()

    def refusal(self, sent: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Refusal | None:
        """What a client is answered to what came on a connection at rest; None: that is not for here to say.

        Args:
            sent: all that has come since its last request.
            headers: of every answer.
        """
        start = perf_counter()
        head = HEAD.match(sent)
        if head is None or head.end() > self._settings.max_header_bytes:
            return None
        asked = self._asked_for(head[1], head[2] or b"")
        scope = None if asked is None else self._scope(asked, head[3])
        if asked is None or scope is None:
            return None
        body_to_come = self._body_to_come(scope, sent, head.end())
        if body_to_come is None:
            return None
        now = asyncio.get_running_loop().time()
        verdict = self._verdict(asked)
        try:
            if self._keys is not None:
                scope["state"]["client"] = f"key of {holder_of(self._keys, scope)}"
            timeout = timeout_of(header(scope, b"x-request-timeout") or None, self._settings.deadline_seconds)
        except Problem:  # the guard or the endpoint tells it
            return None
        if timeout >= verdict.wait * asked.strain.headroom(now, timeout):
            self._let_in += 1
            return None
        asked.strain.refused(now, timeout)
        answer = self._refuse(asked, verdict, scope, headers)
        tell_request(self._metrics, scope, Overloaded.status, perf_counter() - start)
        return Refusal(answer, body_to_come)

    def _refuse(self, asked: _Asked, verdict: _Verdict, scope: Scope, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        self._metrics.shed(asked.model).inc()
        scope["state"]["request_id"] = request_id = request_id_of(scope)
        if b"x-request-id" in scope[BY_NAME]:
            return _answer(verdict.problem, request_id, headers)
        if verdict.pieces is None:
            verdict.pieces = _answer(verdict.problem, ID, headers).split(ID.encode())
        return request_id.encode().join(verdict.pieces)

    def _body_to_come(self, scope: Scope, sent: bytes, begin: int) -> int | None:
        """Bytes of a body with one small item that have not come yet; None: it has another one, or more follows."""
        (length,) = scope[BY_NAME].get(b"content-length", [b""])
        if not (length.isdigit() and len(length) <= MOST_DIGITS):
            return None
        to_come = begin + int(length) - len(sent)
        is_small = int(length) <= min(self._settings.max_body_bytes, LARGE_PICTURE - 1)
        # of a list whose beginning has not come one item is counted
        is_one = b'"texts"' not in sent and not header(scope, b"content-type").lower().startswith("multipart/")
        return to_come if to_come >= 0 and is_small and is_one else None

    def _asked_for(self, path: bytes, query: bytes) -> _Asked | None:
        """None: not what is refused here, or not here."""
        key = path, query
        if key not in self._asked:
            if len(self._asked) >= REMEMBERED:
                self._asked.clear()
            self._asked[key] = self._read(path, query)
        return self._asked[key]

    def _read(self, path: bytes, query: bytes) -> _Asked | None:
        endpoint = self._endpoints.get(path)
        if endpoint is None:
            return None
        try:
            options = parse_query(query, endpoint.options)
        except Problem:
            return None
        if options.explain or options.version_label is not None:
            return None
        classifier = endpoint.classifier
        return _Asked(path.decode(), classifier.model.name, classifier, options.version, endpoint.strain)

    def _verdict(self, asked: _Asked) -> _Verdict:
        verdict = self._verdicts.get(asked)
        if verdict is None or verdict.let_in != self._let_in:
            forecast = asked.classifier.foretell(asked.version, self._let_in)
            wait = forecast.turn + forecast.queue
            problem = Overloaded(self._what_waits(asked, forecast), retry_after=max(1, math.ceil(wait)))
            verdict = _Verdict(math.inf if forecast.is_full else wait, self._let_in, problem)
            self._verdicts[asked] = verdict
        return verdict

    def _what_waits(self, asked: _Asked, forecast: Forecast) -> str:
        if forecast.turn > forecast.queue and not forecast.is_full:
            return f"{self._turns.waiting + self._let_in:,} inputs wait for their turn already."
        return f"{asked.classifier.queued:,} items wait for {asked.model} already."

    def _scope(self, asked: _Asked, lines: bytes) -> Scope | None:
        """What the layers' functions want to know of a request; None: its headers are unusual."""
        by_name: dict[bytes, list[bytes]] = {}
        for line in lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b":")
            by_name.setdefault(name.lower(), []).append(value.strip(b" \t"))
        if not self._elsewhere.isdisjoint(by_name) or any(len(by_name.get(name, ())) > 1 for name in ONCE):
            return None
        if by_name.get(b"connection", KEEP_ALIVE)[0].lower() != KEEP_ALIVE[0]:
            return None
        return {"method": "POST", "path": asked.path, "state": {"model": asked.model}, BY_NAME: by_name}


def _answer(problem: Overloaded, request_id: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    body = to_json(instance_of(problem, request_id))
    own = [
        (b"retry-after", b"%d" % (problem.retry_after or 0)),
        (b"content-length", b"%d" % len(body)),
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"x-request-id", request_id.encode()),
    ]
    return whole_answer(problem.status, [*headers, *own, *SECURITY_HEADERS.items()], body)

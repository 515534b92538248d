"""Who may come in, and how often: API keys, and limits for each key or address. Plain ASGI."""

import math
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_network

import limits
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http.api_keys import ApiKeys
from serving.http.errors import problem_response
from serving.http.headers import header
from serving.problems import Overloaded, Problem, Unauthorized

PROBES = frozenset({"/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready"})
"""Never guarded: whoever runs the service must be able to ask them, come what may."""
REMEMBERED = 4096
"""Clients' addresses."""
NETWORK_BITS = 64
"""Of an IPv6 address, those that name a network: one client has all addresses in its own."""


class Guard:
    """Lets a request in, or answers 401 or 429 before its body is read.

    Args:
        app: what is guarded.
        keys: who may come in; None for everybody.
        open_paths: paths that need no key besides the probes, with all below them.
        rate: requests for each client, such as `100/second`, in the words of the library `limits`; empty for no limit.
        concurrency: requests at once for each client; 0 for no limit.
    """

    def __init__(
        self, app: ASGIApp, *, keys: ApiKeys | None, open_paths: Collection[str], rate: str, concurrency: int
    ) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = open_paths
        self._rate = limits.parse(rate) if rate else None
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._concurrency = concurrency
        self._at_once: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        try:
            client = self._admit(scope)
        except Problem as problem:
            headers = {"WWW-Authenticate": "Bearer"} if isinstance(problem, Unauthorized) else None
            await problem_response(Request(scope), problem, headers)(scope, receive, send)
            return
        self._at_once[client] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._at_once[client] -= 1
            if not self._at_once[client]:
                del self._at_once[client]

    def _admit(self, scope: Scope) -> str:
        """Whose request it is: a key's holder or an address. Raises Unauthorized or Overloaded."""
        client = f"address {place_of(scope['client'][0])}" if scope.get("client") else "address unknown"
        if self._keys is not None and not self._is_open(scope["path"]):
            client = f"key of {holder_of(self._keys, scope)}"
            scope["state"]["client"] = client
        if self._concurrency and self._at_once[client] >= self._concurrency:
            raise Overloaded(f"The {client} has {self._concurrency} requests at once already.", retry_after=1)
        if self._rate is not None and not self._limiter.hit(self._rate, client):
            again = self._limiter.get_window_stats(self._rate, client).reset_time - time.time()
            raise Overloaded(f"The {client} is over its rate of {self._rate}.", retry_after=max(1, math.ceil(again)))
        return client

    def _is_open(self, path: str) -> bool:
        return any(path == opened or path.startswith(f"{opened}/") for opened in self._open_paths)


def holder_of(keys: ApiKeys, scope: Scope) -> str:
    """Whose key a request has.

    Raises:
        Unauthorized: it has none, or one that is not among the keys.
    """
    scheme, _, token = header(scope, b"authorization").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else header(scope, b"x-api-key")
    if not key:
        raise Unauthorized("This needs an API key: send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`.")
    holder = keys.holder(key)
    if holder is None:
        raise Unauthorized("This API key is not known here, or no longer.")
    return holder


@lru_cache(maxsize=REMEMBERED)
def place_of(address: str) -> str:
    """By what a client is known: its address, or its network where that is of IPv6."""
    if ":" not in address:
        return address
    with suppress(ValueError):
        return str(ip_network((address, NETWORK_BITS), strict=False))
    return address

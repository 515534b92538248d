"""Requests to classify as nearly all clients write them, read from their bytes in one go.

A parser calls back for each header, and each layer looks them up again. But the same few heads come again and again:
what they say is found out once.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from starlette.types import Scope

from serving.http.api_keys import ApiKeys
from serving.http.endpoints import Endpoint
from serving.http.guard import holder_of
from serving.http.headers import BY_NAME, by_name
from serving.http.middleware import request_id_of
from serving.http.requests import is_large_picture, kind_of, parse_query, timeout_of
from serving.http.schemas import Options
from serving.problems import Problem
from serving.settings import Settings

HEAD = re.compile(
    rb"POST (/[a-z-]+)(?:\?([!\"$-~]*))? HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+)\r\n"
)
"""Of a request as nearly all clients write it (RFC 9112; field names by RFC 9110). All else is left to the parser."""
ELSEWHERE = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection", b"content-encoding"})
"""Headers of which the parser, a layer or a refusal has to know."""
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
OF_ONE_REQUEST = frozenset({b"x-request-id", b"traceparent"})
"""Headers that no other request repeats: to remember such a head would push out one that comes again."""
MOST_DIGITS = 9
"""Of a body's length, in bytes."""
KEEP_ALIVE = [b"keep-alive"]
REMEMBERED = 256
"""Heads, which clients choose, …"""
REMEMBERED_BYTES = 2048
REMEMBERED_HEADERS = 32
"""… of no more than so many bytes and headers each."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What a request's head says.

    Attributes:
        endpoint: that is asked.
        options: what the query says.
        content_type: as the client wrote it; empty for none.
        length: bytes of the body.
        is_large_picture: whether that is one picture which a thread will surely decode.
        timeout: seconds that the request may take.
        headers: by their names in lower case.
    """

    endpoint: Endpoint
    options: Options
    content_type: str
    length: int
    is_large_picture: bool
    timeout: float
    headers: dict[bytes, list[bytes]]


class PlainRequest(NamedTuple):
    """One of them.

    Attributes:
        head: what it says.
        body: as far as it has come.
        client: whose key came with it, or None.
    """

    head: Head
    body: bytes
    client: str | None

    @property
    def bytes_to_come(self) -> int:
        """Of the body."""
        return self.head.length - len(self.body)

    def scope(self) -> Scope:
        """What the layers' functions want to know of a request, in the words of ASGI."""
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": self.head.endpoint.path,
            "headers": [],  # they are looked for by their names
            BY_NAME: self.head.headers,
            "state": {"model": self.head.endpoint.classifier.model.name, "client": self.client},
        }
        scope["state"]["request_id"] = request_id_of(scope)
        return scope


class PlainRequests:
    """Reads them.

    Args:
        endpoints: that they ask.
        keys: who may come in; None for everybody. Who may not hears that from the guard.
        settings: the deadline, and the limits of what comes.
    """

    def __init__(self, endpoints: Iterable[Endpoint], *, keys: ApiKeys | None, settings: Settings) -> None:
        self._keys = keys
        self._endpoints = {endpoint.path.encode(): endpoint for endpoint in endpoints}
        self._settings = settings
        self._elsewhere = ELSEWHERE | {b"origin"} if settings.cors_origins else ELSEWHERE
        self._heads: dict[bytes, Head] = {}

    def read(self, sent: bytes) -> PlainRequest | None:
        """What came on a connection since its last request.

        None: it is not one such request, or more than one, or of somebody who may not come in. Where this says what a
        request is, the parser says the same.
        """
        end = sent.find(b"\r\n\r\n") + 4
        known = self._heads.get(sent[:end])
        head = known or self._read_head(sent[:end])
        if head is None or len(sent) - end > head.length:
            return None
        client = None
        if self._keys is not None:
            try:
                client = f"key of {holder_of(self._keys, {BY_NAME: head.headers})}"
            except Problem:  # the guard tells it
                return None
        if known is None:
            self._remember(sent[:end], head)
        return PlainRequest(head, sent[end:], client)

    def _remember(self, sent: bytes, head: Head) -> None:
        if len(sent) > REMEMBERED_BYTES or len(head.headers) > REMEMBERED_HEADERS:
            return
        if not OF_ONE_REQUEST.isdisjoint(head.headers):
            return
        if len(self._heads) >= REMEMBERED:
            self._heads.clear()
        self._heads[sent] = head

    def _read_head(self, sent: bytes) -> Head | None:
        parts = HEAD.fullmatch(sent)
        if parts is None or len(sent) > self._settings.max_header_bytes:
            return None
        endpoint = self._endpoints.get(parts[1])
        headers = _headers(parts[3])
        if endpoint is None or not self._are_plain(headers):
            return None
        (length,) = headers.get(b"content-length", [b""])
        if not (length.isdigit() and len(length) <= MOST_DIGITS and int(length) <= self._settings.max_body_bytes):
            return None
        content_type = headers.get(b"content-type", [b""])[0].decode("latin-1")
        if not endpoint.takes(content_type):
            return None
        timeout = headers.get(b"x-request-timeout")
        try:
            return Head(
                endpoint,
                parse_query(parts[2] or b"", endpoint.options),
                content_type,
                int(length),
                is_large_picture(kind_of(content_type), int(length)),
                timeout_of(timeout[0].decode("latin-1") if timeout else None, self._settings.deadline_seconds),
                headers,
            )
        except Problem:  # the endpoint tells it
            return None

    def _are_plain(self, headers: dict[bytes, list[bytes]]) -> bool:
        if not self._elsewhere.isdisjoint(headers) or any(len(headers.get(name, ())) > 1 for name in ONCE):
            return False
        return headers.get(b"connection", KEEP_ALIVE)[0].lower() == KEEP_ALIVE[0]


def _headers(lines: bytes) -> dict[bytes, list[bytes]]:
    parts = [line.partition(b":") for line in lines.split(b"\r\n")[:-1]]
    return by_name((name.lower(), value.strip(b" \t")) for name, _, value in parts)

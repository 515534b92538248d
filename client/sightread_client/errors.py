"""What can go wrong, as one family: `except SightreadError` catches it all."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import httpx

from sightread_client.answers import ImageAnswer, ProblemOfItem, TextAnswer


class SightreadError(Exception):
    """There is no answer.

    Attributes:
        detail: what happened, and what to do about it.
        status: the HTTP status; None where no answer came.
        title: what kind of problem it is; empty where the service did not say.
        type: URI reference that names the kind.
        instance: names the request, as the service's log does.
        retry_after: seconds after which asking again makes sense, where the service said.
        answered: of a list, what had its result before, by its place in the list: only the others need asking again.
    """

    answered: Mapping[int, ImageAnswer | TextAnswer | ProblemOfItem] = MappingProxyType({})

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        title: str = "",
        type: str = "about:blank",  # noqa: A002  # RFC 9457's name
        instance: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.title = title
        self.type = type
        self.instance = instance
        self.retry_after = retry_after


class BadInput(SightreadError):
    """What was sent cannot be answered: asking again does not help (4xx)."""


class Unauthorized(SightreadError):
    """The service wants an API key, or another one (401)."""


class NotFound(SightreadError):
    """There is no such model, version or label (404)."""


class Overloaded(SightreadError):
    """The service is full, or this client is over its rate (429)."""


class NotReady(SightreadError):
    """No version takes traffic, or the model server is gone (503)."""


class DeadlineExceeded(SightreadError):
    """There was no answer in time: the service said so (504), or `timeout` passed here (status None)."""


class ServiceFault(SightreadError):
    """The service failed, or what answers there is no Sightread."""


class Unreachable(SightreadError):
    """Nobody answers there, or the connection broke."""


KINDS: dict[int, type[SightreadError]] = {
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.TOO_MANY_REQUESTS: Overloaded,
    HTTPStatus.SERVICE_UNAVAILABLE: NotReady,
    HTTPStatus.GATEWAY_TIMEOUT: DeadlineExceeded,
}


def error_of(response: httpx.Response) -> SightreadError:
    """The error that a response stands for, whoever sent it: a proxy on the way knows no problem documents."""
    kind = KINDS.get(response.status_code, BadInput if response.is_client_error else ServiceFault)
    retry_after = seconds_until(response.headers.get("Retry-After"))
    members = _members(response)
    if not isinstance(members.get("detail"), str):
        detail = f"{response.request.url} answered {response.status_code} {response.reason_phrase} without a reason."
        return kind(detail, status=response.status_code, retry_after=retry_after)
    told = {name: members[name] for name in ("title", "type", "instance") if isinstance(members.get(name), str)}
    return kind(members["detail"], status=response.status_code, retry_after=retry_after, **told)


def seconds_until(retry_after: str | None) -> float | None:
    """`Retry-After` in seconds: it holds a number of them, or an HTTP date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    # a date without a zone is in UTC
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _members(response: httpx.Response) -> dict[str, Any]:
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}

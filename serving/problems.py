"""What can go wrong with a request, as one small family: each problem owns its HTTP status.

They are rendered as `application/problem+json` (RFC 9457). The `type` is a relative reference that names the kind, so
that a client can tell two problems of one status apart without reading prose; it leads nowhere.
"""

import json
from typing import ClassVar


class Problem(Exception):
    """A request, or one item of it, that cannot be answered.

    Attributes:
        status: HTTP status code.
        title: what kind of problem this is; the same for every occurrence.
        detail: what happened this time, and what to do about it.
        retry_after: seconds after which trying again makes sense, for the `Retry-After` header.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after

    @property
    def type(self) -> str:
        """URI reference that names the kind, such as `/problems/bad-request`."""
        return "/problems/" + self.title.lower().replace(" ", "-")

    def document(self) -> dict[str, str | int]:
        """The members of the problem document, without the request's `instance`."""
        return {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}

    def json(self) -> bytes:
        """The document as it goes over the wire where there is no request that it could name."""
        return json.dumps(self.document(), ensure_ascii=False).encode()


class InternalError(Problem):
    """A defect of this service. Its detail says nothing of the inside."""


class BadRequest(Problem):
    """Malformed JSON or multipart, or a bad query."""

    status = 400
    title = "Bad request"


class Unauthorized(Problem):
    """API keys are set, and none or a wrong one came."""

    status = 401
    title = "Unauthorized"


class UnknownVersion(Problem):
    """No such model version or label, or one that is not served."""

    status = 404
    title = "Unknown version"


class NotFound(Problem):
    """No such path, or no such model."""

    status = 404
    title = "Not found"


class MethodNotAllowed(Problem):
    """The path exists, the method does not."""

    status = 405
    title = "Method not allowed"


class RequestTimeout(Problem):
    """The client took too long to send its request."""

    status = 408
    title = "Request timeout"


class TooLarge(Problem):
    """A body, a picture or a list beyond its limit."""

    status = 413
    title = "Too large"


class UnsupportedMediaType(Problem):
    """A media type or picture format that is not on the allow-list."""

    status = 415
    title = "Unsupported media type"


class Unprocessable(Problem):
    """Bytes that do not decode, an empty or over-long text."""

    status = 422
    title = "Unprocessable content"


class Overloaded(Problem):
    """The gateway's queue or the model server's is full, or the client is over its limits."""

    status = 429
    title = "Too many requests"


class HeadersTooLarge(Problem):
    """The path and the headers are over their limit."""

    status = 431
    title = "Request header fields too large"


class Unavailable(Problem):
    """No version is ready, or the model server cannot be reached."""

    status = 503
    title = "Service unavailable"


class DeadlineExceeded(Problem):
    """The deadline passed before the answer was there."""

    status = 504
    title = "Deadline exceeded"

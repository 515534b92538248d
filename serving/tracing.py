"""The client's trace context (W3C `traceparent`), on its way to the model server."""

from contextvars import ContextVar

TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""Of the request that is being answered, as it came."""

"""The client's trace context (W3C `traceparent`), on its way to the model server, and where spans of our own begin."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from serving.spans import Spans

TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""Of the request that is being answered, as it came."""


def spans_to(endpoint: str, *, model_server: str) -> "Spans | None":
    """What makes spans and sends them to a collector; None without one, and then nothing is imported."""
    if not endpoint:
        return None
    from serving.spans import Spans  # noqa: PLC0415  # an extra

    return Spans(endpoint, model_server=model_server)

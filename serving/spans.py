"""OpenTelemetry's spans: what a request went through, told to a collector. Needs the extra `tracing`.

A request is a span below its client's, its stages are spans below it. A batch is one call for many requests, and so one
span: it belongs to the first of them and is linked to the others. The names of attributes are those of OpenTelemetry's
semantic conventions (HTTP: stable, RPC: release candidate) and, where these have none, begin with `sightread`.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import metadata
from threading import Thread
from time import time_ns
from urllib.parse import urlsplit

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from serving.http.guard import PROBES
from serving.http.headers import header_values

logger = logging.getLogger("sightread.spans")

TRACES_PATH = "/v1/traces"
"""Where a collector takes traces, unless its URL says otherwise."""
FLUSH_SECONDS = 5.0
"""Time that a collector gets to take the last spans before the process ends."""
UNTRACED = PROBES | {"/metrics"}
"""Asked every few seconds by machines that follow no trace."""
MAX_PATH = 200
RPC_METHOD = "tensorflow.serving.PredictionService/Predict"
SERVER_ERROR = 500

W3C = TraceContextTextMapPropagator()
REQUEST: ContextVar[Span | None] = ContextVar("request", default=None)
"""The span of the request that is being answered."""


class Spans:
    """Makes spans and sends them, in the background: no request waits for the collector, or fails with it.

    What is not said here is said by OpenTelemetry's own environment variables, such as OTEL_TRACES_SAMPLER.

    Args:
        endpoint: the collector's URL.
        model_server: the gRPC target that calls go to.
    """

    def __init__(self, endpoint: str, *, model_server: str) -> None:
        version = metadata.version("sightread")
        resource = Resource.create({SERVICE_VERSION: version})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "sightread"}))
        has_path = urlsplit(endpoint).path.strip("/")
        self._exporter = _Exporter(endpoint if has_path else endpoint.rstrip("/") + TRACES_PATH)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("sightread", version)
        self._model_server = model_server

    async def close(self) -> None:
        """Send what was not sent yet, and give the rest up after a moment."""
        # a thread of our own: the event loop's would be waited for
        last = Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        await asyncio.to_thread(last.join, FLUSH_SECONDS)
        if last.is_alive():
            self._exporter.give_up()

    def request(self, scope: Scope, request_id: str) -> Span | None:
        """The span of a request that has come: below its client's, or the first of a trace. `answered` ends it."""
        if scope["path"] in UNTRACED:
            return None
        carrier = {name: header_values(scope, name.encode()) for name in W3C.fields}
        span = self._tracer.start_span(
            scope["method"],
            W3C.extract(carrier),
            SpanKind.SERVER,
            {
                "http.request.method": scope["method"],
                "url.path": scope["path"][:MAX_PATH],
                "url.scheme": scope["scheme"],
                "sightread.request_id": request_id,
            },
        )
        REQUEST.set(span)
        return span

    def answered(self, span: Span, scope: Scope, status: int) -> str:
        """End the span of a request; a status of 0 says that there was no answer. Gives the id of its trace."""
        state = scope["state"]
        span.set_attributes({f"sightread.{name}": state[name] for name in ("model", "version") if name in state})
        # any other path may be any client's own: there would be no end of names
        if route := _route(scope):
            span.update_name(f"{scope['method']} {route}")
            span.set_attribute("http.route", route)
        if status:
            span.set_attribute("http.response.status_code", status)
        if not status or status >= SERVER_ERROR:
            span.set_attribute("error.type", str(status or "no answer"))
            span.set_status(StatusCode.ERROR)
        span.end()
        return format_trace_id(span.get_span_context().trace_id)

    @staticmethod
    def current() -> Span | None:
        """The span of the request that is being answered."""
        return REQUEST.get()

    def stage(self, name: str, seconds: float, *, within: Span | None, error: Exception | None = None) -> None:
        """A stage of a request that has just ended, and how it failed."""
        end = time_ns()
        span = self._tracer.start_span(name, _below(within), start_time=end - int(seconds * 1e9))
        if error is not None:
            _fail(span, error)
        span.end(end)

    @contextmanager
    def call(self, stage: str, model: str, requests: Sequence[Span | None]) -> Iterator[str | None]:
        """A call to the model server, for as long as the context lasts.

        Args:
            stage: what it is for.
            model: that is asked.
            requests: whose rows are in it, one for each row.

        Yields:
            the call's own `traceparent`.
        """
        distinct = list(dict.fromkeys(request for request in requests if request is not None))
        # nobody would see the span below a request that is not sampled
        sampled = [request for request in distinct if request.get_span_context().trace_flags.sampled]
        first = next(iter(sampled or distinct), None)
        span = self._tracer.start_span(
            stage,
            _below(first),
            SpanKind.CLIENT,
            {
                "rpc.system.name": "grpc",
                "rpc.method": RPC_METHOD,
                "server.address": self._model_server,
                "sightread.model": model,
                "sightread.batch.rows": len(requests),
            },
            [Link(request.get_span_context()) for request in sampled if request is not first],
        )
        carrier: dict[str, str] = {}
        W3C.inject(carrier, set_span_in_context(span))
        try:
            yield carrier.get("traceparent")
        except BaseException as error:
            _fail(span, error)
            if isinstance(error.__cause__, grpc.aio.AioRpcError):
                span.set_attribute("rpc.response.status_code", error.__cause__.code().name)
            raise
        else:
            span.set_attribute("rpc.response.status_code", grpc.StatusCode.OK.name)
        finally:
            span.end()


class _Exporter(OTLPSpanExporter):
    """Says that the collector is away once, and not for every attempt."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self._outage = _Outage()
        # the queue is full while the collector is away: that goes without saying
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)
        own = logging.getLogger(OTLPSpanExporter.__module__)
        own.setLevel(logging.WARNING)
        own.addFilter(self._outage)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS and self._outage.is_told:
            self._outage.is_told = False
            logger.info("the collector takes traces again")
        return result

    def give_up(self) -> None:
        """End an attempt that is under way; whatever waits is lost."""
        if not self._outage.is_told:
            self._outage.is_told = True
            logger.warning("the last spans are lost: the collector did not take them within %g s", FLUSH_SECONDS)
        self.shutdown()  # type: ignore[no-untyped-call]  # the library's own gap


class _Outage(logging.Filter):
    """Lets the first line through, which tells the reason."""

    is_told = False

    def filter(self, _: logging.LogRecord) -> bool:
        was_told, self.is_told = self.is_told, True
        return not was_told


def _below(span: Span | None) -> Context:
    return Context() if span is None else set_span_in_context(span, Context())


def _fail(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(StatusCode.ERROR, str(error))


def _route(scope: Scope) -> str | None:
    """The path that an endpoint has, or None where there is none."""
    if route := scope.get("route"):
        return str(route.path)
    return scope["path"] if "model" in scope["state"] else None  # an endpoint that was called past the routes

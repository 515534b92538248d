"""The client's trace context reaches the model server, and what lies between is told to a collector as spans."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.conftest import Start
from tests.e2e.processes import Service, gateway, model_server
from tests.e2e.tiny_models import picture, put

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
NEVER = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}


class Recorder(grpc.GenericRpcHandler):
    """Passes every call on, and remembers the trace contexts that came with it.

    While `open` is not set, what is in a trace waits; while there is `trouble`, it is answered with that.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.seen: list[tuple[str, str]] = []
        self.open = threading.Event()
        self.open.set()
        self.trouble: grpc.StatusCode | None = None

    def service(self, details: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        method = details.method
        traces = [(method, value) for key, value in details.invocation_metadata if key == "traceparent"]
        self.seen += traces
        pass_on = self._channel.unary_unary(method, lambda message: message, lambda message: message)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            if traces:
                self.open.wait()
                if self.trouble:
                    context.abort(self.trouble, "trouble")
            try:
                return pass_on(request)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def recorder_before(server: Service) -> Iterator[tuple[str, Recorder]]:
    """A port that passes calls on to a model server."""
    with grpc.insecure_channel(server.url) as channel:
        recorder = Recorder(channel)
        before = grpc.server(ThreadPoolExecutor(8), handlers=[recorder])
        port = before.add_insecure_port("127.0.0.1:0")
        before.start()
        try:
            yield f"127.0.0.1:{port}", recorder
        finally:
            before.stop(None).wait()


class Collector(ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Reception)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        for told in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(values(told.resource.attributes))
            self.spans += [span for scope in told.scope_spans for span in scope.spans]

    def traced(self, trace: str) -> dict[str, Span]:
        """The spans of a trace by their names: each name is there once."""
        spans = [span for span in list(self.spans) if span.trace_id.hex() == trace]
        named = {span.name: span for span in spans}
        assert len(named) == len(spans)
        return named


class Reception(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def collector(port: int = 0) -> Iterator[Collector]:
    with Collector(port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


class Traced:
    """A gateway with a collector, and a recorder before its model server."""

    def __init__(self, service: Service, taken: Collector, recorder: Recorder, address: str) -> None:
        self.service = service
        self.collector = taken
        self.recorder = recorder
        self.address = address

    def ask(self, status: int = 200, *, path: str = "/classify-text", **options: Any) -> dict[str, Any]:
        """Ask, and give the log line of that request."""
        content = {} if "content" in options else {"json": {"text": "a good film"}}
        response = self.service.post(path, **content, **options)
        assert response.status_code == status, response.text
        return self.line(response.headers["X-Request-ID"])

    def line(self, request_id: str) -> dict[str, Any]:
        self.service.wait_for(lambda: request_id in self.service.log.read_text())
        (line,) = [line for line in self.service.log.read_text().splitlines() if request_id in line]
        told: dict[str, Any] = json.loads(line)
        return told

    def spans(self, trace: str, last: str = "POST /classify-text") -> dict[str, Span]:
        """The spans of a trace, once its last one has come."""
        self.service.wait_for(lambda: last in self.collector.traced(trace))
        return self.collector.traced(trace)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, versions: Path) -> Iterator[Traced]:
    """What all tests here may ask and none may leave changed."""
    folder = tmp_path_factory.mktemp("traced")
    put(versions / "cnn" / "1", folder / "models" / "cnn" / "1")
    put(versions / "lstm" / "1", folder / "models" / "lstm" / "1")
    with ExitStack() as stack:
        server = stack.enter_context(model_server(folder / "model-server.log", folder / "models"))
        address, recorder = stack.enter_context(recorder_before(server))
        taken = stack.enter_context(collector())
        flags = ("--model-server", address, "--traces-endpoint", taken.url)
        service = stack.enter_context(gateway(folder / "gateway.log", *flags, environment=SOON))
        service.wait_for(service.is_ready)
        yield Traced(service, taken, recorder, address)


def test_without_a_collector_a_traceparent_is_passed_on_and_nonsense_is_not(
    traced: Traced, start_gateway: Start
) -> None:
    service = start_gateway("--model-server", traced.address)
    service.wait_for(service.is_ready)
    before = len(traced.recorder.seen)
    # gRPC would refuse the last two, and with them all that share their batch
    refused = [TRACEPARENT.encode() + end for end in (b"-\xe9", b"-a\tb")]
    for traceparent in (TRACEPARENT.encode(), b"nonsense", b"00-" + b"Z" * 32, *refused):
        headers = {b"traceparent": traceparent}
        assert service.post("/classify-image", content=picture(), headers=headers).status_code == 200
    assert service.stop() == 0
    assert traced.recorder.seen[before:] == [(PREDICT, TRACEPARENT)]
    assert "trace_id" not in service.log.read_text()


def test_a_trace_reaches_from_the_client_to_the_model_server(traced: Traced) -> None:
    line = traced.ask(headers={"traceparent": TRACEPARENT, "tracestate": "a=1", "X-Request-ID": "told-once"})
    assert (line["trace_id"], line["traceparent"]) == (TRACE, TRACEPARENT)
    spans = traced.spans(TRACE)
    assert spans.keys() == {"POST /classify-text", "decode", "queue", "predict"}
    request = spans.pop("POST /classify-text")
    assert (request.kind, request.parent_span_id.hex()) == (Span.SPAN_KIND_SERVER, "00f067aa0ba902b7")
    assert request.trace_state == "a=1"
    assert values(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/classify-text",
        "http.response.status_code": 200,
        "url.path": "/classify-text",
        "url.scheme": "http",
        "sightread.model": "lstm",
        "sightread.version": 1,
        "sightread.request_id": "told-once",
    }
    for span in spans.values():
        assert span.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= span.end_time_unix_nano <= request.end_time_unix_nano
    call = spans["predict"]
    assert call.kind == Span.SPAN_KIND_CLIENT
    told = values(call.attributes)
    assert told.pop("server.address").startswith("127.0.0.1:")
    assert told == {
        "rpc.system.name": "grpc",
        "rpc.method": PREDICT.removeprefix("/"),
        "rpc.response.status_code": "OK",
        "sightread.model": "lstm",
        "sightread.batch.rows": 1,
    }
    assert (PREDICT, f"00-{TRACE}-{call.span_id.hex()}-01") in traced.recorder.seen
    assert traced.collector.resources[0]["service.name"] == "sightread"


def test_a_request_without_a_trace_begins_one(traced: Traced) -> None:
    line = traced.ask()
    assert "traceparent" not in line
    spans = traced.spans(line["trace_id"])
    assert spans["POST /classify-text"].parent_span_id == b""
    assert spans["predict"].parent_span_id == spans["POST /classify-text"].span_id
    assert any(line["trace_id"] in traceparent for _, traceparent in traced.recorder.seen)


def test_what_the_client_does_not_sample_is_not_recorded_but_passed_on(traced: Traced) -> None:
    trace = "c" * 32
    traced.ask(headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-00"})
    traced.spans(traced.ask()["trace_id"])  # what came before has been sent, too
    assert traced.collector.traced(trace) == {}
    (passed_on,) = [traceparent for _, traceparent in traced.recorder.seen if trace in traceparent]
    assert passed_on.endswith("-00")


def test_explanations_and_other_paths_have_spans_and_probes_have_none(traced: Traced) -> None:
    names = traced.spans(traced.ask(path="/classify-text?explain=true")["trace_id"]).keys()
    assert names == {"POST /classify-text", "decode", "queue", "predict", "explain_queue", "explain"}
    for path, name in (("/models/cnn", "GET /models/{name}"), ("/no/such/path", "GET")):
        trace = traced.line(traced.service.get(path).headers["X-Request-ID"])["trace_id"]
        assert traced.spans(trace, name).keys() == {name}
    for path in ("/readyz", "/metrics"):
        assert "trace_id" not in traced.line(traced.service.get(path).headers["X-Request-ID"])


def test_requests_in_one_batch_share_one_span_that_is_linked_to_them(traced: Traced) -> None:
    def waiting() -> float:
        page = traced.service.get("/metrics").text
        (line,) = [line for line in page.splitlines() if line.startswith("sightread_requests_in_flight ")]
        return float(line.split()[1]) - 1  # the one that asks

    traced.recorder.open.clear()
    try:
        with ThreadPoolExecutor(8) as clients:
            asked = [clients.submit(traced.ask) for _ in range(8)]
            traced.service.wait_for(lambda: waiting() == len(asked))
            traced.recorder.open.set()
    finally:
        traced.recorder.open.set()
    traces = [request.result()["trace_id"] for request in asked]
    for trace in traces:
        traced.spans(trace)
    calls = [span for span in traced.collector.spans if span.name == "predict" and span.trace_id.hex() in traces]
    assert 1 < len(calls) < len(traces)
    of_calls = [[call.trace_id, *(link.trace_id for link in call.links)] for call in calls]
    assert [values(call.attributes)["sightread.batch.rows"] for call in calls] == [len(of) for of in of_calls]
    assert sorted(trace.hex() for of in of_calls for trace in of) == sorted(traces)
    requests = {span.span_id for span in traced.collector.spans if span.kind == Span.SPAN_KIND_SERVER}
    for call in calls:
        assert {call.parent_span_id, *(link.span_id for link in call.links)} <= requests


def test_a_request_of_many_items_is_linked_to_its_call_once(traced: Traced) -> None:
    response = traced.service.post("/classify-text", json={"texts": ["good", "bad", " "]})
    trace = traced.line(response.headers["X-Request-ID"])["trace_id"]

    def spans(name: str) -> list[Span]:
        return [span for span in traced.collector.spans if span.trace_id.hex() == trace and span.name == name]

    traced.service.wait_for(lambda: bool(spans("POST /classify-text")))
    (call,) = spans("predict")
    assert values(call.attributes)["sightread.batch.rows"] == 2
    assert list(call.links) == []
    assert len(spans("queue")) == 2
    assert [span.status.code for span in spans("decode")].count(Status.STATUS_CODE_ERROR) == 1


def test_a_call_that_fails_says_so_in_its_span_and_in_the_request_s(traced: Traced) -> None:
    traced.recorder.trouble = grpc.StatusCode.INTERNAL
    try:
        trace = traced.ask(503)["trace_id"]
    finally:
        traced.recorder.trouble = None
    spans = traced.spans(trace)
    failed = {name for name, span in spans.items() if span.status.code == Status.STATUS_CODE_ERROR}
    assert failed == {"predict", "POST /classify-text"}
    assert values(spans["predict"].attributes)["rpc.response.status_code"] == "INTERNAL"
    assert values(spans["predict"].attributes)["error.type"] == "Unavailable"
    assert values(spans["POST /classify-text"].attributes)["error.type"] == "503"


def test_what_a_client_did_wrong_is_no_error_of_the_request_s_span(traced: Traced) -> None:
    spans = traced.spans(traced.ask(422, content=b" ", headers={"Content-Type": "text/plain"})["trace_id"])
    assert spans["POST /classify-text"].status.code == Status.STATUS_CODE_UNSET
    assert values(spans["decode"].attributes)["error.type"] == "Unprocessable"


def test_several_workers_send_their_last_spans_when_they_are_stopped(traced: Traced, start_gateway: Start) -> None:
    with collector() as taken:
        flags = ("--model-server", traced.address, "--workers", "2", "--traces-endpoint", f"{taken.url}/v1/traces")
        service = start_gateway(*flags, environment={**NEVER, "OTEL_SERVICE_NAME": "another"})
        # two models in each of two workers
        service.wait_for(lambda: service.log.read_text().count("takes traffic") >= 4)
        for _ in range(5):
            service.post("/classify-image", content=picture(), headers={"traceparent": TRACEPARENT})
        assert taken.spans == []
        assert service.stop() == 0
        assert [span.name for span in taken.spans].count("POST /classify-image") == 5
        assert {resource["service.name"] for resource in taken.resources} == {"another"}


def test_requests_are_answered_while_the_collector_is_away_and_the_log_says_so_once(
    traced: Traced, start_gateway: Start
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ("--model-server", traced.address, "--traces-endpoint", f"http://127.0.0.1:{port}")
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    service = start_gateway(*flags, environment={**SOON, **small})
    service.wait_for(service.is_ready)

    def ask() -> None:
        assert service.post("/classify-image", content=picture()).status_code == 200

    def complaints() -> int:
        return service.log.read_text().count('"logger": "opentelemetry')

    ask()
    service.wait_for(lambda: complaints() > 0)
    for _ in range(20):  # more than the queue takes
        ask()
    with collector(port) as back:
        service.wait_for(lambda: bool(back.spans))
        service.wait_for(lambda: "the collector takes traces again" in service.log.read_text())
        # a collector that goes now would be a second outage, and said: more spans wait than one attempt takes
        assert complaints() == 1
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("endpoint", "without", "why"),
    [
        ("http://127.0.0.1:4318", "opentelemetry.sdk", "pip install 'sightread[tracing]'"),
        ("http://127.0.0.1:4318", "opentelemetry.exporter", "pip install 'sightread[tracing]'"),
        ("collector:4317", "nothing", "such as http://collector:4318"),
    ],
)
def test_what_tracing_lacks_is_said_at_the_start(endpoint: str, without: str, why: str) -> None:
    program = f"import sys; sys.modules[{without!r}] = None; from serving.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "--traces-endpoint", endpoint]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("sightread serve: --traces-endpoint: ")
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr

"""The client's trace context reaches the model server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.e2e.conftest import Start
from tests.e2e.processes import Service
from tests.e2e.tiny_models import picture

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Recorder(grpc.GenericRpcHandler):
    """Passes every call on, and remembers the trace contexts that came with it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.seen: list[tuple[str, str]] = []

    def service(self, details: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        method = details.method
        self.seen += [(method, value) for key, value in details.invocation_metadata if key == "traceparent"]
        pass_on = self._channel.unary_unary(method, lambda message: message, lambda message: message)
        return grpc.unary_unary_rpc_method_handler(lambda request, _: pass_on(request))


@contextmanager
def recorder_before(server: Service) -> Iterator[tuple[str, Recorder]]:
    """A port that passes calls on to a model server."""
    with grpc.insecure_channel(server.url) as channel:
        recorder = Recorder(channel)
        before = grpc.server(ThreadPoolExecutor(8), handlers=[recorder])
        port = before.add_insecure_port("127.0.0.1:0")
        before.start()
        yield f"127.0.0.1:{port}", recorder
        before.stop(None).wait()


def test_a_traceparent_is_passed_on_and_nonsense_is_not(
    repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    with recorder_before(start_model_server(repository)) as (address, recorder):
        service = start_gateway("--model-server", address)
        service.wait_for(service.is_ready)
        for traceparent in (TRACEPARENT, "nonsense", "00-" + "Z" * 32):
            headers = {"traceparent": traceparent}
            assert service.post("/classify-image", content=picture(), headers=headers).status_code == 200
        assert service.stop() == 0
    assert recorder.seen == [("/tensorflow.serving.PredictionService/Predict", TRACEPARENT)]

"""The bare gRPC call: one prepared input at a time, straight to the model server. No gateway is faster than that."""

import json
import time
from collections.abc import Mapping
from statistics import median

import grpc
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from benchmarks.inputs import Input
from benchmarks.load import closed_loop
from benchmarks.servers import ROOT, VERSIONS, Compared
from serving.model_server import tensor_of
from serving.preprocessing import preprocessor_for
from training.repository import contract

WARM_UP = 20
"""Calls that are not counted."""


def one_connection(compared: Compared, sent: Input, rounds: int, seconds: float) -> tuple[float, float]:
    """Milliseconds that half of the requests through the gateway took at most, and that half of the bare calls did.

    In turns: what the machine does meanwhile would be taken for what the gateway adds.

    Raises:
        LoadProblem: the load cannot be made, or there was no right answer at all.
    """
    url = compared.servers[0].urls[sent.kind]
    through, bare = [], []
    for _ in range(rounds):
        through.append(closed_loop(url, sent, connections=1, seconds=seconds).p50)
        bare.append(bare_call(compared.model_server, sent, seconds=seconds))
    return median(through), median(bare)


def bare_call(model_server: str, sent: Input, *, seconds: float) -> float:
    """Milliseconds that half of the calls with this input took at most."""
    told = contract(ROOT / "models" / VERSIONS[sent.kind])
    preprocessor = preprocessor_for(told.input)
    row = preprocessor.prepare(json.loads(sent.body)["text"] if sent.kind == "text" else sent.body)
    model, _, version = VERSIONS[sent.kind].partition("/")
    request = PredictRequest(output_filter=[told.output.name])
    request.model_spec.name = model
    request.model_spec.version.value = int(version)
    request.inputs[told.input.name].CopyFrom(tensor_of(preprocessor.collate([row])))
    took: list[float] = []
    with grpc.insecure_channel(model_server) as channel:
        stub = PredictionServiceStub(channel)
        for _ in range(WARM_UP):
            stub.Predict(request)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            start = time.perf_counter()
            stub.Predict(request)
            took.append(time.perf_counter() - start)
    return median(took) * 1e3


def table(p50s: Mapping[str, tuple[float, float]]) -> str:
    """Input → milliseconds of half of the requests through the gateway and of half of the bare calls, in Markdown."""
    lines = ["| one connection | through the gateway | bare gRPC call | the gateway adds |", "|---|---|---|---|"]
    for what, (through, bare) in p50s.items():
        lines.append(f"| {what} | {through:.1f} ms | {bare:.1f} ms | {through - bare:.1f} ms |")
    return "\n".join(lines)

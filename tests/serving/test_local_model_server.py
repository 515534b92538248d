"""The local model server, as a process of its own, held to what a real TensorFlow Serving answered."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pool, message_factory
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.tensorflow_serving_protocol import (
    DT_FLOAT,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelServiceStub,
    ModelVersionStatus,
    PredictionServiceStub,
    PredictRequest,
    PredictResponse,
)

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "tensorflow_serving"
CALLS = [json.loads(line) for line in (RECORDED / "conversation.jsonl").read_text().splitlines()]
PATIENCE = 20.0


class ModelServer:
    """A running local model server and a channel to it."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        self.process = process
        self.log = log
        line = process.stdout.readline()
        assert line.startswith("listening on "), log.read_text()
        self.address = line.removeprefix("listening on ").strip()
        self.channel = grpc.insecure_channel(self.address)
        self._predictions = PredictionServiceStub(self.channel)
        self._models = ModelServiceStub(self.channel)

    def call(self, method: str, request: bytes) -> bytes:
        """Calls with a message that is serialized already; the answer is, too."""
        rpc: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(f"/tensorflow.serving.{method}")
        return rpc(request, timeout=PATIENCE)

    def logits(self, model: str, label: str | None = None) -> tuple[int, list[float]]:
        """Which version answered a row (1, 0, 0), and how: version v of `affine` answers (0, v / 10)."""
        request = PredictRequest()
        request.model_spec.name = model
        if label is not None:
            request.model_spec.version_label = label
        x = request.inputs["x"]
        x.dtype = DT_FLOAT
        x.tensor_shape.dim.add(size=1)
        x.tensor_shape.dim.add(size=3)
        x.tensor_content = np.array([1, 0, 0], np.float32).tobytes()
        response = self._predictions.Predict(request, timeout=PATIENCE)
        return response.model_spec.version.value, [round(logit, 6) for logit in response.outputs["logits"].float_val]

    def states(self, model: str) -> dict[int, str]:
        request = GetModelStatusRequest()
        request.model_spec.name = model
        try:
            statuses = self._models.GetModelStatus(request, timeout=PATIENCE).model_version_status
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return {}
        return {status.version: ModelVersionStatus.State.Name(status.state) for status in statuses}

    def wait_for(self, model: str, states: Mapping[int, str]) -> None:
        until(lambda: self.states(model) == states, lambda: f"{self.states(model)}\n{self.log.read_text()}")


def until(condition: Callable[[], bool], explain: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.01)


@contextmanager
def launched(log: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block, and with the test run if that is killed."""
    command = [sys.executable, "-m", "serving.local_model_server", "--exit-with-parent", "--poll-seconds", "0.1"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        yield process
        process.kill()


@contextmanager
def serving(log: Path, *arguments: str) -> Iterator[ModelServer]:
    with launched(log, *arguments) as process:
        server = ModelServer(process, log)
        with server.channel:
            yield server


def put(source: str, folder: Path) -> None:
    """Copies a recorded version into a repository as every exporter should: beside, then renamed."""
    beside = folder.parent / f".{folder.name}"
    shutil.copytree(RECORDED / "models" / source, beside)
    beside.rename(folder)


# The recorded conversation


AS_RECORDED = """
model_config_list {
  config {
    name: "affine"
    base_path: "affine"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
    version_labels { key: "canary" value: 2 }
  }
  config {
    name: "tokens"
    base_path: "tokens"
    model_platform: "tensorflow"
    model_version_policy { latest { num_versions: 1 } }
  }
}
"""
SERVICES = {"Predict": "PredictionService", "GetModelMetadata": "PredictionService", "GetModelStatus": "ModelService"}
# These texts are a kernel's own and differ between releases of TensorFlow.
KERNELS_OWN_TEXT = {"wrong shape", "wrong rank", "tokens of length 0"}


@dataclass(frozen=True)
class Answer:
    code: str
    details: str | None
    response: bytes


def ask(server: ModelServer, call: Mapping[str, Any]) -> Answer:
    try:
        response = server.call(f"{SERVICES[call['rpc']]}/{call['rpc']}", base64.b64decode(call["request_b64"]))
    except grpc.RpcError as error:
        return Answer(error.code().name, error.details(), b"")
    return Answer("OK", None, response)


def garbage_2(tokens: Path) -> None:
    (tokens / "2").mkdir()
    (tokens / "2" / "saved_model.pb").write_bytes(b"garbage")


def good_3_instead_of_2(tokens: Path) -> None:
    shutil.rmtree(tokens / "2")
    put("tokens/1", tokens / "3")


CHANGES: dict[str, Callable[[Path], None]] = {
    "after a garbage version 2 appeared": garbage_2,
    "after a good version 3 appeared": good_3_instead_of_2,
    "after version 3 vanished": lambda tokens: shutil.rmtree(tokens / "3"),
    "after the last version vanished": lambda tokens: shutil.rmtree(tokens / "1"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """The local model server's answers to all recorded calls, asked in their order."""
    answers = []
    folder = tmp_path_factory.mktemp("recorded")
    with ExitStack() as stack:
        servers = {}
        for name, arguments in {"plain": (), "batching": ("--max-batch-size", "64"), "states": ()}.items():
            shutil.copytree(RECORDED / "models", folder / name)
            (folder / name / "models.config").write_text(AS_RECORDED)
            repository = ("--models", str(folder / name), "--address", f"unix:{folder / name}.socket")
            servers[name] = stack.enter_context(launched(folder / f"{name}.log", *repository, *arguments))
        ready: dict[str, ModelServer] = {}
        for call in CALLS:
            name = call["server"]
            if name not in ready:
                ready[name] = ModelServer(servers[name], folder / f"{name}.log")
                stack.enter_context(ready[name].channel)
                ready[name].wait_for("affine", {2: "AVAILABLE", 1: "AVAILABLE"})
                ready[name].wait_for("tokens", {1: "AVAILABLE"})
            if call["name"] in CHANGES:
                CHANGES[call["name"]](folder / name / "tokens")
                recorded = GetModelStatusResponse.FromString(base64.b64decode(call["response_b64"]))
                states = {s.version: ModelVersionStatus.State.Name(s.state) for s in recorded.model_version_status}
                ready[name].wait_for("tokens", states)
            answers.append(ask(ready[name], call))
    return answers


@pytest.mark.parametrize("number", range(len(CALLS)), ids=[f"{call['server']}: {call['name']}" for call in CALLS])
def test_a_recorded_call_is_answered_as_tensorflow_serving_did(number: int, answers: list[Answer]) -> None:
    call, answer = CALLS[number], answers[number]
    assert answer.code == call["code"]
    if call["name"] not in KERNELS_OWN_TEXT:
        assert answer.details == call.get("details")
    if answer.code == "OK":
        expected = comparable(call["rpc"], base64.b64decode(call["response_b64"]), roughly)
        assert comparable(call["rpc"], answer.response, list) == expected


def roughly(floats: Iterable[float]) -> Any:
    return pytest.approx(list(floats), abs=1e-5)


def comparable(rpc: str, serialized: bytes, floats: Callable[[Iterable[float]], Any]) -> Any:
    """A response in a form that compares: a map has no order on the wire, and floats need a tolerance."""
    if rpc == "GetModelMetadata":
        metadata = GetModelMetadataResponse.FromString(serialized)
        descriptor = descriptor_pool.Default().FindMessageTypeByName("tensorflow.serving.SignatureDefMap")
        definitions: Any = message_factory.GetMessageClass(descriptor)()
        assert metadata.metadata["signature_def"].Unpack(definitions)
        return metadata.model_spec, set(metadata.metadata), definitions
    if rpc == "GetModelStatus":
        return GetModelStatusResponse.FromString(serialized)
    response = PredictResponse.FromString(serialized)
    values = {name: floats(output.float_val) for name, output in response.outputs.items()}
    for output in response.outputs.values():
        output.ClearField("float_val")
    return response, values


# The model repository without a config file


@dataclass(frozen=True)
class Scanned:
    server: ModelServer
    models: Path


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scanned]:
    """A server over a repository in which every test makes a model of its own; a dead one left its socket file."""
    folder = tmp_path_factory.mktemp("scanned")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "socket"))
    (folder / "models").mkdir()
    log = folder / "log"
    with serving(log, "--models", str(folder / "models"), "--address", f"unix:{folder / 'socket'}") as server:
        yield Scanned(server, folder / "models")


def test_an_empty_repository_is_served_and_a_model_may_come_later(scanned: Scanned) -> None:
    assert scanned.server.states("later") == {}
    (scanned.models / "later").mkdir()
    put("affine/1", scanned.models / "later" / "1")
    scanned.server.wait_for("later", {1: "AVAILABLE"})
    assert scanned.server.logits("later") == (1, [0, 0.1])


def test_the_two_newest_versions_are_kept(scanned: Scanned) -> None:
    model = scanned.models / "kept"
    model.mkdir()
    for version in (1, 2):
        put("affine/1", model / str(version))
    scanned.server.wait_for("kept", {2: "AVAILABLE", 1: "AVAILABLE"})
    put("affine/1", model / "10")
    scanned.server.wait_for("kept", {10: "AVAILABLE", 2: "AVAILABLE", 1: "END"})
    assert scanned.server.logits("kept")[0] == 10


def test_what_is_no_version_is_not_loaded_and_hinders_nothing(scanned: Scanned) -> None:
    model = scanned.models / "untidy"
    model.mkdir()
    for name in ("2.tmp", ".3", "latest", "-4", "٥"):  # noqa: RUF001 # a digit, but not one that numbers a version
        (model / name).mkdir()
    (model / "6").write_text("a file")
    (scanned.models / "file").write_text("a file where a model could be")
    put("affine/1", model / "1")
    scanned.server.wait_for("untidy", {1: "AVAILABLE"})
    assert "ignored" in scanned.server.log.read_text()
    assert scanned.server.states("file") == {}


@pytest.mark.parametrize(
    ("missing", "code"),
    [("saved_model.pb", "NOT_FOUND"), ("variables", "NOT_FOUND"), ("half of the variables", "OUT_OF_RANGE")],
)
def test_a_half_copied_version_ends_with_an_error_and_the_old_one_goes_on(
    scanned: Scanned, missing: str, code: str
) -> None:
    model = scanned.models / missing.replace(" ", "-")
    model.mkdir()
    put("affine/1", model / "1")
    scanned.server.wait_for(model.name, {1: "AVAILABLE"})
    half = model / ".2"
    shutil.copytree(RECORDED / "models/affine/2", half)
    if missing == "saved_model.pb":
        (half / missing).unlink()
    elif missing == "variables":
        shutil.rmtree(half / missing)
    else:
        os.truncate(half / "variables" / "variables.data-00000-of-00001", 100)
    half.rename(model / "2")
    scanned.server.wait_for(model.name, {2: "END", 1: "AVAILABLE"})
    request = GetModelStatusRequest()
    request.model_spec.name = model.name
    newest = ModelServiceStub(scanned.server.channel).GetModelStatus(request).model_version_status[0]
    assert newest.status.error_code == grpc.StatusCode[code].value[0]
    assert newest.status.error_message
    assert scanned.server.logits(model.name) == (1, [0, 0.1])
    assert f"take {model / '2'} away" in scanned.server.log.read_text()


def test_a_version_that_failed_is_loaded_once_it_has_been_away(scanned: Scanned) -> None:
    model = scanned.models / "repaired"
    model.mkdir()
    (model / "1").mkdir()
    scanned.server.wait_for("repaired", {1: "END"})
    (model / "1").rmdir()
    put("affine/1", model / "2")  # when it is loaded, a poll has seen that 1 is away
    scanned.server.wait_for("repaired", {2: "AVAILABLE", 1: "END"})
    put("affine/1", model / "1")
    scanned.server.wait_for("repaired", {2: "AVAILABLE", 1: "AVAILABLE"})


def test_a_version_that_vanished_and_came_back_is_loaded_anew(scanned: Scanned) -> None:
    model = scanned.models / "returning"
    model.mkdir()
    put("affine/1", model / "7")
    scanned.server.wait_for("returning", {7: "AVAILABLE"})
    assert scanned.server.logits("returning") == (7, [0, 0.1])
    shutil.rmtree(model / "7")
    scanned.server.wait_for("returning", {7: "END"})
    put("affine/2", model / "7")
    scanned.server.wait_for("returning", {7: "AVAILABLE"})
    assert scanned.server.logits("returning") == (7, [0, 0.2])


def test_an_old_version_answers_while_a_new_one_is_loading(scanned: Scanned) -> None:
    model = scanned.models / "slow"
    model.mkdir()
    put("affine/1", model / "1")
    scanned.server.wait_for("slow", {1: "AVAILABLE"})
    endless = model / ".2"
    endless.mkdir()
    os.mkfifo(endless / "saved_model.pb")  # opening it waits for a writer: a load that lasts as long as the test wants
    endless.rename(model / "2")
    scanned.server.wait_for("slow", {2: "LOADING", 1: "AVAILABLE"})
    assert scanned.server.logits("slow") == (1, [0, 0.1])
    put("affine/1", model / "3")
    scanned.server.wait_for("slow", {3: "AVAILABLE", 2: "LOADING", 1: "END"})
    assert scanned.server.logits("slow")[0] == 3

    def has_ended() -> bool:
        with suppress(OSError):  # nobody is reading at this moment
            os.close(os.open(model / "2" / "saved_model.pb", os.O_WRONLY | os.O_NONBLOCK))
        return scanned.server.states("slow") == {3: "AVAILABLE", 2: "END", 1: "END"}

    until(has_ended, scanned.server.log.read_text)


def test_no_call_fails_while_versions_come_and_go(scanned: Scanned) -> None:
    model = scanned.models / "busy"
    model.mkdir()
    put("affine/1", model / "1")
    scanned.server.wait_for("busy", {1: "AVAILABLE"})
    answered = [1]
    for version in (2, 3, 4):
        put("affine/2", model / str(version))
        end = time.monotonic() + PATIENCE
        while answered[-1] != version:
            assert time.monotonic() < end, scanned.server.log.read_text()
            answered.append(scanned.server.logits("busy")[0])
        shutil.rmtree(model / str(version - 1))
    assert answered == sorted(answered)


# Warm-up


WARMUP = Path("assets.extra", "tf_serving_warmup_requests")


def bring(folder: Path, records: Iterable[bytes]) -> None:
    """Gives a version warm-up requests."""
    (folder / WARMUP).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as file:
        for record in records:
            file.write(record)


def prediction(signature: str) -> bytes:
    """A record that asks `signature` about a row of three numbers."""
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0, 0.0, 0.0]]))
    record: bytes = log.SerializeToString()
    return record


def counting(folder: Path) -> None:
    """Makes a version that answers how often it has been asked."""
    module = tf.Module()
    module.calls = tf.Variable(0.0)

    def serve(x: Any) -> dict[str, Any]:
        return {"logits": tf.fill([tf.shape(x)[0], 2], module.calls.assign_add(1.0))}

    signature = tf.function(serve, input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    tf.saved_model.save(module, str(folder), signatures=signature)


def test_a_version_has_answered_its_warm_up_requests_when_the_first_user_asks(scanned: Scanned, tmp_path: Path) -> None:
    made = tmp_path / "made"
    counting(made)
    bring(made, [prediction("serving_default"), PredictionLog().SerializeToString(), prediction("")])
    (scanned.models / "warm").mkdir()
    shutil.move(made, scanned.models / "warm" / ".1")
    (scanned.models / "warm" / ".1").rename(scanned.models / "warm" / "1")
    scanned.server.wait_for("warm", {1: "AVAILABLE"})
    assert scanned.server.logits("warm") == (1, [3, 3])
    assert "model warm version 1: 3 warm-up requests answered" in scanned.server.log.read_text()


def too_many() -> list[bytes]:
    return [PredictionLog().SerializeToString()] * 1001


def of_a_session() -> bytes:
    log = PredictionLog()
    log.session_run_log.SetInParent()
    record: bytes = log.SerializeToString()
    return record


@pytest.mark.parametrize(
    ("name", "records", "code", "text"),
    [
        ("signature", [prediction("nosig")], "FAILED_PRECONDITION", 'Serving signature key "nosig" not found.'),
        ("inputs", [prediction("contract")], "INVALID_ARGUMENT", "Signature input alias: request(feed name: {feed})"),
        ("malformed", [b"malformed"], "INVALID_ARGUMENT", "Failed to parse warmup record: malformed from {path}"),
        ("many", too_many(), "INVALID_ARGUMENT", "Number of warmup records exceeds the maximum (1000) at {path}"),
        ("session", [of_a_session()], "UNIMPLEMENTED", "Unsupported log_type for warmup: 5"),
        ("unframed", None, "DATA_LOSS", ". Please verify your warmup data is in TFRecord format."),
    ],
)
def test_a_version_that_fails_at_its_warm_up_is_not_served_and_the_old_one_goes_on(
    scanned: Scanned, name: str, records: list[bytes] | None, code: str, text: str
) -> None:
    model = scanned.models / f"cold-{name}"
    model.mkdir()
    put("affine/1", model / "1")
    scanned.server.wait_for(model.name, {1: "AVAILABLE"})
    shutil.copytree(RECORDED / "models/affine/2", model / ".2")
    bring(model / ".2", records or [])
    if records is None:
        (model / ".2" / WARMUP).write_bytes(b"no record, whatever its name says")
    (model / ".2").rename(model / "2")
    scanned.server.wait_for(model.name, {2: "END", 1: "AVAILABLE"})
    request = GetModelStatusRequest()
    request.model_spec.name = model.name
    status = ModelServiceStub(scanned.server.channel).GetModelStatus(request).model_version_status[0].status
    assert status.error_code == grpc.StatusCode[code].value[0]
    assert text.format(path=model / "2" / WARMUP, feed="contract_request:0") in status.error_message
    assert scanned.server.logits(model.name) == (1, [0, 0.1])


# The config file


def config(*models: str) -> str:
    return "model_config_list {" + "\n".join(f"config {{ {model} }}" for model in models) + "}"


def rewrite(file: Path, text: str) -> None:
    """Replaces a file in one step, so that no poll sees half of it."""
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.rename(file)


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scanned]:
    folder = tmp_path_factory.mktemp("configured")
    shutil.copytree(RECORDED / "models", folder / "models")
    (folder / "models.config").write_text(config('name: "one" base_path: "models/affine"'))
    with serving(folder / "log", "--config", str(folder / "models.config"), "--address", "localhost:0") as server:
        yield Scanned(server, folder)


def test_a_changed_config_is_applied_while_running(configured: Scanned) -> None:
    server, file = configured.server, configured.models / "models.config"
    rewrite(file, config('name: "one" base_path: "models/affine"'))
    server.wait_for("one", {2: "AVAILABLE", 1: "AVAILABLE"})
    absolute = configured.models / "models" / "tokens"
    rewrite(
        file,
        config(
            'name: "one" base_path: "models/affine" model_version_policy { specific { versions: 1 } }',
            f'name: "two" base_path: "{absolute}"',
        ),
    )
    server.wait_for("one", {2: "END", 1: "AVAILABLE"})
    server.wait_for("two", {1: "AVAILABLE"})
    rewrite(file, config('name: "one" base_path: "models/affine" model_version_policy { all {} }'))
    server.wait_for("one", {2: "AVAILABLE", 1: "AVAILABLE"})
    server.wait_for("two", {1: "END"})


def test_a_config_that_does_not_parse_is_reported_and_the_old_one_goes_on(configured: Scanned) -> None:
    server, file = configured.server, configured.models / "models.config"
    rewrite(file, config('name: "one" base_path: "models/affine"'))
    server.wait_for("one", {2: "AVAILABLE", 1: "AVAILABLE"})
    rewrite(file, "model_config_list { nonsense }")
    until(lambda: "does not parse" in server.log.read_text(), server.log.read_text)
    assert server.logits("one") == (2, [0, 0.2])


def test_a_label_follows_the_config(configured: Scanned) -> None:
    server, file = configured.server, configured.models / "models.config"
    labelled = 'name: "one" base_path: "models/affine" version_labels {{ key: "stable" value: {} }}'
    for version in (1, 2, 1):
        rewrite(file, config(labelled.format(version)))
        until(lambda: answering(server, "stable") == version, server.log.read_text)  # noqa: B023 # called at once
    rewrite(file, config('name: "one" base_path: "models/affine"'))
    until(lambda: answering(server, "stable") is grpc.StatusCode.INVALID_ARGUMENT, server.log.read_text)


def test_a_label_stays_until_the_version_that_it_shall_move_to_is_available(configured: Scanned) -> None:
    server, file = configured.server, configured.models / "models.config"
    labels = 'version_labels {{ key: "stable" value: {} }} version_labels {{ key: "mark" value: {} }}'
    rewrite(file, config(f'name: "one" base_path: "models/affine" {labels.format(1, 1)}'))
    until(lambda: answering(server, "mark") == 1, server.log.read_text)
    rewrite(file, config(f'name: "one" base_path: "models/affine" {labels.format(3, 2)}'))
    until(lambda: answering(server, "mark") == 2, server.log.read_text)
    assert answering(server, "stable") == 1
    put("affine/2", configured.models / "models" / "affine" / "3")
    until(lambda: answering(server, "stable") == 3, server.log.read_text)


def test_a_label_for_a_version_that_is_not_there_is_not_found(configured: Scanned) -> None:
    server, file = configured.server, configured.models / "models.config"
    rewrite(file, config('name: "one" base_path: "models/affine" version_labels { key: "lost" value: 99 }'))
    until(lambda: answering(server, "lost") is grpc.StatusCode.NOT_FOUND, server.log.read_text)


def answering(server: ModelServer, label: str) -> int | grpc.StatusCode:
    try:
        return server.logits("one", label=label)[0]
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code


# Start and stop


def test_it_stops_cleanly_when_it_is_told_to_or_its_parent_ends(tmp_path: Path) -> None:
    models = ("--models", str(RECORDED / "models"), "--address", "127.0.0.1:0")
    with launched(tmp_path / "1.log", *models) as told, launched(tmp_path / "2.log", *models) as orphaned:
        for process, log in ((told, "1.log"), (orphaned, "2.log")):
            with ModelServer(process, tmp_path / log).channel:
                pass
        told.send_signal(signal.SIGTERM)
        assert orphaned.stdin is not None
        orphaned.stdin.close()
        assert told.wait(PATIENCE) == 0
        assert orphaned.wait(PATIENCE) == 0


def test_a_start_that_cannot_succeed_says_why_and_what_to_do(tmp_path: Path) -> None:
    models = ("--models", str(RECORDED / "models"))
    broken = tmp_path / "broken.config"
    broken.write_text("model_config_list { nonsense }")
    (tmp_path / "file").write_text("not ours to replace")
    with socket.socket() as other, socket.socket(socket.AF_UNIX) as living:
        other.bind(("127.0.0.1", 0))
        other.listen()
        living.bind(str(tmp_path / "living"))
        living.listen()
        starts = {
            ("--models", str(tmp_path / "nowhere")): (2, "name a folder that holds <model>/<version>/"),
            ("--config", str(tmp_path / "no.config")): (2, "there is no such config file"),
            ("--config", str(broken)): (2, "does not parse as a ModelServerConfig: 1:21"),
            (*models, "--address", f"127.0.0.1:{other.getsockname()[1]}"): (1, "it is in use"),
            (*models, "--address", f"unix:{tmp_path / 'living'}"): (1, "another server listens there"),
            (*models, "--address", f"unix:{tmp_path / 'file'}"): (1, "exists and is no socket"),
            (*models, "--address", "8500"): (2, "neither host:port nor unix:PATH"),
        }
        with ExitStack() as stack:
            processes = {
                arguments: stack.enter_context(launched(tmp_path / f"{number}.log", *arguments))
                for number, arguments in enumerate(starts)
            }
            for number, (arguments, (code, text)) in enumerate(starts.items()):
                assert processes[arguments].wait(PATIENCE) == code
                assert text in (tmp_path / f"{number}.log").read_text()
    assert (tmp_path / "file").read_text() == "not ours to replace"


def test_help_and_log_say_that_it_is_not_for_production(scanned: Scanned) -> None:
    command = [sys.executable, "-m", "serving.local_model_server", "--help"]
    assert "not for production" in " ".join(subprocess.check_output(command, cwd=ROOT, text=True).split())
    assert "not for production" in scanned.server.log.read_text().splitlines()[0]


def test_the_remaining_rpcs_are_unimplemented(scanned: Scanned) -> None:
    for method in ("PredictionService/Classify", "PredictionService/Regress", "ModelService/HandleReloadConfigRequest"):
        with pytest.raises(grpc.RpcError) as raised:
            scanned.server.call(method, b"")
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED

"""The Open Inference Protocol v2 over plain HTTP: health, metadata, inference, and whatever is wrong with a request."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.conftest import Start
from tests.e2e.processes import Service
from tests.e2e.test_guard import NOWHERE, line
from tests.e2e.tiny_models import COLOURS, picture

IMAGE, TEXT = "/v2/models/cnn", "/v2/models/lstm"
TEXTS = ["a good film", "so bad", "good good bad"]


def texts(*data: Any, **members: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": [len(data)], "datatype": "BYTES", "data": list(data), **members}]}


def pictures(*data: bytes) -> dict[str, Any]:
    encoded = [base64.b64encode(encoded).decode() for encoded in data]
    return {"inputs": [{"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": encoded}]}


def serialized(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def infer(service: Service, document: Any, path: str = TEXT, **options: Any) -> httpx.Response:
    return service.post(f"{path}/infer", content=json.dumps(document), **options)


def infer_binary(
    service: Service, document: Any, binary: bytes, *, path: str = TEXT, length: str | None = None
) -> httpx.Response:
    header = json.dumps(document).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(header)) if length is None else length,
    }
    return service.post(f"{path}/infer", content=header + binary, headers=headers)


def binary_texts(size: int, count: int = 2) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "text", "shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": size}},
        ]
    }


def outputs(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


def check(response: httpx.Response, status: int, detail: str) -> None:
    """An error for readers of problem documents and for the protocol's clients."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance", "error"}
    assert problem["status"] == status
    assert problem["error"] == problem["detail"]
    assert detail in problem["error"]
    assert ("Retry-After" in response.headers) == (status in {429, 503})


def test_the_server_tells_of_itself(service: Service) -> None:
    for path in ("/v2", "/v2/"):
        server = service.get(path).json()
        assert server["name"] == "sightread"
        assert server["extensions"] == ["binary_tensor_data", "classification"]
    assert service.get("/v2/health/live").json() == {"live": True}
    assert service.get("/v2/health/ready").json() == {"ready": True}


def test_a_model_tells_what_it_takes_and_gives(service: Service) -> None:
    model = service.get(IMAGE).json()
    assert (model["name"], model["versions"], model["platform"]) == ("cnn", ["1", "2"], "tensorflow_savedmodel")
    (image,) = model["inputs"]
    assert image == {"name": "image", "datatype": "BYTES", "shape": [-1], "parameters": {"content_type": "base64"}}
    assert [output["name"] for output in model["outputs"]] == ["label", "score", "probabilities"]
    assert model["outputs"][2]["shape"] == [-1, 3]
    assert model["outputs"][2]["parameters"] == {"labels": COLOURS}
    (text,) = service.get(f"{TEXT}/versions/1").json()["inputs"]
    assert (text["name"], text["parameters"]) == ("text", {"content_type": "str"})


@pytest.mark.parametrize("path", [IMAGE, f"{IMAGE}/versions/1", f"{IMAGE}/versions/canary"])
def test_a_model_a_version_and_a_label_are_ready(service: Service, path: str) -> None:
    assert service.get(f"{path}/ready").json() == {"name": "cnn", "ready": True}


def test_texts_get_the_answers_of_classify_text(service: Service) -> None:
    response = infer(service, texts(*TEXTS))
    label, score, probabilities = outputs(response).values()
    expected = service.post("/classify-text", json={"texts": TEXTS}).json()["results"]
    assert (label["datatype"], label["shape"]) == ("BYTES", [3])
    assert label["data"] == [answer["label"] for answer in expected]
    assert (score["datatype"], score["shape"]) == ("FP32", [3])
    assert score["data"] == pytest.approx([answer["score"] for answer in expected], abs=1e-5)
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP32", [3, 2])
    told = [{best["label"]: best["score"] for best in answer["predictions"]} for answer in expected]
    flat = [answer[label] for answer in told for label in ("negative", "positive")]
    assert probabilities["data"] == pytest.approx(flat, abs=1e-5)
    assert (response.json()["model_name"], response.json()["model_version"]) == ("lstm", "1")


@pytest.mark.parametrize(("version", "answers"), [("", "2"), ("/versions/1", "1"), ("/versions/canary", "1")])
def test_pictures_get_the_answers_of_classify_image_from_the_asked_version(
    service: Service, version: str, answers: str
) -> None:
    response = infer(service, pictures(*map(picture, COLOURS)), IMAGE + version)
    files = [("file", picture(colour)) for colour in COLOURS]
    expected = service.post(f"/classify-image?version={answers}", files=files).json()["results"]
    label, score, _ = outputs(response).values()
    assert label["data"] == [answer["label"] for answer in expected] == COLOURS
    assert score["data"] == pytest.approx([answer["score"] for answer in expected], abs=1e-5)
    assert response.json()["model_version"] == answers


def test_a_tensor_of_two_dimensions_may_be_flat_or_nested(service: Service) -> None:
    for data in (["good", "bad"], [["good"], ["bad"]]):
        assert outputs(infer(service, texts(*data, shape=[2, 1])))["label"]["data"] == ["positive", "negative"]


def test_the_id_comes_back_and_strange_members_and_parameters_are_passed_over(service: Service) -> None:
    asked = {"id": "42", "model_name": "lstm", "parameters": {"priority": 3}, **texts("good", parameters={"a": [1]})}
    assert infer(service, asked).json()["id"] == "42"
    assert "id" not in infer(service, texts("good")).json()


def test_outputs_says_which_come(service: Service) -> None:
    wanted = [{"name": "score"}, {"name": "label"}]
    assert list(outputs(infer(service, {**texts("good"), "outputs": wanted}))) == ["score", "label"]
    assert len(outputs(infer(service, {**texts("good"), "outputs": []}))) == 3


def test_classification_names_the_best_labels(service: Service) -> None:
    for count, given in [(1, 1), (2, 2), (9, 2)]:
        wanted = [{"name": "probabilities", "parameters": {"classification": count}}]
        best = outputs(infer(service, {**texts("bad"), "outputs": wanted}))["probabilities"]
        assert (best["datatype"], best["shape"]) == ("BYTES", [1, given])
        probability, index, label = best["data"][0].split(":")
        assert (index, label) == ("0", "negative")
        assert float(probability) > 0.9


def test_tensors_travel_as_bytes_both_ways(service: Service) -> None:
    binary = serialized(picture("red"), picture("blue"))
    asked = {
        "inputs": [
            {"name": "image", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(binary)}}
        ],
        "parameters": {"binary_data_output": True},
        "outputs": [
            {"name": "label"},
            {"name": "score", "parameters": {"binary_data": False}},
            {"name": "probabilities"},
        ],
    }
    response = infer_binary(service, asked, binary, path=IMAGE)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/octet-stream"
    length = int(response.headers["Inference-Header-Content-Length"])
    label, score, probabilities = json.loads(response.content[:length])["outputs"]
    tail = response.content[length:]
    labels = serialized(b"red", b"blue")
    assert label == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [2],
        "parameters": {"binary_data_size": len(labels)},
    }
    assert tail[: len(labels)] == labels
    assert len(score["data"]) == 2
    assert probabilities["parameters"] == {"binary_data_size": 2 * 3 * 4}
    numbers = np.frombuffer(tail[len(labels) :], "<f4").reshape(2, 3)
    assert numbers.max(axis=1) == pytest.approx(score["data"], abs=1e-6)


def test_texts_travel_as_bytes(service: Service) -> None:
    binary = serialized(b"good", "bad 👎".encode())
    response = infer_binary(service, binary_texts(len(binary)), binary)
    assert outputs(response)["label"]["data"] == ["positive", "negative"]


def test_a_bad_item_fails_its_request_and_is_named(service: Service) -> None:
    check(infer(service, texts("good", " ", "")), 422, "text[1]: The text is empty")
    check(infer(service, texts("good", "\ud800")), 422, "text[1]: The text is not valid Unicode")
    check(infer(service, pictures(picture(), b"no picture"), IMAGE), 422, "image[1]: ")
    check(infer(service, pictures(b"%PDF-1.4"), IMAGE), 415, "image[0]: PDF is not taken")
    not_base64 = pictures(picture())
    not_base64["inputs"][0]["data"] = ["%%%%"]
    check(infer(service, not_base64, IMAGE), 422, "image[0] is not base64")
    binary = serialized(b"good", b"\xff\xfe")
    check(infer_binary(service, binary_texts(len(binary)), binary), 422, "text[1] is not valid UTF-8")


@pytest.mark.parametrize(
    ("document", "status", "detail"),
    [
        ([], 400, '"inputs"'),
        ({}, 400, "inputs"),
        ({"inputs": []}, 400, "inputs"),
        ({"inputs": texts("good")["inputs"] * 2}, 400, "inputs"),
        (texts("good", shape=[]), 400, "shape"),
        (texts("good", shape=[-1]), 400, "shape"),
        (texts("good", shape=[True]), 400, "shape"),
        (texts("good", shape=[1, 2]), 400, "[n, 1]"),
        (texts("good", shape=[1, 1, 1]), 400, "[n, 1]"),
        (texts(shape=[0]), 400, "n > 0"),
        (texts("good", shape=[2]), 400, "2 strings"),
        (texts("good", "bad", shape=[1]), 400, "1 strings"),
        (texts("good", shape=[10**30]), 413, "more than 8"),
        (texts(*["good"] * 9), 413, "more than 8"),
        (texts(1), 400, "1 strings"),
        (texts(None), 400, "1 strings"),
        (texts(["good"]), 400, "1 strings"),
        (texts("good", data="good"), 400, "data"),
        (texts("good", data=None), 400, '"data"'),
        (texts(1, 2, name="tokens", datatype="INT32"), 400, '"name": "text", "datatype": "BYTES", "shape": [n]'),
        (texts("good", parameters={"binary_data_size": 8}), 400, "either"),
        (texts("good", parameters={"binary_data_size": -1}), 400, "binary_data_size"),
        (texts("good", parameters={"shared_memory_region": "a"}), 400, "Shared memory"),
        ({**texts("good"), "id": 42}, 400, "id"),
        ({**texts("good"), "id": "\ud800"}, 400, "lone surrogate"),
        ({**texts("good"), "outputs": [{"name": "logits"}]}, 400, "no output 'logits'; there are label"),
        ({**texts("good"), "outputs": [{"name": "label"}] * 2}, 400, "twice"),
        ({**texts("good"), "outputs": [{"name": "label", "parameters": {"classification": 1}}]}, 400, "classification"),
        ({**texts("good"), "parameters": {"binary_data_output": "yes"}}, 400, "binary_data_output"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(service: Service, document: Any, status: int, detail: str) -> None:
    check(infer(service, document), status, detail)


@pytest.mark.parametrize(
    ("content", "status", "detail"),
    [
        (b"", 400, "JSON"),
        (b'{"inputs": NaN}', 400, "NaN"),
        (b'{"id": "1", "id": "2"}', 400, "twice"),
        (b'{"inputs": ' + b"[" * 90_000, 400, "nested"),
        (b'{"inputs": [' + b"1," * 90_000 + b"1]}", 400, "inputs"),
        (b'{"inputs": [{"shape": [' + b"9" * 5000 + b"]}]}", 400, "too long"),
        (b"\xff", 400, "UTF-8"),
        (b" " * 200_001, 413, "200,000 bytes"),
    ],
)
def test_hostile_json_is_refused(service: Service, content: bytes, status: int, detail: str) -> None:
    check(service.post(f"{TEXT}/infer", content=content), status, detail)


@pytest.mark.parametrize(
    ("binary", "size", "count"),
    [
        (serialized(b"good", b"bad"), 14, 2),
        (serialized(b"good", b"bad"), 16, 2),
        (serialized(b"good", b"bad"), 15, 1),
        (serialized(b"good", b"bad"), 15, 3),
        (serialized(b"good") + b"\xff\xff\xff\xff", 12, 2),
        (serialized(b"good") + b"\0", 9, 2),
        (b"", 0, 2),
    ],
)
def test_bytes_that_do_not_add_up_are_refused(service: Service, binary: bytes, size: int, count: int) -> None:
    check(infer_binary(service, binary_texts(size, count), binary), 400, "bytes")


@pytest.mark.parametrize("length", ["0", "1", "100000", "-1", "many", "9" * 5000, "1e2"])
def test_a_lying_header_length_is_refused(service: Service, length: str) -> None:
    check(infer_binary(service, binary_texts(8, 1), serialized(b"good"), length=length), 400, "")


def test_bytes_that_nothing_speaks_of_are_refused(service: Service) -> None:
    check(infer_binary(service, texts("good"), b"more"), 400, "4 bytes come after the JSON")


def test_other_bodies_are_not_taken(service: Service) -> None:
    body = json.dumps(texts("good"))
    check(service.post(f"{TEXT}/infer", content=body, headers={"Content-Type": "text/html"}), 415, "application/json")
    check(service.post(f"{TEXT}/infer", content=body, headers={"Content-Encoding": "gzip"}), 415, "uncompressed")
    for kind in ("application/x-www-form-urlencoded", "application/json; charset=utf-8", "application/octet-stream"):
        assert service.post(f"{TEXT}/infer", content=body, headers={"Content-Type": kind}).status_code == 200


def test_models_versions_and_paths_that_do_not_exist(service: Service) -> None:
    for path in ("/v2/models/nothing", "/v2/models/nothing/ready"):
        check(service.get(path), 404, "no model 'nothing'; there are cnn, lstm")
    check(infer(service, texts("good"), "/v2/models/nothing"), 404, "no model")
    check(infer(service, texts("good"), f"{TEXT}/versions/7"), 404, "no version 7")
    check(service.get(f"{IMAGE}/versions/7/ready"), 404, "no version 7")
    for strange in ("0", "v1", "%00", "x" * 300, "²"):
        check(service.get(f"{IMAGE}/versions/{strange}"), 404, "label")
    check(service.get("/v2/nothing"), 404, "/docs")
    check(service.get(f"{TEXT}/infer"), 405, "POST")
    assert "error" not in service.get("/v2x").json()


def test_a_deadline_that_cannot_be_kept_is_a_504(service: Service) -> None:
    check(infer(service, texts("good"), headers={"X-Request-Timeout": "0.000001"}), 504, "1e-06 seconds")
    check(infer(service, texts("good"), headers={"X-Request-Timeout": "soon"}), 400, "X-Request-Timeout")


def test_an_inference_is_logged_counted_and_timed(service: Service) -> None:
    response = infer(service, texts("good"), headers={"X-Request-ID": "inferred-1"})
    assert "predict;dur=" in response.headers["Server-Timing"]
    service.wait_for(lambda: "inferred-1" in service.log.read_text())
    (logged,) = [json.loads(entry) for entry in service.log.read_text().splitlines() if "inferred-1" in entry]
    assert (logged["status"], logged["model"], logged["version"]) == (200, "lstm", 1)
    assert 'sightread_requests_total{code="200",model="lstm",version="1"}' in service.get("/metrics").text


def test_keys_guard_the_protocol_but_not_its_probes(tmp_path: Path, start_gateway: Start) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("alice", "first"))
    service = start_gateway(*NOWHERE, "--api-keys-file", str(keys))
    check(service.get("/v2"), 401, "API key")
    check(infer(service, texts("good")), 401, "API key")
    check(infer(service, texts("good"), headers={"X-API-Key": "first"}), 503, "not ready")
    assert service.get("/v2/health/live").status_code == 200
    check(service.get("/v2/health/ready"), 503, "not ready")
    check(service.get(f"{TEXT}/ready", headers={"X-API-Key": "first"}), 503, "not ready")

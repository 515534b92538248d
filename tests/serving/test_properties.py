"""Whatever comes in, every parser gives what it says or raises what it says. Hypothesis thinks of what comes in."""

import asyncio
import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from starlette.requests import Request
from tensorflow.core.framework.tensor_pb2 import TensorProto

from serving.contract import Contract, ImageInput, TextInput
from serving.golden import Unproven, compare_golden_answers
from serving.http.requests import parse_texts, read_images, read_texts, request_timeout
from serving.local_model_server import tensor
from serving.local_model_server.config import parse
from serving.preprocessing import ImagePreprocessor, TextPreprocessor
from serving.problems import BadRequest, Problem
from training.tokenizer import train_tokenizer

# derandomized: a test that fails here fails everywhere; the fuzzers in fuzz/ are where luck is sought
bounded = settings(
    max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
thorough = settings(bounded, max_examples=600)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
names = st.text(min_size=1, max_size=20)
probabilities = st.floats(0, 1, width=32)
any_unicode = st.text(st.characters(exclude_categories=()))


# --- the contract


@st.composite
def contracts(draw: st.DrawFn) -> dict[str, Any]:
    """The members of a contract, valid."""
    kind = draw(st.sampled_from(["image", "text"]))
    labels = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    rows = st.lists(probabilities, min_size=len(labels), max_size=len(labels))
    raw = st.just({"text": "a text"}) if kind == "text" else st.just({"image": "aW1hZ2U="})
    example = st.builds(lambda raw, row: {**raw, "probabilities": row}, raw, rows)
    image = {"height": 8, "width": 9, "channels": 3, "fit": "cover", "filter": "box"}
    text = {"max_length": 20, "pad_id": 0, "tokenizer": draw(st.dictionaries(names, st.integers(), max_size=2))}
    return {
        "schema": 1,
        "kind": kind,
        "labels": labels,
        "input": {"name": draw(names), **(image if kind == "image" else text)},
        "output": {"name": draw(names)},
        "golden": {
            "tolerance": draw(st.floats(1e-6, 0.1)),
            "examples": draw(st.lists(example, min_size=8, max_size=9)),
        },
        "calibration": {
            "temperature": draw(st.floats(0.1, 10)),
            "expected_calibration_error_before": draw(probabilities),
            "expected_calibration_error_after": draw(probabilities),
        },
        "evaluation": {"dataset": "d", "examples": 1, "accuracy": 1, "per_label": [], "confusion": [[1]]},
        "reference": {"label_frequencies": [1], "confidence_histogram": [1]},
        "provenance": {
            "trained_at": draw(st.datetimes()).isoformat() + "Z",
            "packages": {},
            "seed": draw(st.integers()),
            "data": "d",
            "data_sha256": "",
            "training_seconds": 1,
            "config": draw(st.dictionaries(names, st.integers() | names, max_size=2)),
        },
    }


@bounded
@given(contracts())
def test_a_contract_survives_its_json(members: dict[str, Any]) -> None:
    contract = Contract.model_validate_json(json.dumps(members))
    assert Contract.model_validate_json(contract.to_json()) == contract


@bounded
@given(contracts(), st.data())
def test_a_contract_with_a_part_of_another_kind_is_a_contract_or_a_validation_error(
    members: dict[str, Any], data: st.DataObject
) -> None:
    where: Any = members
    for _ in range(data.draw(st.integers(0, 2))):
        inner = [value for value in where.values() if isinstance(value, dict) and value]
        where = data.draw(st.sampled_from(inner)) if inner else where
    where[data.draw(st.sampled_from(sorted(where)))] = data.draw(json_values)
    try:
        contract = Contract.model_validate_json(json.dumps(members))
    except ValidationError:
        return
    assert isinstance(contract.card(), dict)


@bounded
@given(json_values.map(json.dumps) | any_unicode.map(lambda text: text.encode(errors="replace")) | st.binary())
def test_anything_for_a_contract_is_a_validation_error(told: str | bytes) -> None:
    with pytest.raises(ValidationError):
        Contract.model_validate_json(told)


@bounded
@given(contracts(), st.data())
def test_golden_answers_agree_or_are_unproven(members: dict[str, Any], data: st.DataObject) -> None:
    contract = Contract.model_validate_json(json.dumps(members))
    expected = np.array([example.probabilities for example in contract.golden.examples], np.float32)
    compare_golden_answers(contract, expected)
    shape = data.draw(st.sampled_from([expected.shape, (1, 1), (0, 2), (len(expected), 1)]))
    answers = np.resize(expected, shape)
    if answers.size:
        at = data.draw(st.integers(0, answers.size - 1))
        answers.ravel()[at] = data.draw(st.floats(width=32))
    try:
        compare_golden_answers(contract, answers)
    except Unproven as unproven:
        assert str(unproven)  # noqa: PT017
    else:
        assert answers.shape == expected.shape
        assert np.abs(answers - expected).max() <= contract.golden.tolerance


# --- what clients send


def request(body: bytes = b"", *headers: tuple[str, str], pieces: int = 1) -> Request:
    """A request whose body comes in pieces."""
    size = max(1, -(-len(body) // pieces))
    messages = [
        {"type": "http.request", "body": body[at : at + size], "more_body": at + size < len(body)}
        for at in range(0, max(1, len(body)), size)
    ]

    async def receive() -> Any:
        return messages.pop(0)

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return Request({"type": "http", "method": "POST", "headers": raw, "query_string": b"", "app": None}, receive)


header_values = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"))


@bounded
@given(header_values | st.floats().map(str) | st.integers().map(str), st.floats(0.001, 100))
@example("1_0", 5.0)
@example("1e400", 5.0)
def test_a_timeout_is_a_positive_number_within_the_default_or_a_bad_request(header: str, default: float) -> None:
    try:
        seconds = request_timeout(request(b"", ("X-Request-Timeout", header)), default)
    except BadRequest:
        return
    assert 0 < seconds <= default


def json_of(value: Any) -> bytes:
    return json.dumps(value).encode()


bodies = (
    st.binary()
    | json_values.map(json_of)
    | any_unicode.map(lambda text: json_of({"text": text}))
    | st.lists(any_unicode).map(lambda texts: json_of({"texts": texts}))
)


@bounded
@given(bodies)
def test_json_is_a_text_or_texts_or_a_problem(body: bytes) -> None:
    try:
        texts = parse_texts(body)
    except Problem as problem:
        assert 400 <= problem.status < 500  # noqa: PT017
        problem.json()
        return
    assert json.loads(body) == texts.model_dump(exclude_unset=True)


@bounded
@given(bodies, header_values | st.sampled_from(["application/json", "text/plain", ""]), header_values | st.just(""))
def test_a_body_is_texts_or_a_problem(body: bytes, content_type: str, coding: str) -> None:
    asked = request(body, ("Content-Type", content_type), ("Content-Encoding", coding), pieces=3)
    try:
        items = asyncio.run(read_texts(asked, max_items=3))
    except Problem as problem:
        assert 400 <= problem.status < 500  # noqa: PT017
        problem.json()
        return
    assert 1 <= len(items.raw) <= 3
    assert all(isinstance(text, str) for text in items.raw)


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """A form, or nearly one."""
    part = st.builds(
        lambda name, filename, content: (
            b'--frame\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name, filename, content)
        ),
        st.just(b"file") | st.binary(max_size=5),
        st.just(b'; filename="a"') | st.binary(max_size=9),
        st.binary(max_size=20),
    )
    frame = b"".join(draw(st.lists(part, max_size=5))) + draw(st.just(b"--frame--\r\n") | st.binary(max_size=10))
    at = draw(st.integers(0, len(frame)))
    return draw(
        st.just(frame) | st.just(frame[:at]) | st.binary(max_size=3).map(lambda add: frame[:at] + add + frame[at:])
    )


charsets = st.sampled_from(
    ["utf-8", "utf-7", "utf-16", "undefined", "idna", "punycode", "hex", "unicode_escape", "\xff"]
)


@bounded
@given(forms(), st.just("") | charsets.map("; charset={}".format), st.integers(1, 5))
@example(b'--frame\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--frame--\r\n', "; charset=undefined", 1)
def test_a_form_is_files_or_a_problem(body: bytes, charset: str, pieces: int) -> None:
    asked = request(body, ("Content-Type", f"multipart/form-data; boundary=frame{charset}"), pieces=pieces)
    try:
        items = asyncio.run(read_images(asked, max_items=3))
    except Problem as problem:
        assert 400 <= problem.status < 500  # noqa: PT017
        problem.json()
        return
    assert 1 <= len(items.raw) <= 3
    assert all(isinstance(picture, bytes) for picture in items.raw)


@bounded
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=3), st.integers(1, 9))
def test_the_files_of_a_form_come_as_they_were_sent(files: list[bytes], pieces: int) -> None:
    assume(not any(b"--frame" in content for content in files))
    head = b'--frame\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = b"".join(head + content + b"\r\n" for content in files) + b"--frame--\r\n"
    asked = request(body, ("Content-Type", "multipart/form-data; boundary=frame"), pieces=pieces)
    assert asyncio.run(read_images(asked, max_items=3)).raw == files


# --- preprocessing


SPECS = [
    ImageInput(name="image", height=height, width=width, channels=channels, fit=fit, filter="bilinear")
    for height, width, channels, fit in [(8, 8, 3, "cover"), (5, 9, 1, "contain"), (9, 5, 3, "fill")]
]


@cache
def seeds() -> list[bytes]:
    """One small picture in every format and several modes."""
    made = []
    for kind, mode in [
        *((kind, "RGB") for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")),
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
        *(("TIFF", mode) for mode in ("CMYK", "F", "I")),
        *(("GIF", "P"), ("JPEG", "CMYK"), ("JPEG", "L")),
    ]:
        buffer = BytesIO()
        Image.linear_gradient("L").resize((12, 7)).convert(mode).save(buffer, kind)
        made.append(buffer.getvalue())
    return made


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """A picture with some of its bytes others, or cut, or longer; or any bytes."""
    encoded = bytearray(draw(st.sampled_from(range(len(seeds()))).map(seeds().__getitem__)))
    for _ in range(draw(st.integers(0, 6))):
        encoded[draw(st.integers(0, len(encoded) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.none() | st.integers(0, len(encoded)))
    return bytes(encoded[:cut]) + draw(st.just(b"") | st.binary(max_size=50))


@thorough
@given(pictures() | st.binary(), st.sampled_from(SPECS))
def test_bytes_are_pixels_of_the_contracts_shape_or_a_problem(encoded: bytes, spec: ImageInput) -> None:
    preprocessor = ImagePreprocessor(spec, max_pixels=100_000)
    try:
        pixels = preprocessor.prepare(encoded)
    except Problem as problem:
        assert 400 <= problem.status < 500  # noqa: PT017
        problem.json()
        return
    assert pixels.shape == (spec.height, spec.width, spec.channels)
    assert pixels.dtype == np.uint8
    quick = preprocessor.prepare_quickly(encoded)
    assert quick is None or np.array_equal(quick, pixels)


@cache
def text_input() -> TextInput:
    texts = ["A warm, funny film.", "It's bad... so BAD!", "café <br /> 12", "文 字"]
    return TextInput(name="tokens", max_length=12, pad_id=0, tokenizer=train_tokenizer(texts, vocabulary=30))


@cache
def text_preprocessor() -> TextPreprocessor:
    return TextPreprocessor(text_input(), max_characters=200)


words = st.sampled_from(
    ["warm ", "BAD", "<br />", "<", "a\u0301", "\x00", "\x85", "👩\u200d👩", "\u202e", "[PAD]", "文"]
)


@thorough
@given(any_unicode | st.lists(words).map("".join))
def test_a_text_is_ids_or_a_problem(text: str) -> None:
    try:
        ids = text_preprocessor().prepare(text)
    except Problem as problem:
        assert problem.status == 422  # noqa: PT017
        problem.json()
        return
    assert 1 <= len(ids) <= 12
    assert ids.dtype == np.int32
    assert 0 < ids.min() <= ids.max() < 30
    assert text_preprocessor().prepare(text).tolist() == ids.tolist()


@bounded
@given(st.lists(st.lists(st.integers(1, 29), min_size=1, max_size=12), min_size=1, max_size=6))
def test_a_batch_of_texts_holds_every_row_and_padding(rows: list[list[int]]) -> None:
    batch = text_preprocessor().collate([np.array(row, np.int32) for row in rows])
    assert batch.shape == (len(rows), max(map(len, rows)))
    assert [[token for token in row if token] for row in batch.tolist()] == rows


# --- the local model server

VALID_CONFIG = """model_config_list {
  config { name: "cnn" base_path: "cnn" model_platform: "tensorflow"
           model_version_policy { specific { versions: 1 versions: 2 } }
           version_labels { key: "stable" value: 1 } }
}"""


@st.composite
def configs(draw: st.DrawFn) -> str:
    """A models.config with some of it gone, doubled or other."""
    lines = VALID_CONFIG.split(" ")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = draw(st.sampled_from(["", "{", "}", "-1", "99999999999999999999", '"', "latest", "all"]) | names)
    return " ".join(lines)


@bounded
@given(configs() | any_unicode)
def test_a_models_config_is_models_or_a_value_error(text: str) -> None:
    try:
        models = parse(text, Path("/models"))
    except ValueError:
        return
    assert all(model.name and model.aspired([1, 2, 3]) <= {1, 2, 3} for model in models)


sizes = st.lists(st.integers(-1, 4) | st.sampled_from([2**31, 2**62]), max_size=3)


@st.composite
def tensors(draw: st.DrawFn) -> bytes:
    proto = TensorProto(dtype=draw(st.integers(0, 30)))
    for size in draw(sizes):
        proto.tensor_shape.dim.add(size=size)
    field = draw(st.sampled_from(["tensor_content", "float_val", "int_val", "string_val", "half_val", "bool_val"]))
    match field:
        case "tensor_content":
            proto.tensor_content = draw(st.binary(max_size=64))
        case "string_val":
            proto.string_val.extend(draw(st.lists(st.binary(max_size=3), max_size=9)))
        case "float_val":
            proto.float_val.extend(draw(st.lists(st.floats(width=32), max_size=9)))
        case "bool_val":
            proto.bool_val.extend(draw(st.lists(st.booleans(), max_size=9)))
        case _:
            getattr(proto, field).extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9)))
    return bytes(proto.SerializeToString())


@bounded
@example(TensorProto(dtype=19, half_val=[-1]).SerializeToString())  # a half that no half is
@given(tensors() | st.binary())
def test_a_tensor_is_an_array_of_its_shape_or_a_value_error(encoded: bytes) -> None:
    proto = TensorProto()
    try:
        proto.ParseFromString(encoded)
    except DecodeError:
        return
    try:
        array = tensor.read(proto)
    except ValueError:
        return
    assert list(array.shape) == [dim.size for dim in proto.tensor_shape.dim]

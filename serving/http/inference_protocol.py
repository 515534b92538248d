"""The Open Inference Protocol v2 as it travels: requests read, answers written, in JSON and as binary tensors."""

import base64
import binascii
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.classification import Outcome
from serving.http.headers import header_values
from serving.http.inference_schemas import (
    LABEL,
    PROBABILITIES,
    SCORE,
    InferenceRequest,
    InputParameters,
    Kind,
    OutputParameters,
    Parameters,
    RequestedOutput,
    RequestInput,
)
from serving.http.requests import check_count, faults, json_or, parse_json, read_body, shown
from serving.problems import BadRequest, Problem, Unprocessable

HEADER_LENGTH = "Inference-Header-Content-Length"
"""How many bytes of the body are JSON; the tensors of the binary data extension follow."""
BINARY_TYPE = "application/octet-stream"
LENGTH = struct.Struct("<I")
"""Before each element of a BYTES tensor in binary."""
DIGITS = re.compile(r"[0-9]{1,15}")
SHARED_MEMORY = "shared_memory_region"


@dataclass(frozen=True)
class Output:
    """An output that is wanted: as bytes or in JSON, and for a `classification` how many labels of each item."""

    name: str
    binary: bool
    classification: int | None = None


@dataclass(frozen=True)
class Inference:
    """A request that was read: its items (encoded pictures or texts) and the outputs that it wants."""

    items: Sequence[bytes | str]
    outputs: Sequence[Output]
    id: str | None


async def read_inference(request: Request, kind: Kind, *, max_items: int) -> Inference:
    """The body of an infer request, for a model of that kind.

    Raises:
        UnsupportedMediaType: the body is neither JSON nor bytes, or compressed.
        BadRequest: it is malformed, contradicts itself, or asks for what this model does not have.
        Unprocessable: an element is not in base64, or no UTF-8.
        TooLarge: too many items, or more JSON than any request needs.
    """
    json_or(BINARY_TYPE, request, f"application/json, or {BINARY_TYPE} with tensors after the JSON")
    length = _header_length(request)
    body = await read_body(request)
    if length is not None and length > len(body):
        raise BadRequest(f"{HEADER_LENGTH} is {length:,}, and the body has {len(body):,} bytes.")
    asked = _parse(body if length is None else body[:length])
    (tensor,) = asked.inputs
    count = _check_tensor(tensor, kind, max_items)
    binary = body[length:] if length is not None else b""
    return Inference(_items(tensor, kind, count, binary), _outputs(asked), asked.id)


def _parse(body: bytes) -> InferenceRequest:
    document = parse_json(body)
    if not isinstance(document, dict):
        raise BadRequest('The body is no inference request: it is no object such as {"inputs": [{…}]}.')
    try:
        return InferenceRequest.model_validate(document)
    except ValidationError as error:
        raise BadRequest(f"The body is no inference request: {faults(error)}.") from error


def _header_length(request: Request) -> int | None:
    sent = ", ".join(header_values(request.scope, HEADER_LENGTH.lower().encode()))
    if not sent:
        return None
    if not DIGITS.fullmatch(sent):
        raise BadRequest(f"{HEADER_LENGTH} is {shown(sent)}; it takes the number of bytes that are JSON.")
    return int(sent)


def _check_tensor(tensor: RequestInput, kind: Kind, max_items: int) -> int:
    """How many items a tensor that this kind of model takes has."""
    wanted = "encoded pictures (JSON: in base64)" if kind == "image" else "texts"
    if tensor.name != kind or tensor.datatype != "BYTES":
        raise BadRequest(
            f"The input {shown(tensor.name)} of {shown(tensor.datatype)} is not taken: the model prepares its input "
            f'itself. Send "name": "{kind}", "datatype": "BYTES", "shape": [n], and n {wanted}.'
        )
    count, *rest = tensor.shape
    if rest not in ([], [1]) or not count:
        raise BadRequest(f"The shape of {kind} is not one of [n] and [n, 1], n > 0: send n {wanted}.")
    check_count(count, max_items)
    return count


def _items(tensor: RequestInput, kind: Kind, count: int, binary: bytes) -> Sequence[bytes | str]:
    parameters = tensor.parameters or InputParameters()
    _refuse_shared_memory(parameters)
    size = parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise BadRequest(f'{kind} has to be either in "data" or, by "binary_data_size", in the bytes after the JSON.')
    if len(binary) != (size or 0):
        raise BadRequest(
            f"{len(binary):,} bytes come after the JSON, and its binary_data_size says {size or 0:,}; "
            f"{HEADER_LENGTH} tells where the JSON ends."
        )
    if tensor.data is None:
        return _binary_items(kind, count, binary)
    flat = list(_flattened(tensor.data, nested=len(tensor.shape) > 1))
    if len(flat) != count or not all(isinstance(item, str) for item in flat):
        raise BadRequest(f'The "data" of {kind} has to be {count} strings: its shape says so.')
    return flat if kind == "text" else [_from_base64(item, number) for number, item in enumerate(flat)]


def _flattened(data: Sequence[Any], *, nested: bool) -> Iterator[Any]:
    """A tensor's elements; those of one of two dimensions may stand in lists of their own, or not."""
    return chain.from_iterable(item if nested and isinstance(item, list) else [item] for item in data)


def _from_base64(item: str, number: int) -> bytes:
    try:
        return base64.b64decode(item, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unprocessable(f"image[{number}] is not base64, without line breaks, of an encoded picture.") from error


def _binary_items(kind: Kind, count: int, binary: bytes) -> Sequence[bytes | str]:
    elements = list(_elements(binary, count))
    if len(elements) != count:
        raise BadRequest(
            f"The {len(binary):,} bytes of {kind} are not {count} elements, each of 4 bytes (little-endian) that give "
            "its length, and as many bytes as they say."
        )
    return elements if kind == "image" else [_from_utf8(item, number) for number, item in enumerate(elements)]


def _elements(binary: bytes, count: int) -> Iterator[bytes]:
    """The elements of a BYTES tensor, `count` at most; fewer where its bytes do not add up."""
    at = 0
    for left in range(count - 1, -1, -1):
        if len(binary) - at < LENGTH.size:
            return
        (length,) = LENGTH.unpack_from(binary, at)
        end = at + LENGTH.size + length
        if end > len(binary) or (not left and end < len(binary)):
            return
        yield binary[at + LENGTH.size : end]
        at = end


def _from_utf8(item: bytes, number: int) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        raise Unprocessable(f"text[{number}] is not valid UTF-8: byte {error.start} fits nowhere.") from error


def _outputs(asked: InferenceRequest) -> Sequence[Output]:
    binary = bool(asked.parameters and asked.parameters.binary_data_output)
    known = (LABEL, SCORE, PROBABILITIES)
    if not asked.outputs:
        return [Output(name, binary) for name in known]
    names = [output.name for output in asked.outputs]
    if strangers := [name for name in names if name not in known]:
        raise BadRequest(f"There is no output {shown(strangers[0])}; there are {', '.join(known)}.")
    if len(set(names)) < len(names):
        raise BadRequest("An output is asked for twice.")
    return [_output(output, binary=binary) for output in asked.outputs]


def _output(asked: RequestedOutput, *, binary: bool) -> Output:
    parameters = asked.parameters or OutputParameters()
    _refuse_shared_memory(parameters)
    if parameters.classification is not None and asked.name != PROBABILITIES:
        raise BadRequest(f"classification is for the output {PROBABILITIES}, not for {asked.name}.")
    if parameters.binary_data is not None:
        binary = parameters.binary_data
    return Output(asked.name, binary, parameters.classification)


def _refuse_shared_memory(parameters: Parameters) -> None:
    if SHARED_MEMORY in (parameters.model_extra or {}):
        raise BadRequest("Shared memory is not taken: send the tensors with the request.")


def answers_of_all(kind: Kind, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The outcomes if all are answers: the protocol knows none for a part of a request.

    Raises:
        Problem: that of the first item that has one; it names the item.
    """
    answers = []
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Problem):
            raise type(outcome)(f"{kind}[{number}]: {outcome.detail}", retry_after=outcome.retry_after)
        answers.append(outcome)
    return answers


def inference_response(
    inference: Inference,
    answers: Sequence[Mapping[str, Any]],
    *,
    model: str,
    version: int,
    labels: Sequence[str],
    headers: Mapping[str, str],
) -> Response:
    """The answers as the outputs that the request wants.

    Args:
        inference: the request.
        answers: of all items, each with the probabilities of all labels.
        model: the name of the model that answered.
        version: of that model.
        labels: the model's, in the order of its output.
        headers: further ones of the response.
    """
    binaries = []
    outputs = []
    for output in inference.outputs:
        described, values = _tensor(output, answers, labels)
        if output.binary:
            binaries.append(_serialized(values))
            described["parameters"] = {"binary_data_size": len(binaries[-1])}
        else:
            described["data"] = values
        outputs.append(described)
    document = {"model_name": model, "model_version": str(version), "outputs": outputs}
    if inference.id is not None:
        document["id"] = inference.id
    if not binaries:
        return JSONResponse(document, headers=headers)
    header = json.dumps(document).encode()
    told = {**headers, HEADER_LENGTH: str(len(header))}
    return Response(b"".join([header, *binaries]), headers=told, media_type=BINARY_TYPE)


def _tensor(
    output: Output, answers: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> tuple[dict[str, Any], list[str] | list[float]]:
    """What describes an output, and its elements in row-major order."""
    if output.name == LABEL:
        return {"name": LABEL, "datatype": "BYTES", "shape": [len(answers)]}, [answer["label"] for answer in answers]
    if output.name == SCORE:
        return {"name": SCORE, "datatype": "FP32", "shape": [len(answers)]}, [answer["score"] for answer in answers]
    scores = [{best["label"]: best["score"] for best in answer["predictions"]} for answer in answers]
    if output.classification is None:
        shape = [len(answers), len(labels)]
        probabilities = [row[label] for row in scores for label in labels]
        return {"name": PROBABILITIES, "datatype": "FP32", "shape": shape}, probabilities
    index = {label: number for number, label in enumerate(labels)}
    count = min(output.classification, len(labels))
    best = [f"{score:f}:{index[label]}:{label}" for row in scores for label, score in list(row.items())[:count]]
    return {"name": PROBABILITIES, "datatype": "BYTES", "shape": [len(answers), count]}, best


def _serialized(values: list[str] | list[float]) -> bytes:
    """A tensor's elements as the binary data extension has them."""
    if isinstance(values[0], str):
        encoded = [str(value).encode() for value in values]
        return b"".join(LENGTH.pack(len(element)) + element for element in encoded)
    return np.asarray(values, dtype="<f4").tobytes()

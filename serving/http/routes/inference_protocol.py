"""`/v2`: the Open Inference Protocol, for the clients of KServe, Triton and their like."""

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata as packages
from typing import Any, TypedDict

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from serving.classification import Classifier, Wanted
from serving.http.endpoints import server_timing
from serving.http.errors import documented
from serving.http.headers import header
from serving.http.inference_protocol import (
    BINARY_TYPE,
    HEADER_LENGTH,
    answers_of_all,
    inference_response,
    read_inference,
)
from serving.http.inference_schemas import (
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    metadata,
)
from serving.http.openapi import COMPONENT, GUARDED, answer
from serving.http.requests import deadline_of, shown
from serving.http.routes.classify import SERVER_TIMING
from serving.problems import (
    BadRequest,
    DeadlineExceeded,
    NotFound,
    Problem,
    RequestTimeout,
    TooLarge,
    Unavailable,
    UnknownVersion,
    Unprocessable,
    UnsupportedMediaType,
)
from serving.settings import Settings
from serving.stopping import Stopping

EXTENSIONS = ["binary_tensor_data", "classification"]
NUMBER = re.compile(r"[1-9][0-9]{0,18}")
LONGEST_LABEL = 256
ALL_LABELS = Wanted(top_k=sys.maxsize)
MODEL = "/models/{name}"
VERSION = "/models/{name}/versions/{version}"

NOT_READY = Unavailable("cnn is not ready: no version is ready yet.", retry_after=1)
OF_A_MODEL = (NotFound("There is no model 'resnet'; there are cnn, lstm."), NOT_READY, *GUARDED)
OF_AN_INFERENCE = (
    BadRequest("There is no output 'logits'; there are label, score, probabilities."),
    UnknownVersion("lstm has no version 7 in service; it has 1, 2."),
    RequestTimeout("The body took longer than 10 seconds to come."),
    TooLarge("The request has more than 128 items. Send fewer at a time."),
    UnsupportedMediaType(
        "A body of type 'text/html' is not taken. Send application/json, or application/octet-stream with tensors "
        "after the JSON."
    ),
    Unprocessable("text[1]: The text is empty."),
    NOT_READY,
    DeadlineExceeded("There was no answer within 10 seconds."),
    *GUARDED,
)

TEXTS = ["Charming from start to end.", "Two hours that nobody gives me back."]
LABELS = ["negative", "positive"]
REQUEST_EXAMPLES = {
    "texts": {"id": "42", "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS}]},
    "some outputs": {
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": TEXTS[:1]}],
        "outputs": [{"name": "label"}],
    },
}
RESPONSE_EXAMPLE = {
    "model_name": "lstm",
    "model_version": "2",
    "id": "42",
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["positive", "negative"]},
        {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.98, 0.99]},
        {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.02, 0.98, 0.99, 0.01]},
    ],
}
BINARY_ANSWER = {
    "schema": {"type": "string", "format": "binary"},
    "example": '{"model_name": "lstm", "model_version": "2", "outputs": [{"name": "score", "datatype": "FP32", '
    '"shape": [1], "parameters": {"binary_data_size": 4}}]}\0\0\0?',
}
"""Where a request asks for it."""
JSON_LENGTH = {
    "description": "How many bytes of the answer are JSON, where outputs follow as bytes.",
    "schema": {"type": "integer"},
}
METADATA_EXAMPLE = metadata("lstm", "text", [1, 2], LABELS).model_dump(exclude_none=True)


def inference_routes(served: Sequence[Classifier], stopping: Stopping, settings: Settings) -> APIRouter:
    """The protocol's endpoints, for all models alike."""
    classifiers = {classifier.model.name: classifier for classifier in served}
    router = APIRouter(prefix="/v2", tags=["inference protocol"])
    server = ServerMetadata(name="sightread", version=packages.version("sightread"), extensions=EXTENSIONS).model_dump()

    @router.get("/", include_in_schema=False)  # so it stands in the protocol's own OpenAPI document
    @router.get("", operation_id="server_metadata", responses=_responses(ServerMetadata, server, *GUARDED))
    async def server_metadata() -> Response:
        """What this service is, and which of the protocol's extensions it knows."""
        return JSONResponse(server)

    @router.get("/health/live", operation_id="server_live", responses=_responses(ServerLive, {"live": True}))
    async def server_live() -> Response:
        """Whether this process answers."""
        return JSONResponse({"live": True})

    @router.get(
        "/health/ready", operation_id="server_ready", responses=_responses(ServerReady, {"ready": True}, NOT_READY)
    )
    async def server_ready() -> Response:
        """Whether every model has a proven version, and the service is to go on; if not, why."""
        if stopping.has_begun:
            raise Unavailable("The service was asked to stop.", retry_after=1)
        for classifier in classifiers.values():
            await classifier.model.choose()
        return JSONResponse({"ready": True})

    async def model_metadata(request: Request) -> Response:
        """What a model takes and gives, and its versions."""
        model = _asked(request, classifiers).model
        labels = (await model.choose(**_asked_version(request))).contract.labels
        versions = [version["version"] for version in model.describe()["versions"] if version["state"] == "proven"]
        return JSONResponse(metadata(model.name, model.kind, sorted(versions), labels).model_dump(exclude_none=True))

    async def model_ready(request: Request) -> Response:
        """Whether a model, or that version of it, takes traffic; if not, why."""
        model = _asked(request, classifiers).model
        await model.choose(**_asked_version(request))
        return JSONResponse({"name": model.name, "ready": True})

    async def infer(request: Request) -> Response:
        """Classify one or many pictures or texts: a BYTES tensor `image` or `text` of the shape [n] or [n, 1].

        In JSON pictures are in base64. With Triton's binary data extension (`application/octet-stream` and the header
        `Inference-Header-Content-Length`) they are as they are. If one item is bad, the request fails.
        """
        return await _infer(request, _asked(request, classifiers), settings)

    asks = {"requestBody": {"required": True, "content": {"application/json": _body()}}}
    answers = _responses(InferenceResponse, RESPONSE_EXAMPLE, *OF_AN_INFERENCE)
    answers[200]["content"][BINARY_TYPE] = BINARY_ANSWER
    answers[200]["headers"] = {"Server-Timing": SERVER_TIMING, HEADER_LENGTH: JSON_LENGTH}
    for path, of_what in ((MODEL, ""), (VERSION, "_of_version")):
        parameters = {"parameters": _path_parameters(path, list(classifiers))}
        router.add_api_route(
            path,
            model_metadata,
            operation_id=f"model_metadata{of_what}",
            openapi_extra=parameters,
            responses=_responses(ModelMetadata, METADATA_EXAMPLE, *OF_A_MODEL),
        )
        router.add_api_route(
            f"{path}/ready",
            model_ready,
            operation_id=f"model_ready{of_what}",
            openapi_extra=parameters,
            responses=_responses(ModelReady, {"name": "lstm", "ready": True}, *OF_A_MODEL),
        )
        router.add_api_route(
            f"{path}/infer",
            infer,
            methods=["POST"],
            operation_id=f"infer{of_what}",
            openapi_extra={**parameters, **asks},
            responses=answers,
        )
    return router


def _responses(model: type[BaseModel], example: dict[str, Any], *problems: Problem) -> dict[int | str, dict[str, Any]]:
    return {200: answer(model, example), **documented(*problems, protocol=True)}


def _body() -> dict[str, Any]:
    schema = InferenceRequest.model_json_schema(ref_template=COMPONENT)
    return {"schema": schema, "examples": {name: {"value": value} for name, value in REQUEST_EXAMPLES.items()}}


def _path_parameters(path: str, models: Sequence[str]) -> list[dict[str, Any]]:
    name = {"name": "name", "description": "A model.", "examples": models}
    version = {"name": "version", "description": "A version's number, or a version label.", "examples": ["1"]}
    return [
        {
            "name": parameter["name"],
            "in": "path",
            "required": True,
            "description": parameter["description"],
            "schema": {"type": "string", "minLength": 1, "examples": parameter["examples"]},
        }
        for parameter in (name, version)
        if f"{{{parameter['name']}}}" in path
    ]


def _asked(request: Request, classifiers: Mapping[str, Classifier]) -> Classifier:
    name = request.path_params["name"]
    if name not in classifiers:
        raise NotFound(f"There is no model {shown(name)}; there are {', '.join(classifiers) or 'none'}.")
    return classifiers[name]


class _Choice(TypedDict):
    """How a version is asked for: by number, by label, or not at all."""

    version: int | None
    label: str | None


def _asked_version(request: Request) -> _Choice:
    version: str | None = request.path_params.get("version")
    if version is None:
        return {"version": None, "label": None}
    if NUMBER.fullmatch(version):
        return {"version": int(version), "label": None}
    if len(version) > LONGEST_LABEL:
        raise UnknownVersion(f"{shown(version)} is no version, and too long for a version label.")
    return {"version": None, "label": version}


async def _infer(request: Request, classifier: Classifier, settings: Settings) -> Response:
    model = classifier.model
    request.state.model = model.name
    with deadline_of(request, settings.deadline_seconds) as deadline:
        classifier.check(deadline.at, is_large_picture=False)
        inference = await read_inference(request, model.kind, max_items=settings.max_items)
        deadline.body_has_come()
        classification = await classifier.classify(
            inference.items,
            deadline=deadline.at,
            wanted=ALL_LABELS,
            session=header(request.scope, b"x-session-id") or None,
            **_asked_version(request),
        )
    version = classification.version
    request.state.version = version.number
    answers = answers_of_all(model.kind, classification.outcomes)
    stages = deadline.stages(classification.stages)
    with classifier.encoding():
        return inference_response(
            inference,
            answers,
            model=model.name,
            version=version.number,
            labels=version.contract.labels,
            headers={"Server-Timing": server_timing(stages)},
        )

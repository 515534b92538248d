"""The JSON of the Open Inference Protocol v2, for OpenAPI and for checking what clients send.

A model is shown as what the gateway makes of it: one tensor of encoded pictures or texts goes in, labels and
probabilities come out. How pictures become pixels, and texts numbers, stays the contract's business.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Len
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, WithJsonSchema, field_validator

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
LABEL, SCORE, PROBABILITIES = "label", "score", "probabilities"

Kind = Literal["image", "text"]
Data = Annotated[
    list[Any],
    WithJsonSchema(
        {
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "description": "As many as `shape` says, flat or nested: pictures in base64, or texts.",
        }
    ),
]


class Parameters(BaseModel):
    """Further values by name. Those that mean nothing here are passed over, as the protocol wants it."""

    model_config = ConfigDict(extra="allow", strict=True)


class InputParameters(Parameters):
    """Further values of an input."""

    binary_data_size: Annotated[
        int | None, Ge(0), Field(description="The tensor is not in `data` but in this many bytes after the JSON.")
    ] = None


class OutputParameters(Parameters):
    """Further values of a requested output."""

    binary_data: Annotated[bool | None, Field(description="Whether it comes as bytes after the JSON.")] = None
    classification: Annotated[
        PositiveInt | None,
        Field(description="Of `probabilities` only: so many of the best, each as a text `probability:index:label`."),
    ] = None


class RequestParameters(Parameters):
    """Further values of a request."""

    binary_data_output: Annotated[
        bool | None, Field(description="Whether outputs that do not say so themselves come as bytes after the JSON.")
    ] = None


class RequestInput(BaseModel):
    """The one input: pictures or texts."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(description="The model's kind: `image` or `text`.", examples=["text"])]
    # a list of another type is one fault, not as many as it is long
    shape: Annotated[
        list[Annotated[int, Ge(0)]], Len(1), Field(description="[n] or [n, 1].", examples=[[1]], fail_fast=True)
    ]
    datatype: Annotated[str, Field(description="BYTES.", examples=["BYTES"])]
    parameters: InputParameters | None = None
    data: Data | None = None


class RequestedOutput(BaseModel):
    """An output that is wanted."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(description="`label`, `score` or `probabilities`.")]
    parameters: OutputParameters | None = None


class InferenceRequest(BaseModel):
    """What is to be classified, and what of the answer is wanted: all outputs unless `outputs` names some."""

    model_config = ConfigDict(strict=True)

    id: Annotated[str | None, Field(description="Comes back with the answer.")] = None
    parameters: RequestParameters | None = None
    inputs: Annotated[list[RequestInput], Len(1, 1)]
    outputs: Annotated[list[RequestedOutput], Field(fail_fast=True)] | None = None

    @field_validator("id")
    @classmethod
    def _can_be_told(cls, name: str | None) -> str | None:
        if name is not None and LONE_SURROGATE.search(name):
            raise ValueError("a lone surrogate stands in it, which is not Unicode")
        return name


class ResponseOutput(BaseModel):
    """An output tensor."""

    name: str
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    parameters: Annotated[dict[str, int] | None, Field(description="`binary_data_size`, if it comes as bytes.")] = None
    data: Annotated[list[str | float] | None, Field(description="In row-major order; unless it comes as bytes.")] = None


class InferenceResponse(BaseModel):
    """The answer."""

    model_name: str
    model_version: Annotated[str, Field(description="The version that answered.")]
    id: Annotated[str | None, Field(description="The request's, if it had one.")] = None
    outputs: list[ResponseOutput]


class TensorMetadata(BaseModel):
    """A tensor that goes in or comes out; -1 is a size that varies."""

    name: str
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    parameters: Annotated[
        dict[str, Any] | None,
        Field(description="`content_type` of an input: base64 (of a picture) or str; `labels` of probabilities."),
    ] = None


class ModelMetadata(BaseModel):
    """A model as this protocol sees it."""

    name: str
    versions: Annotated[list[str], Field(description="Those that take traffic.")]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(BaseModel):
    """This service, and which of the protocol's extensions it knows."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """The process answers."""

    live: Literal[True]


class ServerReady(BaseModel):
    """Every model has a version that takes traffic."""

    ready: Literal[True]


class ModelReady(ServerReady):
    """The model, or the version of it, takes traffic."""

    name: str


def metadata(name: str, kind: Kind, versions: Sequence[int], labels: Sequence[str]) -> ModelMetadata:
    """What a model takes and gives."""
    content_type = {"image": "base64", "text": "str"}[kind]
    probabilities = TensorMetadata(
        name=PROBABILITIES, datatype="FP32", shape=[-1, len(labels)], parameters={"labels": labels}
    )
    return ModelMetadata(
        name=name,
        versions=list(map(str, versions)),
        platform="tensorflow_savedmodel",
        inputs=[TensorMetadata(name=kind, datatype="BYTES", shape=[-1], parameters={"content_type": content_type})],
        outputs=[
            TensorMetadata(name=LABEL, datatype="BYTES", shape=[-1]),
            TensorMetadata(name=SCORE, datatype="FP32", shape=[-1]),
            probabilities,
        ],
    )

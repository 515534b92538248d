"""The JSON that goes over HTTP, for OpenAPI and for checking what clients send."""

from typing import Annotated, Any, Self

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator


class Options(BaseModel):
    """The query of both classify endpoints."""

    model_config = ConfigDict(extra="forbid")

    top_k: Annotated[PositiveInt, Field(description="How many labels an answer names, best first.")] = 3
    version: Annotated[PositiveInt | None, Field(description="The version that must answer.")] = None
    version_label: Annotated[
        Annotated[str, Len(1, 256)] | None, Field(description="The version label that must answer, such as `stable`.")
    ] = None
    explain: Annotated[bool, Field(description="Also say what the answer rests on.")] = False

    @model_validator(mode="after")
    def _names_one_version(self) -> Self:
        if self.version is not None and self.version_label is not None:
            raise ValueError("give version or version_label, not both")
        return self


class Texts(BaseModel):
    """The body of `/classify-text`: one text, or many."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str | None = None
    texts: list[str] | None = None

    @model_validator(mode="after")
    def _holds_one_kind(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise ValueError('give either "text" or "texts"')
        return self


class Prediction(BaseModel):
    """A label and its calibrated probability."""

    label: str
    score: float


class Answer(Prediction):
    """The best label, and the runners-up."""

    predictions: list[Prediction]


class ModelVersion(BaseModel):
    """Which version answered."""

    name: str
    version: int


class SingleAnswer(Answer):
    """The answer for one item."""

    model: ModelVersion


class ProblemDocument(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


class ItemProblem(BaseModel):
    """An item of many that could not be answered; its neighbours were."""

    problem: dict[str, Any]


class ManyAnswers(BaseModel):
    """The answers for many items, in their order."""

    results: list[Answer | ItemProblem]
    model: ModelVersion

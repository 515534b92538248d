"""The JSON that goes over HTTP, for OpenAPI and for checking what clients send."""

from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Len
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator


class Options(BaseModel):
    """The query of both classify endpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top_k: Annotated[PositiveInt, Field(description="How many labels an answer names, best first.")] = 3
    version: Annotated[PositiveInt | None, Field(description="The version that must answer.")] = None
    version_label: Annotated[
        Annotated[str, Len(1, 256)] | None, Field(description="The version label that must answer, such as `stable`.")
    ] = None
    explain: Annotated[
        bool,
        Field(
            description="Also say what the answer rests on. It costs about a hundred times as much; not every version "
            "can (`explain` in its contract)."
        ),
    ] = False

    @model_validator(mode="after")
    def _names_one_version(self) -> Self:
        if self.version is not None and self.version_label is not None:
            raise ValueError("give version or version_label, not both")
        return self


class ImageOptions(Options):
    """The query of `/classify-image`."""

    overlay: Annotated[
        bool, Field(description="With `explain`: also the attributions as a PNG to lay over the picture.")
    ] = False

    @model_validator(mode="after")
    def _has_what_to_lay_over(self) -> Self:
        if self.overlay and not self.explain:
            raise ValueError("overlay needs explain=true")
        return self


class Texts(BaseModel):
    """The body of `/classify-text`: one text, or many."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str | None = None
    # millions of members of another type are one fault, not millions
    texts: Annotated[list[str], Field(fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _holds_one_kind(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise ValueError('give either "text" or "texts"')
        return self


class Prediction(BaseModel):
    """A label and its calibrated probability."""

    label: str
    score: Annotated[float, Ge(0), Le(1)]


class Explanation(BaseModel):
    """What the most probable label rests on, by integrated gradients: an attribution above 0 speaks for it.

    The attributions add up to about `score`.
    """

    label: Annotated[str, Field(description="The label that is explained: the most probable one.")]
    score: Annotated[
        float, Field(description="By how much the label's log-odds exceed those that an empty input would get.")
    ]


class Area(BaseModel):
    """Where on the picture something lies, in shares of the upright picture's width and height.

    Upright is as its EXIF orientation says, and as browsers show it.
    """

    left: float
    top: float
    width: Annotated[float, Gt(0)]
    height: Annotated[float, Gt(0)]


class ImageExplanation(Explanation):
    """What each pixel that the model saw adds."""

    attribution: Annotated[
        list[list[float]], Field(description="Rows from top to bottom, at the model's resolution, over all of `area`.")
    ]
    area: Annotated[
        Area,
        Field(
            description="What the model saw of the picture: of one of another shape than the model's frame its middle, "
            "or, where the model adds borders, all of it and more."
        ),
    ]
    overlay: Annotated[
        str | None,
        Field(
            description="A PNG in base64 to lay over `area`: orange speaks for the label, blue against it, what is "
            "transparent adds nothing. Only if asked for.",
            json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"},
        ),
    ] = None


class Token(BaseModel):
    """A word or mark as the model read it, and what it adds.

    `start` and `end` count characters (Unicode code points) of the text as it was sent, the end excluded.
    """

    token: Annotated[str, Field(description="As the tokenizer names it; words that the model does not know share one.")]
    start: Annotated[int, Ge(0)]
    end: Annotated[int, Ge(0)]
    attribution: float


class TextExplanation(Explanation):
    """What each token that the model read adds, in their order."""

    tokens: list[Token]


class Answer(Prediction):
    """The best label, and the runners-up."""

    predictions: Annotated[list[Prediction], Len(1)]
    truncated: Annotated[bool | None, Field(description="True where the model did not read the text to its end.")] = (
        None
    )
    explanation: Annotated[ImageExplanation | TextExplanation | None, Field(description="Only if asked for.")] = None


class ModelVersion(BaseModel):
    """Which version answered."""

    name: str
    version: int


class SingleAnswer(Answer):
    """The answer for one item."""

    model: ModelVersion


class ProblemOfOneItem(BaseModel):
    """What is wrong with one item of many."""

    type: Annotated[str, Field(description="Names the kind of problem: a URI reference.")]
    title: str
    status: Annotated[int, Ge(400), Le(599)]
    detail: Annotated[str, Field(description="What happened this time, and what to do about it.")]


class ProblemDocument(ProblemOfOneItem):
    """What went wrong (RFC 9457)."""

    instance: Annotated[str, Field(description="Names the request, as its X-Request-ID and the log do.")]


class InferenceError(ProblemDocument):
    """What went wrong, for the Open Inference Protocol's clients as well."""

    error: Annotated[str, Field(description="The same as `detail`.")]


class ItemProblem(BaseModel):
    """An item of many that could not be answered; its neighbours were."""

    problem: ProblemOfOneItem


class ManyAnswers(BaseModel):
    """The answers for many items, in their order."""

    results: Annotated[list[Answer | ItemProblem], Len(1)]
    model: ModelVersion


class VersionState(BaseModel):
    """A version that the model server has, and whether it takes traffic; if not, why."""

    version: int
    state: str
    reason: str | None = None


class ModelState(BaseModel):
    """A model behind the gateway, and its versions."""

    name: str
    kind: Literal["image", "text"]
    ready: bool
    serving: Annotated[int | None, Field(description="The version that answers when a request names none.")]
    reason: Annotated[str | None, Field(description="Why no version takes traffic.")] = None
    versions: list[VersionState]


class Models(BaseModel):
    """Every model."""

    models: list[ModelState]


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"]


class Readiness(Models):
    """Whether there is a proven version, each model has, or had, one, and the service is to go on."""

    ready: bool
    reason: Annotated[
        str | None, Field(description="Why the service takes no traffic, if not for want of a model.")
    ] = None


class ModelCard(ModelState):
    """A model, and what one of its versions says of itself."""

    version: int
    contract: Annotated[dict[str, Any], Field(description="The contract, without what only machines read.")]

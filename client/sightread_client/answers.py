"""What the service answers, as frozen dataclasses, and how its JSON becomes that."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self


@dataclass(frozen=True, slots=True)
class Prediction:
    """A label, and its calibrated probability between 0 and 1."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """Which version answered."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Area:
    """A part of the upright picture, in shares of its width and height."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Token:
    """A word or mark as the model read it: characters `start` to `end` of the text, the end excluded.

    An attribution above 0 speaks for the label.
    """

    token: str
    start: int
    end: int
    attribution: float


@dataclass(frozen=True, slots=True)
class ImageExplanation:
    """What each pixel that the model saw adds.

    Attributes:
        label: the label that is explained, the most probable one.
        score: by how much its log-odds exceed those of an empty input: about the sum of the attributions.
        attribution: [height][width], rows from top to bottom, over all of `area`.
        area: what the model saw of the picture.
        overlay: a PNG to lay over `area`, where it was asked for.
    """

    label: str
    score: float
    attribution: tuple[tuple[float, ...], ...]
    area: Area
    overlay: bytes | None = None

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        return cls(
            label=told["label"],
            score=told["score"],
            attribution=tuple(map(tuple, told["attribution"])),
            area=Area(**_known(Area, told["area"])),
            overlay=base64.b64decode(told["overlay"]) if told.get("overlay") else None,
        )


@dataclass(frozen=True, slots=True)
class TextExplanation:
    """What each token that the model read adds, in their order; `label` and `score` as for pictures."""

    label: str
    score: float
    tokens: tuple[Token, ...]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        tokens = tuple(Token(**_known(Token, token)) for token in told["tokens"])
        return cls(label=told["label"], score=told["score"], tokens=tokens)


@dataclass(frozen=True, slots=True)
class Answer:
    """The best label, the runners-up after it, and the version that answered."""

    label: str
    score: float
    predictions: tuple[Prediction, ...]
    model: ModelVersion


@dataclass(frozen=True, slots=True)
class ImageAnswer(Answer):
    """What a picture shows."""

    explanation: ImageExplanation | None = None

    @classmethod
    def read(cls, told: Mapping[str, Any], model: ModelVersion) -> Self:
        explanation = told.get("explanation")
        return cls(**_answer(told, model), explanation=ImageExplanation.read(explanation) if explanation else None)


@dataclass(frozen=True, slots=True)
class TextAnswer(Answer):
    """What a text says; `truncated` where the model did not read it to its end."""

    truncated: bool = False
    explanation: TextExplanation | None = None

    @classmethod
    def read(cls, told: Mapping[str, Any], model: ModelVersion) -> Self:
        explanation = told.get("explanation")
        return cls(
            **_answer(told, model),
            truncated=bool(told.get("truncated")),
            explanation=TextExplanation.read(explanation) if explanation else None,
        )


@dataclass(frozen=True, slots=True)
class ProblemOfItem:
    """Why one item of many has no answer. It is false, so that answers are told from problems by `if`."""

    type: str
    title: str
    status: int
    detail: str

    def __bool__(self) -> Literal[False]:
        return False

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        return cls(**_known(cls, told))


@dataclass(frozen=True, slots=True)
class VersionState:
    """A version that the model server has, and whether it takes traffic; if not, why."""

    version: int
    state: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model of the service.

    Attributes:
        name: as in `Answer.model`.
        kind: `image` or `text`.
        ready: whether a version takes traffic.
        serving: the version that answers when a request names none.
        versions: all that the model server has.
        reason: why no version takes traffic.
    """

    name: str
    kind: str
    ready: bool
    serving: int | None
    versions: tuple[VersionState, ...]
    reason: str | None = None

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        versions = tuple(VersionState(**_known(VersionState, state)) for state in told["versions"])
        return cls(**_known(cls, told) | {"versions": versions})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard(ModelState):
    """A model, and what one of its versions says of itself: how it was made and how well it does."""

    version: int
    contract: Mapping[str, Any]


def model_version(told: Mapping[str, Any]) -> ModelVersion:
    """The version that a document names."""
    return ModelVersion(**_known(ModelVersion, told))


def _answer(told: Mapping[str, Any], model: ModelVersion) -> dict[str, Any]:
    predictions = tuple(Prediction(**_known(Prediction, prediction)) for prediction in told["predictions"])
    return {"label": told["label"], "score": told["score"], "predictions": predictions, "model": model}


def _known(kind: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    """The members that a dataclass knows: a newer service may tell more."""
    return {name: told[name] for name in kind.__dataclass_fields__ if name in told}

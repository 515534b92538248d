"""The contract (schema 1): what a version of a model says of itself.

Training writes it into the SavedModel (signature `contract`), the gateway reads it from the model server and learns
from it everything it must know: there is no other place in which a number of the model stands.
"""

from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Len
from pydantic import (
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

SIGNATURE = "contract"
REQUEST = "request"
"""Name of the contract signature's input (string, [n])."""
CONTRACT = "contract"
"""Name of the contract signature's output (string, [n]: the same JSON n times)."""
EXPLAIN = "explain"
"""Signature that tells why: the input of `serving_default` → ATTRIBUTION, LABEL and SCORE."""
ATTRIBUTION = "attribution"
"""What each pixel (float32 [n, height, width]) or token (float32 [n, length]) adds to SCORE; padding adds 0."""
LABEL = "label"
"""The most probable label, int64 [n]: the one that is explained."""
SCORE = "score"
"""By how much the label's log-odds exceed those of an empty input, float32 [n]: about the sum of the attributions."""

Probability = Annotated[float, Ge(0), Le(1)]
Side = Annotated[int, Ge(1), Le(4096)]


class Part(BaseModel):
    """A piece of the contract. Unknown members are refused: what a gateway does not know it would leave undone."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageInput(Part):
    """How a picture becomes a tensor uint8 [n, height, width, channels].

    `fit` is how a picture of another aspect ratio gets into the frame: `cover` crops the middle, `contain` adds black
    borders, `fill` stretches. `filter` is the resampling filter, by Pillow's names.
    """

    name: str
    dtype: Literal["uint8"] = "uint8"
    height: Side
    width: Side
    channels: Literal[1, 3]
    fit: Literal["cover", "contain", "fill"]
    filter: Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]


class TextInput(Part):
    """How a text becomes a tensor int32 [n, length of the longest in the batch, at most max_length].

    `tokenizer` is the JSON of Hugging Face `tokenizers`, whole. Texts are cut at the end, and padded at the end.
    """

    name: str
    dtype: Literal["int32"] = "int32"
    max_length: PositiveInt
    pad_id: Annotated[int, Ge(0)]
    tokenizer: dict[str, Any]


class Output(Part):
    """The output tensor: float32 [n, labels], calibrated probabilities; each row sums to 1."""

    name: str
    dtype: Literal["float32"] = "float32"


class GoldenExample(Part):
    """A raw input and the probabilities that training got for it, in the order of the labels."""

    image: Base64Bytes | None = None
    text: str | None = None
    probabilities: list[Probability]

    @property
    def raw(self) -> bytes | str:
        """The encoded picture, or the text."""
        raw = self.image if self.image is not None else self.text
        assert raw is not None, "the contract was validated"  # noqa: S101
        return raw

    @model_validator(mode="after")
    def _holds_one_input(self) -> Self:
        if (self.image is None) == (self.text is None):
            raise ValueError("a golden example holds either an image or a text")
        return self


class Golden(Part):
    """The examples on which a version proves itself, and how far a probability may be from training's."""

    tolerance: Annotated[float, Gt(0), Le(0.1)] = 0.02
    examples: Annotated[list[GoldenExample], Len(8)]


class ReliabilityBin(Part):
    """Test examples of like confidence: how many, how sure the model was on average, and how often it was right."""

    examples: Annotated[int, Ge(0)]
    confidence: Probability
    accuracy: Probability


class Calibration(Part):
    """Temperature scaling (Guo et al., 2017): the graph divides the logits by `temperature` before the softmax.

    `reliability` are equal bins of confidence over [0, 1], after the scaling.
    """

    temperature: PositiveFloat
    expected_calibration_error_before: Probability
    expected_calibration_error_after: Probability
    reliability: list[ReliabilityBin] | None = None


class LabelEvaluation(Part):
    """How one label did: of those called so how many were, and of those that were how many were called so."""

    label: str
    examples: int
    precision: Probability
    recall: Probability


class Evaluation(Part):
    """The test set's verdict. `confusion[i][j]`: examples of label i that were called label j."""

    dataset: str
    examples: PositiveInt
    accuracy: Probability
    per_label: list[LabelEvaluation]
    confusion: list[list[int]]


class Reference(Part):
    """What the training data looked like, to see drift by. Histograms are shares over equal bins of [0, 1]."""

    label_frequencies: list[Probability]
    confidence_histogram: list[Probability]
    brightness_histogram: list[Probability] | None = None
    token_unknown_rate: Probability | None = None


class Provenance(Part):
    """Where the version comes from: enough to make it again.

    `history` are the curves of the training, one number for each epoch. `forced` are the reasons for which the
    version would not have been published without `--force`.
    """

    trained_at: AwareDatetime
    commit: str | None = None
    packages: dict[str, str]
    seed: int
    data: str
    data_sha256: str
    training_seconds: PositiveFloat
    machine: str | None = None
    config: dict[str, Any]
    history: dict[str, list[float]] | None = None
    forced: list[str] | None = None


class Contract(Part):
    """Everything that the gateway must know of one version of a model.

    Raises:
        pydantic.ValidationError: it is not a contract of schema 1, or its parts disagree.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    kind: Literal["image", "text"]
    labels: Annotated[list[str], Len(2)]
    input: ImageInput | TextInput
    output: Output
    explain: str | None = None
    golden: Golden
    calibration: Calibration
    evaluation: Evaluation
    reference: Reference
    provenance: Provenance

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("two labels are the same")
        if (self.kind == "image") != isinstance(self.input, ImageInput):
            raise ValueError(f"the input is not that of kind {self.kind!r}")
        for number, example in enumerate(self.golden.examples):
            if (self.kind == "image") != (example.image is not None):
                raise ValueError(f"golden example {number} is not of kind {self.kind!r}")
            if len(example.probabilities) != len(self.labels):
                raise ValueError(f"golden example {number} has {len(example.probabilities)} probabilities")
        return self

    def to_json(self) -> str:
        """The JSON that the contract signature answers."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    def card(self) -> dict[str, Any]:
        """The contract for people: all but the tokenizer's table and the golden inputs, which only machines read."""
        card = self.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"input": {"tokenizer"}, "golden": {"examples"}}
        )
        card["golden"]["examples"] = len(self.golden.examples)
        return card

"""The settings of the two jobs, each one flat and frozen; every field is a flag of `sightread train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

Recipe = Literal["accurate", "seed"]
LearningRate = Annotated[FiniteFloat, Field(gt=0)]


def by_recipe(accurate: Any, seed: Any) -> Callable[[dict[str, Any]], Any]:
    """A default that depends on the recipe."""
    values = {"accurate": accurate, "seed": seed}

    def default(given: dict[str, Any]) -> Any:
        return values[given["recipe"]]

    # the help shows it
    default.__name__ = f"{accurate}, seed: {seed}"
    return default


class Config(BaseSettings):
    """What both jobs share."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_implicit_flags=True,
        use_attribute_docstrings=True,
    )

    recipe: Recipe = "accurate"
    """The network and how it learns: `accurate`, or the small and quick `seed`."""
    data: Path | None = None
    dataset_name: str | None = None
    models: Path = Path("models")
    """Model repository that the new version goes into."""
    name: str
    output: Path | None = None
    """Folder for the report, the checkpoint and TensorBoard's logs; runs/<name> when not given."""
    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: LearningRate
    smoothing: NonNegativeFloat
    patience: PositiveInt | None = None
    """Stop after so many epochs without a better one; all epochs when not given."""
    balance: bool = True
    """Let examples of rare labels weigh more while learning; the probabilities stay those of the data."""
    seed: int = Field(default=1, ge=0, lt=2**32)
    """Chooses the first weights, the order of the examples, and which are held out."""
    precision: Literal["auto", "float32"] = "auto"
    """Compute in bfloat16 while learning, where every GPU is made for it, or always in float32."""
    deterministic: bool = False
    """Use only operations that give the same bits every time; slower."""
    validation: float = Field(default=0.05, gt=0, le=0.5)
    """Share of the training data that is held out to choose the epoch and the temperature by."""
    restart: bool = False
    """Throw the checkpoint of an earlier, unfinished run away; without it the run goes on where it was."""
    margin: NonNegativeFloat = 0.005
    """How much less accurate than the version in service the new one may be: 0.005 is half a percentage point."""
    max_megabytes: PositiveFloat
    max_milliseconds: PositiveFloat
    force: bool = False
    """Publish even if it is worse than the version in service, too large or too slow; its provenance says so."""

    @property
    def results(self) -> Path:
        """The folder for what is not the model."""
        return self.output or Path("runs", self.name)

    def recipe_of_model(self) -> dict[str, Any]:
        """What makes the model what it is: neither places on this machine nor what may be published."""
        return self.model_dump(mode="json", exclude=ELSEWHERE)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags only: an environment variable called NAME or SEED means something else."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


ELSEWHERE = {"data", "models", "output", "restart", "margin", "max_megabytes", "max_milliseconds", "force"}


class CnnConfig(Config):
    """Train the CNN on CIFAR-10, or on a folder of pictures, and put it into the model repository."""

    model_config = SettingsConfigDict(cli_prog_name="sightread train cnn")

    data: Path | None = None
    """A folder with a folder of pictures for each label, or CIFAR-10's own, cifar-10-batches-py; without one CIFAR-10
    is downloaded."""
    dataset_name: str | None = None
    """What the contract calls the data; CIFAR-10, or the folder's name, when not given."""
    name: str = "cnn"
    """What the model is called."""
    epochs: PositiveInt = Field(default_factory=by_recipe(accurate=44, seed=10))
    """Times that every training picture is seen."""
    batch_size: PositiveInt = Field(default_factory=by_recipe(accurate=1000, seed=64))
    """Examples that a step learns from; fewer where an epoch would have hardly a step."""
    learning_rate: LearningRate = Field(default_factory=by_recipe(accurate=0.15, seed=2e-3))
    """Of Muon at its start, from where it falls to zero on a line (accurate), or of Adam after a short rise, from where
    it falls to zero on a cosine (seed)."""
    smoothing: NonNegativeFloat = Field(default_factory=by_recipe(accurate=0.2, seed=0.0), lt=1)
    """Share of the right label's probability that goes to all labels alike: it keeps a network from being too sure."""
    size: int | None = Field(default=None, ge=8, le=512)
    """Pixels of the square that every picture is brought to; from the pictures when not given."""
    flip: bool = Field(default_factory=by_recipe(accurate=True, seed=False))
    """Mirror pictures while learning: not for letters, digits or anything that has a left and a right."""
    mirror: bool = Field(default_factory=by_recipe(accurate=True, seed=False))
    """Answer with the mean over a picture and its mirror image, which costs twice the multiply-adds. Without --flip it
    means nothing."""
    shift: float = Field(default_factory=by_recipe(accurate=0.125, seed=0.0), ge=0, le=0.5)
    """Move pictures by chance while learning, by up to this share of their shorter side."""
    cutout: float = Field(default_factory=by_recipe(accurate=0.375, seed=0.0), ge=0, le=0.75)
    """Hide a square of each picture by chance while learning, its side this share of the shorter one."""
    max_megabytes: PositiveFloat = 10.0
    """Size that the version may have on disk."""
    max_milliseconds: PositiveFloat = 50.0
    """Time that one example may take on one core."""


class LstmConfig(Config):
    """Train the LSTM on IMDB, or on a table of texts and labels, and put it into the model repository."""

    model_config = SettingsConfigDict(cli_prog_name="sightread train lstm")

    data: Path | None = None
    """IMDB's own folder, aclImdb, or a file with the columns text and label, by its ending CSV, JSONL or Parquet;
    without one IMDB is downloaded."""
    dataset_name: str | None = None
    """What the contract calls the data; IMDB, or the file's name, when not given."""
    text_column: str = "text"
    """Column of the file that holds the texts."""
    label_column: str = "label"
    """Column of the file that holds the labels."""
    name: str = "lstm"
    """What the model is called."""
    epochs: PositiveInt = Field(default_factory=by_recipe(accurate=8, seed=4))
    """Times that every training text is seen."""
    batch_size: PositiveInt = 64
    """Examples that a step learns from; fewer where an epoch would have hardly a step."""
    learning_rate: LearningRate = 2e-3
    """Of Adam at its start; it falls to zero on a cosine."""
    smoothing: NonNegativeFloat = Field(default_factory=by_recipe(accurate=0.1, seed=0.0), lt=1)
    """Share of the right label's probability that goes to all labels alike: it keeps a network from being too sure."""
    vocabulary: int = Field(default_factory=by_recipe(accurate=30_000, seed=20_000), ge=3)
    """Words that have an id of their own, the padding and the unknown word counted in."""
    length: PositiveInt = Field(default_factory=by_recipe(accurate=1024, seed=400))
    """Words of a text that are read; the rest is cut off at the end."""
    embedding: PositiveInt = 64
    """Numbers that stand for a word."""
    units: PositiveInt = 64
    """Numbers that the LSTM remembers, in each direction."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the numbers hidden at random while learning, after the embedding and after the LSTM."""
    max_megabytes: PositiveFloat = 50.0
    """Size that the version may have on disk."""
    max_milliseconds: PositiveFloat = 50.0
    """Time that one example may take on one core."""

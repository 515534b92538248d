"""The settings of the two jobs, each one flat and frozen; every field is a flag of `sightread train`."""

from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class Config(BaseSettings):
    """What both jobs share."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        use_attribute_docstrings=True,
    )

    data: Path | None = None
    dataset_name: str | None = None
    models: Path = Path("models")
    """Model repository that the new version goes into."""
    name: str
    output: Path | None = None
    """Folder for history.json, history.png and evaluation.json; runs/<name> when not given."""
    epochs: PositiveInt
    batch_size: PositiveInt = 64
    """Examples that a step learns from."""
    learning_rate: PositiveFloat
    seed: int = Field(default=1, ge=0, lt=2**32)
    """Chooses the first weights, the order of the examples, and which are held out."""
    validation: float = Field(default=0.05, gt=0, le=0.5)
    """Share of the training data that is held out to choose the epoch and the temperature by."""

    @property
    def results(self) -> Path:
        """The folder for what is not the model."""
        return self.output or Path("runs", self.name)

    def recipe(self) -> dict[str, Any]:
        """What makes the model what it is, for its provenance: all but where things lie on this machine."""
        return self.model_dump(mode="json", exclude={"data", "models", "output"})

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


class CnnConfig(Config):
    """Train the CNN on CIFAR-10 and put it into the model repository."""

    model_config = SettingsConfigDict(cli_prog_name="sightread train cnn")

    data: Path | None = None
    """CIFAR-10's own folder, cifar-10-batches-py; without one it is downloaded."""
    dataset_name: str | None = None
    """What the contract calls the data; CIFAR-10 when not given."""
    name: str = "cnn"
    """What the model is called."""
    epochs: PositiveInt = 10
    """Times that every training picture is seen."""
    learning_rate: PositiveFloat = 2e-3
    """Of Adam after a short rise; from there it falls to zero on a cosine."""


class LstmConfig(Config):
    """Train the LSTM on IMDB, or on a CSV file of texts with two labels, and put it into the model repository."""

    model_config = SettingsConfigDict(cli_prog_name="sightread train lstm")

    data: Path | None = None
    """IMDB's own folder, aclImdb, or a CSV file with the header text,label; without one IMDB is downloaded."""
    dataset_name: str | None = None
    """What the contract calls the data; IMDB, or the file's name, when not given."""
    name: str = "lstm"
    """What the model is called."""
    epochs: PositiveInt = 4
    """Times that every training text is seen."""
    learning_rate: PositiveFloat = 2e-3
    """Of Adam at its start; it falls to zero on a cosine."""
    vocabulary: int = Field(default=20_000, ge=3)
    """Words that have an id of their own, the padding and the unknown word counted in."""
    length: PositiveInt = 400
    """Words of a text that are read; the rest is cut off at the end."""
    embedding: PositiveInt = 64
    """Numbers that stand for a word."""
    units: PositiveInt = 64
    """Numbers that the LSTM remembers."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of the numbers hidden at random while learning, after the embedding and after the LSTM."""

"""Which models to serve, from which folders, and which of their versions.

A config file is the one of TensorFlow Serving: a text-proto `tensorflow.serving.ModelServerConfig`. TensorFlow Serving
wants absolute paths, such as `/models/cnn` in its image; so that one file does for both servers, a `base_path` that is
not there stands for the folder of that name beside the file.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

CONFIG_FILE = "models.config"


class ConfigError(Exception):
    """The configuration, or the folder that stands for one, cannot be used; the text says what to do."""


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: what a request calls it.
        folder: holds one folder a version, named by its number.
        keep: which of the versions that are there to serve: the newest so many, exactly these, or all (`None`).
            TensorFlow Serving's default is one; here it is two, because the gateway proves a new version before it
            sends traffic to it, and needs the old one until then, or for good.
        labels: version labels and the versions that they stand for.
    """

    name: str
    folder: Path
    keep: int | frozenset[int] | None = 2
    labels: dict[str, int] = field(default_factory=dict)

    def aspired(self, present: Collection[int]) -> set[int]:
        """The versions to serve, out of those that are present."""
        if isinstance(self.keep, int):
            return set(sorted(present)[-self.keep :])
        return set(present) if self.keep is None else set(self.keep.intersection(present))


@dataclass(frozen=True)
class Configuration:
    """Where the configuration comes from; it is read anew at every poll.

    Attributes:
        models: the model repository: every folder in it is a model, unless there is a config file.
        file: the config file; `None`: `models.config` in the model repository, where there is one.
    """

    models: Path
    file: Path | None = None

    def read(self) -> tuple[ModelConfig, ...]:
        """The models to serve, as they are configured now.

        Raises:
            ConfigError: the file, or without one the model repository, cannot be read or makes no sense.
        """
        file = self.file or self.models / CONFIG_FILE
        try:
            return parse(file.read_text(encoding="utf-8"), file.absolute().parent)
        except (FileNotFoundError, NotADirectoryError) as error:
            if self.file:
                raise ConfigError(f"{file}: there is no such config file; write it, or leave out --config") from error
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise ConfigError(f"{file}: {error}") from error
        try:
            folders = sorted(entry for entry in self.models.absolute().iterdir() if entry.is_dir())
        except OSError as error:
            raise ConfigError(
                f"cannot read the model repository {self.models} ({error.strerror}); "
                "name a folder that holds <model>/<version>/ with --models"
            ) from error
        return tuple(ModelConfig(folder.name, folder) for folder in folders if not folder.name.startswith("."))


def parse(text: str, relative_to: Path) -> tuple[ModelConfig, ...]:
    """Reads a text-proto `ModelServerConfig`.

    Args:
        text: what the file holds.
        relative_to: the folder that a relative `base_path` starts from, and in which one that is not there is sought.

    Raises:
        ValueError: it does not parse, or says what this server cannot do.
    """
    try:
        config = text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        raise ValueError(f"does not parse as a ModelServerConfig: {error}") from error
    if not config.HasField("model_config_list"):
        raise ValueError("names no models: write a model_config_list { … }")
    models = tuple(_model(entry, relative_to) for entry in config.model_config_list.config)
    if len({model.name for model in models}) < len(models):
        raise ValueError("names a model twice")
    return models


def _model(entry: Any, relative_to: Path) -> ModelConfig:
    if not entry.name or not entry.base_path:
        raise ValueError("every config { … } needs a name and a base_path")
    if entry.model_platform not in ("", "tensorflow"):
        raise ValueError(f"model {entry.name}: only model_platform 'tensorflow' is served")
    policy = entry.model_version_policy
    keep: int | frozenset[int] | None
    match policy.WhichOneof("policy_choice"):
        case "latest":
            keep = max(policy.latest.num_versions, 1)
        case "specific":
            keep = frozenset(policy.specific.versions)
        case "all":
            keep = None
        case _:
            keep = ModelConfig.keep
    return ModelConfig(entry.name, _folder(entry.base_path, relative_to), keep, dict(entry.version_labels))


def _folder(base_path: str, relative_to: Path) -> Path:
    """The folder that is meant: the path as it stands, or the one of its name beside the file."""
    named = relative_to / base_path
    beside = relative_to / named.name
    return beside if beside.is_dir() and not named.is_dir() else named

"""The commands that are not typed here: why, and what is looked at instead."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import yaml
from pydantic_settings import BaseSettings, CliApp

from serving.settings import Settings
from tests.documents.pages import PAGES, ROOT
from tests.documents.reader import words
from training.config import CnnConfig, LstmConfig
from training.evaluate_service import EvaluateConfig

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


@dataclass(frozen=True)
class Elsewhere:
    """Some commands.

    Attributes:
        commands: what they look like.
        why: they are not typed.
        instead: raises AssertionError where such a command cannot be right.
    """

    commands: re.Pattern[str]
    why: str
    instead: Callable[[str], None]


def _is_a_verb_of_make(command: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *words(command)[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _names_what_the_dockerfile_has(command: str) -> None:
    said = words(command)
    following = dict(pairwise(said))
    assert f" AS {following['--target']}\n" in DOCKERFILE
    assert f"\nARG {following.get('--build-arg', 'DEVICE=').partition('=')[0]}" in DOCKERFILE
    assert said[-1] == "."


def _names_an_image_that_is_built(command: str) -> None:
    built = {
        word
        for page in PAGES
        for other in page.commands
        if other.text.startswith("docker build ")
        for word in words(other.text)
    }
    assert {word for word in words(command) if ":" in word} <= built


def _names_what_compose_has(command: str) -> None:
    said = words(command)
    following = dict(pairwise(said))
    services = COMPOSE["services"]
    profiles = {profile for service in services.values() for profile in service.get("profiles", [])}
    assert {following.get("--profile", "gpu")} <= profiles
    assert following.get("--scale", "gateway=1").partition("=")[0] in services


def _names_what_is_in_k8s(command: str) -> None:
    """That each folder renders, and holds what is named, is tested in `tests/deployment`."""
    for folder in re.findall(r" -k (\S+)", command):
        assert (ROOT / folder / "kustomization.yaml").is_file(), folder
    for namespace in re.findall(r" -n (\S+)", command):
        assert f"name: {namespace}\n" in (ROOT / "k8s/base/namespace.yaml").read_text()


def _has_flags_that_the_image_gives(command: str) -> None:
    flags = set(re.findall(r"--\w+", command))
    assert flags <= set(re.findall(r"--\w+", DOCKERFILE))


def _has_flags_of(settings: type[BaseSettings]) -> Callable[[str], None]:
    def parsed(command: str) -> None:
        said = words(command)
        first = said.index("evaluate") + 1 if "evaluate" in said else said.index("train") + 2
        CliApp.run(settings, cli_args=said[first:])

    return parsed


def _has_settings(command: str) -> None:
    said = dict(word.split("=", 1) for word in words(command) if word.startswith("SIGHTREAD_"))
    Settings.model_validate({name.removeprefix("SIGHTREAD_").lower(): value for name, value in said.items()})
    assert {name.removeprefix("SIGHTREAD_").lower() for name in said} <= Settings.model_fields.keys()


def _is_a_package(command: str) -> None:
    assert (ROOT / words(command)[-1] / "pyproject.toml").is_file()


def _is_an_assignment(command: str) -> None:
    assert len(words(command)) == 1


ELSEWHERE = [
    Elsewhere(re.compile(pattern), why, instead)
    for pattern, why, instead in [
        (r"make (?!serve\b)", "it tests, measures or builds for minutes", _is_a_verb_of_make),
        (r"docker build ", "it needs a container engine", _names_what_the_dockerfile_has),
        (r"docker push |kind load ", "it needs a registry or a cluster", _names_an_image_that_is_built),
        (r"docker compose ", "it needs a container engine", _names_what_compose_has),
        (r"REGISTRY=", "it is for commands that are not typed either", _is_an_assignment),
        (r"kubectl ", "it needs a cluster", _names_what_is_in_k8s),
        (r"pip install ", "it asks a package index", _is_a_package),
        (r"tensorflow_model_server ", "it is not installed with Python", _has_flags_that_the_image_gives),
        (r"SIGHTREAD_MODEL_SERVER=dns:", "it needs a TensorFlow Serving", _has_settings),
        (r"\S*sightread train cnn\s*(#|$)", "it downloads CIFAR-10 and learns for hours", _has_flags_of(CnnConfig)),
        (r"\S*sightread train lstm\s*(#|$)", "it downloads IMDB", _has_flags_of(LstmConfig)),
        (r"\S*sightread evaluate (image|text)\s*(#|$)", "it downloads a test set", _has_flags_of(EvaluateConfig)),
    ]
]


def elsewhere(command: str) -> Elsewhere | None:
    """Why a command is not typed here, or None for one that is."""
    return next((entry for entry in ELSEWHERE if entry.commands.match(command)), None)

"""`sightread completion`: a script that lets a shell complete the commands, their flags and files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import shtab
from pydantic_settings import BaseSettings, CliSettingsSource

from serving.settings import Settings
from sightread import COMMANDS
from terminal import classify, doctor
from training import models_command
from training.config import CnnConfig, LstmConfig
from training.evaluate_service import EvaluateConfig

USE = {
    "bash": "sightread completion bash > ~/.local/share/bash-completion/completions/sightread",
    "zsh": 'sightread completion zsh > "${fpath[1]}/_sightread"',
    "fish": "sightread completion fish > ~/.config/fish/completions/sightread.fish",
    "tcsh": "sightread completion tcsh > ~/.sightread.tcsh, and source ~/.sightread.tcsh in ~/.tcshrc",
}
"""What to do with the script of a shell."""

EPILOG = "\n".join(
    [
        "Put it where your shell looks for it, and start a new one:",
        *(f"  {shell:5} {line}" for shell, line in USE.items()),
    ]
)


def main(arguments: Sequence[str]) -> int:
    """Print a script; the exit code: 0."""
    shell = parser().parse_args(arguments).shell
    print(shtab.complete(commands(), shell))  # noqa: T201
    if sys.stdout.isatty():  # nobody took the script: say where it goes
        print(f"put it where your shell looks for it: {USE[shell]}", file=sys.stderr)  # noqa: T201
    return 0


def parser(made: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """The flags, in a parser of their own or in one that was made for them."""
    made = made or argparse.ArgumentParser(prog="sightread completion")
    made.description = "Print a script that lets your shell complete sightread's commands, their flags and files."
    made.epilog = EPILOG
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("shell", choices=list(USE), help="your shell")
    return made


def commands() -> argparse.ArgumentParser:
    """Every command's flags in one parser, from where each command itself has them."""
    root = argparse.ArgumentParser(prog="sightread")
    root.add_argument("--version", action="store_true", help="print the version")
    added = root.add_subparsers()
    named = {name: added.add_parser(name, help=command.purpose) for name, command in COMMANDS.items()}
    _add_settings(named["serve"], Settings)
    _add_settings(named["evaluate"], EvaluateConfig)
    jobs = named["train"].add_subparsers()
    _add_settings(jobs.add_parser("cnn", help="on pictures"), CnnConfig)
    _add_settings(jobs.add_parser("lstm", help="on texts"), LstmConfig)
    models_command.parser(named["models"])
    classify.parser(named["classify"])
    _add_settings(doctor.parser(named["doctor"]), Settings)
    parser(named["completion"])
    return root


def _add_settings(made: argparse.ArgumentParser, settings: type[BaseSettings]) -> None:
    """The flags of pydantic-settings, with what can be completed in them."""
    CliSettingsSource[Any](settings, root_parser=made)
    for action in made._actions:  # noqa: SLF001  # argparse has no other list of them
        field = settings.model_fields.get(action.dest.replace("-", "_"))
        if field is None:
            continue
        kinds = get_args(field.annotation) or (field.annotation,)
        if get_origin(field.annotation) is Literal:
            action.choices = kinds
        elif Path in kinds or (field.description or "").startswith("File "):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's way


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

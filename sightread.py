"""The command `sightread`: hands over to `serving`, `training` and `terminal`, so that none has to know the others."""

import importlib
import sys
from importlib import metadata
from typing import NamedTuple


class Command(NamedTuple):
    """A command: the module whose `main` runs it, what it does, and an example of its arguments."""

    module: str
    purpose: str
    example: str


GROUPS = {
    "ask": {
        "classify": Command("terminal.classify", "tell what pictures show and what texts say", "photo.jpg"),
        "evaluate": Command("training.evaluate_service", "tell how many answers to a test set are right", "image"),
    },
    "serve": {
        "serve": Command("serving.__main__", "answer POST /classify-image and /classify-text", "--port 9000"),
        "doctor": Command("terminal.doctor", "check what serving needs, and tell what to do", ""),
        "key": Command("serving.http.api_keys", "make an API key", "alice"),
    },
    "make": {
        "train": Command("training.__main__", "make a model", "cnn --data photos/ --name garden"),
        "models": Command(
            "training.models_command", "list, promote, roll back, prune and measure versions", "promote cnn"
        ),
    },
    "shell": {
        "completion": Command("terminal.completion", "complete these commands in your shell", "bash"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

USAGE = "usage: sightread COMMAND …"
MORE = "sightread COMMAND --help tells a command's flags."


def main() -> int:
    """Run a command; its exit code: 0 done, 1 it failed, 2 it was called wrongly."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name == "--version":
        print(metadata.version("sightread"))  # noqa: T201
        return 0
    if name in COMMANDS:
        return _run(name, arguments)
    if name in {"-h", "--help", "help"}:
        print(usage())  # noqa: T201
        return 0
    print(f"{usage()}\n\nsightread: there is no command {name!r}", file=sys.stderr)  # noqa: T201
    return 2


def usage() -> str:
    """Every command with an example, in groups."""
    lines = [USAGE]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:"]
        for name, command in commands.items():
            lines += [f"  {name:10} {command.purpose}", f"  {'':10} $ sightread {name} {command.example}".rstrip()]
    return "\n".join([*lines, "", MORE])


def _run(name: str, arguments: list[str]) -> int:
    try:
        module = importlib.import_module(COMMANDS[name].module)
    except ModuleNotFoundError as error:
        print(  # noqa: T201
            f"sightread {name}: {error.name} is not installed: make brings it; "
            "or, in the project's folder: pip install '.[client]' ./client",
            file=sys.stderr,
        )
        return 1
    return int(module.main(arguments))


if __name__ == "__main__":
    sys.exit(main())

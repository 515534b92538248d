"""The command `sightread`: hands over to `serving` and `training`, so that neither has to know the other."""

import importlib
import sys
from importlib import metadata

COMMANDS = {
    "serve": ("serving.__main__", "answer POST /classify-image and /classify-text"),
    "key": ("serving.http.api_keys", "make an API key"),
    "train": ("training.__main__", "make a model: sightread train cnn, sightread train lstm"),
    "models": ("training.models_command", "list, promote, roll back, prune and measure versions"),
    "evaluate": (
        "training.evaluate_service",
        "send a test set to a running service and tell how many answers are right",
    ),
}


def main() -> int:
    """Run a command; its exit code: 0 done, 1 it failed, 2 it was called wrongly."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name == "--version":
        print(metadata.version("sightread"))  # noqa: T201
        return 0
    if name in COMMANDS:
        module = importlib.import_module(COMMANDS[name][0])
        return int(module.main(arguments))
    print("usage: sightread COMMAND …\n")  # noqa: T201
    for command, (_, purpose) in COMMANDS.items():
        print(f"  {command:10} {purpose}")  # noqa: T201
    print("\nsightread COMMAND --help tells a command's flags.")  # noqa: T201
    if name in {"-h", "--help", "help"}:
        return 0
    print(f"\nsightread: there is no command {name!r}", file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    sys.exit(main())

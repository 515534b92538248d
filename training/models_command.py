"""`sightread models`: look at the model repository, and say which versions are in service."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from serving.contract import Contract
from training import repository
from training.cost import Cost, measure
from training.problems import RepositoryProblem, TrainingProblem
from training.repository import CANARY, SHADOW, STABLE
from training.terminal import say

DONE, FAILED, WRONG_FLAGS, INTERRUPTED = 0, 1, 2, 130
WIDTH = 140
"""Columns of a table that goes into a file or a pipe."""

COLUMNS = (
    *("version", "accuracy", "calibration error, before → after", "multiply-adds", "MB", "ms, one thread"),
    *("trained in", "on"),
)
"""Of the table."""

EPILOG = """\
The labels stand in models.config in the repository, which TensorFlow Serving and the local model server read again and
again. stable is the version that answers when a request names none; without that label it is the latest one that
proved itself. previous is what was stable before. canary and shadow are for the shares of traffic that the
gateway is told to give them, and for whoever asks; to take one away from a version, put it on another one.
"""


def main(arguments: Sequence[str]) -> int:
    """Run a verb; the exit code: 0 done, 1 it failed, 2 wrong flags, 130 interrupted."""
    try:
        options = parser().parse_args(arguments)
    except SystemExit as asked:  # argparse has printed the help, or what is wrong
        return DONE if not asked.code else WRONG_FLAGS
    try:
        return int(options.verb(options))
    except TrainingProblem as problem:
        _complain(str(problem))
    except OSError as error:
        _complain(f"{error}.")
    except KeyboardInterrupt:
        return INTERRUPTED
    return FAILED


def parser(made: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """The verbs and their flags, in a parser of their own or in one that was made for them."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--models", type=Path, default=Path("models"), help="the model repository (%(default)s)")
    named = argparse.ArgumentParser(add_help=False, parents=[shared])
    named.add_argument("name", metavar="NAME", help="the model, such as cnn")
    written = argparse.ArgumentParser(add_help=False, parents=[named])
    written.add_argument(
        "--base-path",
        type=PurePosixPath,
        default=repository.BASE_PATH,
        help="what TensorFlow Serving calls the repository, for models that models.config does not name yet "
        "(%(default)s, as in its image)",
    )

    made = made or argparse.ArgumentParser(prog="sightread models")
    made.description = "Look at the model repository, and say which versions are in service."
    made.epilog = EPILOG
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    verbs = made.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, does: str, run: Any, parent: argparse.ArgumentParser) -> argparse.ArgumentParser:
        described = f"{does[0].upper()}{does[1:]}."
        added: argparse.ArgumentParser = verbs.add_parser(name, help=does, description=described, parents=[parent])
        added.set_defaults(verb=run)
        return added

    listing = verb("list", "show the versions, their labels and their figures", show, shared)
    listing.add_argument("--json", action="store_true", help="as JSON")
    promoting = verb("promote", "put a label on a version; it moves there without a lost request", promote, written)
    promoting.add_argument("version", metavar="VERSION", type=int, nargs="?", help="its number (the highest)")
    promoting.add_argument("--label", choices=[STABLE, CANARY, SHADOW], default=STABLE, help="(%(default)s)")
    verb("rollback", "move stable back to the version that had the traffic before", rollback, written)
    pruning = verb("prune", "delete versions that are neither labelled nor among the newest", prune, named)
    pruning.add_argument("--keep", type=_count, default=3, help="newest versions that stay (%(default)s)")
    pruning.add_argument("--yes", action="store_true", help="do not ask")
    table = verb("table", "measure every version and print a table in Markdown; it takes a minute", show_table, shared)
    table.add_argument("--data-image", type=Path, help="CIFAR-10's folder: its test pictures are asked anew")
    table.add_argument("--data-text", type=Path, help="IMDB's folder: its test texts are asked anew; takes minutes")
    return made


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one version stays")
    return number


@dataclass(frozen=True)
class Row:
    """One version, as far as its files tell."""

    number: int
    labels: list[str]
    served: bool
    traffic: bool
    megabytes: float
    contract: Contract | None
    problem: str | None

    def as_json(self) -> dict[str, Any]:
        contract = self.contract
        return {
            "version": self.number,
            "labels": self.labels,
            "served": self.served,
            "traffic": self.traffic,
            "megabytes": round(self.megabytes, 3),
            "accuracy": contract and contract.evaluation.accuracy,
            "expected_calibration_error": contract and contract.calibration.expected_calibration_error_after,
            "trained_at": contract and contract.provenance.trained_at.isoformat(),
            "forced": (contract and contract.provenance.forced) or [],
            "problem": self.problem,
        }


def rows(models: Path, name: str) -> list[Row]:
    """A model's versions, newest first.

    Raises:
        RepositoryProblem: `models.config` cannot be read.
    """
    standing = repository.standing(models, name)
    found = []
    for number in reversed(standing.present):
        version = models / name / str(number)
        contract, problem = None, None
        try:
            contract = repository.contract(version)
        except RepositoryProblem as told:
            problem = str(told)
        labels = sorted(label for label, stands_for in standing.labels.items() if stands_for == number)
        megabytes = repository.megabytes(version)
        served, traffic = number in standing.served, number == standing.traffic
        found.append(Row(number, labels, served, traffic, megabytes, contract, problem))
    return found


def show(options: argparse.Namespace) -> int:
    """`list`."""
    names = repository.models(options.models)
    if options.json:
        listed = [
            {
                "name": name,
                "policy": repository.standing(options.models, name).policy,
                "versions": [row.as_json() for row in rows(options.models, name)],
            }
            for name in names
        ]
        say(json.dumps({"models": listed}, indent=2))
        return DONE
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    for name in names:
        found = rows(options.models, name)
        console.print(_listing(name, repository.standing(options.models, name).policy, found))
        for row in found:
            for reason in (row.contract and row.contract.provenance.forced) or []:
                say(f"version {row.number} was forced: {reason}")
            if row.problem:
                say(f"version {row.number}: {row.problem}")
        say()
    if not names:
        say(f"{options.models} holds no versions yet: sightread train makes one.")
    return DONE


def _listing(name: str, policy: str, found: Sequence[Row]) -> Table:
    table = Table(title=f"{name} (policy: {policy})", title_justify="left", title_style="bold", box=None)
    for column in ("version", "labels", "in service", "accuracy", "calibration error", "MB", "trained", "forced"):
        numeric = column in {"version", "accuracy", "calibration error", "MB"}
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in found:
        contract = row.contract
        table.add_row(
            str(row.number),
            ", ".join(row.labels),
            "answers" if row.traffic else "loaded" if row.served else "",
            f"{contract.evaluation.accuracy:.2%}" if contract else "?",
            f"{contract.calibration.expected_calibration_error_after:.3f}" if contract else "?",
            f"{row.megabytes:.2f}",
            f"{contract.provenance.trained_at:%Y-%m-%d %H:%M}" if contract else "?",
            "yes" if contract and contract.provenance.forced else "",
        )
    return table


def promote(options: argparse.Namespace) -> int:
    """`promote`."""
    number = repository.promote(
        options.models, options.name, options.version, label=options.label, base_path=options.base_path
    )
    say(f"{options.label} of {options.name} is version {number}.")
    return DONE


def rollback(options: argparse.Namespace) -> int:
    """`rollback`."""
    before, after = repository.rollback(options.models, options.name, base_path=options.base_path)
    say(f"{STABLE} of {options.name} is version {after} again, it was {before}.")
    if repository.standing(options.models, options.name).labels.get(CANARY) == before:
        say(f"{CANARY} is still version {before}.")
    return DONE


def prune(options: argparse.Namespace) -> int:
    """`prune`."""
    going = repository.prunable(options.models, options.name, keep=options.keep)
    if not going:
        say(f"Nothing to delete: every version of {options.name} is labelled, in service or among the newest.")
        return DONE
    say(f"To be deleted: {', '.join(str(options.models / options.name / str(number)) for number in going)}")
    if not options.yes:
        if not sys.stdin.isatty():
            raise RepositoryProblem("Nobody to ask whether to delete them: --yes does it without.")
        if input("Delete them? [y/N] ").strip().lower() not in {"y", "yes"}:
            say("Nothing was deleted.")
            return FAILED
    gone = repository.prune(options.models, options.name, keep=options.keep)
    say(f"Deleted {len(gone)}.")
    return DONE


@dataclass(frozen=True)
class Figures:
    """How right and how honest a version is on its test set: shares, and expected calibration errors."""

    accuracy: float
    before: float
    after: float


def show_table(options: argparse.Namespace) -> int:
    """`table`."""
    names = repository.models(options.models)
    folders = [
        options.models / name / str(number) for name in names for number in repository.versions(options.models, name)
    ]
    contracts = [repository.contract(folder) for folder in folders]
    asked = {"image": options.data_image, "text": options.data_text}
    figures = [
        _asked(folder, contract, asked[contract.kind]) if asked[contract.kind] else _told(contract)
        for folder, contract in zip(folders, contracts, strict=True)
    ]
    say(markdown(folders, contracts, figures, measure(folders)))
    return DONE


def markdown(
    folders: Sequence[Path], contracts: Sequence[Contract], figures: Sequence[Figures], costs: Sequence[Cost]
) -> str:
    """The table of versions: one line each, in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for folder, contract, right, cost in zip(folders, contracts, figures, costs, strict=True):
        provenance = contract.provenance
        cells = (
            f"{folder.parent.name}/{folder.name}",
            f"{right.accuracy:.2%}",
            f"{right.before:.3f} → {right.after:.3f}",
            f"{cost.multiply_adds / 1e6:.1f} M" if cost.multiply_adds is not None else "–",
            f"{cost.megabytes:.2f}",
            f"{cost.milliseconds:.2f} ({cost.fast:.2f} – {cost.slow:.2f})",
            str(timedelta(seconds=round(provenance.training_seconds))),
            provenance.machine or "–",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(contract: Contract) -> Figures:
    calibration = contract.calibration
    return Figures(
        contract.evaluation.accuracy,
        calibration.expected_calibration_error_before,
        calibration.expected_calibration_error_after,
    )


def _asked(folder: Path, contract: Contract, data: Path) -> Figures:
    """A version's answers to a test set, raw, as its users would get them."""
    # what takes seconds to import, and no other verb needs
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from training.data import cifar10, imdb  # noqa: PLC0415
    from training.evaluation import expected_calibration_error, softmax  # noqa: PLC0415
    from training.export import Session  # noqa: PLC0415
    from training.gate import answers  # noqa: PLC0415

    reader = cifar10 if contract.kind == "image" else imdb
    dataset = reader.read(data, name="the test set", validation=0.05, seed=0)
    if sorted(dataset.labels) != sorted(contract.labels):
        return _told(contract)
    truth = np.array([contract.labels.index(label) for label in dataset.labels])[dataset.test.labels]
    with Session(folder) as session:
        probabilities = answers(session, contract, [dataset.test.raw(position) for position in range(len(truth))])
    # the temperature undone: what the softmax would have been without it
    tiny = np.finfo(np.float32).tiny
    plain = softmax(np.log(np.maximum(probabilities, tiny)), 1 / contract.calibration.temperature)
    return Figures(
        float((probabilities.argmax(axis=1) == truth).mean()),
        expected_calibration_error(plain, truth),
        expected_calibration_error(probabilities, truth),
    )


def _complain(what: str) -> None:
    print(f"sightread models: {what}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

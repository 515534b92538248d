"""What a job says on the terminal besides Keras's own progress."""

import sys
from pathlib import Path

from serving.contract import Contract
from training.repository import megabytes, standing


def say(line: str = "") -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def heading(title: str) -> None:
    """Where in the job we are."""
    say(f"\n{title}\n{'-' * len(title)}")


def summary(contract: Contract, version: Path, results: Path) -> None:
    """How it came out, where it lies, and how to serve it."""
    evaluation, calibration = contract.evaluation, contract.calibration
    heading("Done")
    say(f"accuracy     {evaluation.accuracy:.2%} of {evaluation.examples:,} examples: {evaluation.dataset}")
    say(
        f"calibration  error {calibration.expected_calibration_error_before:.3f}, at temperature "
        f"{calibration.temperature:.2f} {calibration.expected_calibration_error_after:.3f}"
    )
    say(f"golden       all {len(contract.golden.examples)} examples came out right from the written copy")
    say(f"version      {version} ({megabytes(version):.1f} MB)")
    say(f"report       {results / 'report.html'}, its pictures and numbers beside it")
    models = version.parent.parent
    flags = where = f" --models {models}" if models != Path("models") else ""
    default = {"image": "cnn", "text": "lstm"}[contract.kind]
    if version.parent.name != default:
        flags += f" --{contract.kind}-model {version.parent.name}"
    say(f"serve it     sightread serve{flags}")
    if standing(models, version.parent.name).traffic != int(version.name):
        say(f"promote it   sightread models promote {version.parent.name}{where}")

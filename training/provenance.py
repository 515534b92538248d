"""Where a version comes from: enough to make it again."""

import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from serving.contract import Provenance
from training.config import Config
from training.data import Dataset

PACKAGES = ("keras", "numpy", "pillow", "tensorflow", "tokenizers")
ROOT = Path(__file__).resolve().parent.parent
CODE = ("training", "serving")


def provenance(config: Config, dataset: Dataset, *, seconds: float) -> Provenance:
    """The contract's part, as of now.

    Args:
        config: of the job.
        dataset: what it learned from.
        seconds: that the fit took.
    """
    return Provenance(
        trained_at=datetime.now(UTC).replace(microsecond=0),
        commit=commit(ROOT),
        packages={name: version(name) for name in PACKAGES},
        seed=config.seed,
        data=dataset.name,
        data_sha256=dataset.sha256,
        training_seconds=seconds,
        config=config.recipe(),
    )


def commit(root: Path) -> str | None:
    """The git commit checked out at `root`, with `+changes` where the code differs from it; None outside git."""
    head = _git(root, "rev-parse", "--verify", "HEAD")
    # a package installed inside somebody else's checkout is not of that commit
    if not head or _git(root, "ls-files", "--", *CODE) == "":
        return None
    return f"{head}+changes" if _git(root, "status", "--porcelain", "--", *CODE) else head


def _git(root: Path, *arguments: str) -> str | None:
    """What git says, None where it fails or is not installed."""
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

"""Where a version comes from: enough to make it again."""

import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import tensorflow as tf

from serving.contract import Provenance
from serving.decoding import own_processors
from training.config import Config
from training.data import Dataset

PACKAGES = ("keras", "numpy", "pillow", "tensorflow", "tokenizers")
ROOT = Path(__file__).resolve().parent.parent
CODE = ("training", "serving")
CPU_INFO = Path("/proc/cpuinfo")
DIGITS = 6
"""After the point, in the history: what a float32 knows."""


def provenance(
    config: Config, dataset: Dataset, *, seconds: float, history: Mapping[str, Sequence[float]] | None = None
) -> Provenance:
    """The contract's part, as of now.

    Args:
        config: of the job.
        dataset: what it learned from.
        seconds: that the fit took.
        history: one number for each epoch, by Keras's names.
    """
    return Provenance(
        trained_at=datetime.now(UTC).replace(microsecond=0),
        commit=commit(ROOT),
        packages={name: version(name) for name in PACKAGES},
        seed=config.seed,
        data=dataset.name,
        data_sha256=dataset.sha256,
        training_seconds=seconds,
        machine=machine(),
        config=config.recipe_of_model(),
        history=history and {name: [round(float(value), DIGITS) for value in curve] for name, curve in history.items()},
    )


def machine() -> str:
    """What this process may compute on, such as `AMD EPYC 9554, 2 cores, 24 GiB, NVIDIA H200`."""
    # a container may have fewer than the machine
    cores = own_processors()
    parts = [processor(CPU_INFO) or platform.machine(), f"{cores} core{'s' if cores > 1 else ''}"]
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):  # not on Windows
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    names = Counter(_gpu_name(gpu) for gpu in tf.config.list_physical_devices("GPU"))
    return ", ".join(parts + [f"{count} × {name}" if count > 1 else name for name, count in names.items()])


def processor(cpu_info: Path) -> str | None:
    """The processor's name as Linux tells it; None on other systems, and on processors that have none."""
    try:
        lines = cpu_info.read_text(errors="replace").splitlines()
    except OSError:
        return None
    told = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return " ".join(re.sub(r"\((R|TM)\)", " ", next(told, "")).split()) or None


def _gpu_name(gpu: tf.config.PhysicalDevice) -> str:
    name: str = tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    return name


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

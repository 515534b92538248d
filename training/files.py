"""Files that are whole or not there."""

import os
from pathlib import Path

from training.problems import ResultsProblem


def check_folder(folder: Path) -> None:
    """Whether results could be written there, asked without writing: best before hours of training.

    Raises:
        ResultsProblem: they could not.
    """
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ResultsProblem(f"{nearest} is no folder that can be written: choose another one with --output.")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it; makes its folder.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.writing")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)

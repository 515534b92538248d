"""IMDB reviews (Maas et al., 2011): 50,000 texts, negative or positive, half of them for the test."""

import hashlib
from pathlib import Path

import keras
import numpy as np

from training.data import Dataset, Examples, cut
from training.problems import DataProblem

LABELS = ["negative", "positive"]
FOLDERS = {"neg": 0, "pos": 1}
FOLDER = "aclImdb"
PARTS = ("train", "test")
ARCHIVE = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
"""The authors name no other checksum in use."""


def read(folder: Path | None, *, name: str, validation: float, seed: int) -> Dataset:
    """The data set, from a folder or downloaded.

    Args:
        folder: the official layout (`aclImdb`, or the folder that holds it). None: download it.
        name: what it is called.
        validation: share of the training texts to hold out.
        seed: which those are.

    Raises:
        DataProblem: it is not there, or not what it should be.
    """
    folder = _download() if folder is None else folder
    home = _home(folder)
    digest = hashlib.sha256()
    train, test = (_read_part(home / part, digest) for part in PARTS)
    rest, held_out = cut(train, validation, seed=seed)
    return Dataset(
        name=name, labels=LABELS, train=rest, validation=held_out, test=test, seen=False, sha256=digest.hexdigest()
    )


def is_here(folder: Path) -> bool:
    """Whether a folder is IMDB's, or the one that holds it, complete or not."""
    return any((_home(folder) / part / name).is_dir() for part in PARTS for name in FOLDERS)


def _home(folder: Path) -> Path:
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder


def _download() -> Path:
    try:
        return Path(keras.utils.get_file("aclImdb_v1.tar.gz", ARCHIVE, file_hash=ARCHIVE_MD5, extract=True))
    except Exception as error:  # Keras raises bare Exception when the host cannot be reached
        raise DataProblem(
            f"IMDB cannot be downloaded ({error}): check the network, or give a local copy with --data."
        ) from error


def _read_part(folder: Path, digest: "hashlib._Hash") -> Examples:
    texts: list[str] = []
    labels: list[int] = []
    for name, label in FOLDERS.items():
        # sorted: the order of a folder's files is the file system's
        paths = sorted((folder / name).glob("*.txt"))
        if not paths:
            raise DataProblem(
                f"{folder / name} holds no *.txt: give the unpacked {FOLDER}, or a CSV, JSONL or Parquet file, "
                "with --data, or leave --data out to download it."
            )
        for path in paths:
            texts.append(_read_text(path))
            labels.append(label)
            digest.update(f"{label}\0{texts[-1]}\0".encode())
    return Examples(np.array(texts, dtype=object), np.array(labels, dtype=np.int64))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataProblem(f"{path} cannot be read ({error}): fetch the data set anew.") from error

"""IMDB reviews (Maas et al., 2011): 50,000 texts, negative or positive, half of them for the test."""

import hashlib
from pathlib import Path

import numpy as np

from training.data import Dataset, Examples
from training.problems import DataProblem

LABELS = ["negative", "positive"]
RUN = 50
"""Neighbouring reviews that are held out together: a film has at most 30 of a label."""
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
    rest, held_out = cut_films(train, validation, seed=seed)
    return Dataset(
        name=name, labels=LABELS, train=rest, validation=held_out, test=test, seen=False, sha256=digest.hexdigest()
    )


def is_here(folder: Path) -> bool:
    """Whether a folder is IMDB's, or the one that holds it, complete or not."""
    return any((_home(folder) / part / name).is_dir() for part in PARTS for name in FOLDERS)


def _home(folder: Path) -> Path:
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder


def cut_films(examples: Examples, share: float, *, seed: int) -> tuple[Examples, Examples]:
    """Hold out runs of neighbouring reviews of each label, chosen by chance.

    Reviews of one film are neighbours, and the authors' test set has other films than the training set. Single held-out
    reviews would flatter: a film's names give away what others wrote of it (seen: 90 % right, 88 % in the test).

    Args:
        examples: of each label in the order of their numbers.
        share: of each label's examples.
        seed: chooses the runs.

    Returns:
        what remains, and what was held out (at least one example of each label).
    """
    chance = np.random.default_rng(seed)
    held = np.zeros(len(examples), dtype=np.bool_)
    for label in np.unique(examples.labels):
        positions = np.flatnonzero(examples.labels == label)
        runs = [positions[start : start + RUN] for start in range(0, len(positions), RUN)]
        by_chance = np.concatenate([runs[number] for number in chance.permutation(len(runs))])
        held[by_chance[: max(1, round(share * len(positions)))]] = True
    return examples.take(~held), examples.take(held)


def _download() -> Path:
    import keras  # noqa: PLC0415  # takes seconds, for nothing where the data are here

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
        found = {path: _read_text(path) for path in paths}
        for text in found.values():
            digest.update(f"{label}\0{text}\0".encode())
        texts += [found[path] for path in sorted(paths, key=_number)]
        labels += [label] * len(paths)
    return Examples(np.array(texts, dtype=object), np.array(labels, dtype=np.int64))


def _number(path: Path) -> int:
    """Of a review, which stands before its rating: 127_10.txt."""
    number = path.name.partition("_")[0]
    return int(number) if number.isdecimal() else 0


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataProblem(f"{path} cannot be read ({error}): fetch the data set anew.") from error

"""CIFAR-10 (Krizhevsky, 2009): 60,000 pictures of 32 × 32 pixels, ten labels, 10,000 of them for the test."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data import Dataset, Examples, by_chance, cut
from training.problems import DataProblem

LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
TEST = "test_batch"
FOLDER = "cifar-10-batches-py"
SIDE = 32

ADMITTED = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in ((f"{package}.multiarray", "_reconstruct"), (f"{package}.numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
"""What a pickled array is made with, by old and new NumPy and pickle protocols."""


def read(folder: Path | None, *, name: str, validation: float, seed: int) -> Dataset:
    """The data set, from a folder or downloaded.

    Args:
        folder: the official layout (`cifar-10-batches-py`, or the folder that holds it). None: download it.
        name: what it is called.
        validation: share of the training pictures to hold out.
        seed: which those are.

    Raises:
        DataProblem: it is not there, or not what it should be.
    """
    train, test = _download() if folder is None else _read_batches(folder)
    rest, held_out = cut(train, validation, order=by_chance(seed))
    return Dataset(
        name=name, labels=LABELS, train=rest, validation=held_out, test=test, seen=False, sha256=_checksum(train, test)
    )


def is_here(folder: Path) -> bool:
    """Whether a folder is CIFAR-10's, or the one that holds it, complete or not."""
    return any((_home(folder) / batch).is_file() for batch in (*TRAIN, TEST))


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles plain values and NumPy arrays. A pickle that names anything else could run code, and is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The few constructors that arrays need.

        Raises:
            pickle.UnpicklingError: the pickle asks for something else.
        """
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        # the module's old name warns in new NumPy
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _download() -> tuple[Examples, Examples]:
    import keras  # noqa: PLC0415  # takes seconds, for nothing where the data are here

    try:
        (train, train_labels), (test, test_labels) = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises bare Exception when the host cannot be reached
        raise DataProblem(
            f"CIFAR-10 cannot be downloaded ({error}): check the network, or give a local copy with --data."
        ) from error
    return _examples(train, train_labels.ravel()), _examples(test, test_labels.ravel())


def _read_batches(folder: Path) -> tuple[Examples, Examples]:
    home = _home(folder)
    missing = [batch for batch in (*TRAIN, TEST) if not (home / batch).is_file()]
    if missing:
        raise DataProblem(
            f"{folder} is not CIFAR-10's folder (no {missing[0]}): give the unpacked {FOLDER} with --data, "
            "or leave --data out to download it."
        )
    batches = [_read_batch(home / batch) for batch in TRAIN]
    train = _examples(np.concatenate([pixels for pixels, _ in batches]), np.concatenate([ids for _, ids in batches]))
    return train, _examples(*_read_batch(home / TEST))


def _home(folder: Path) -> Path:
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder


def _read_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One file → pixels uint8 [n, 32, 32, 3], labels int64 [n]."""
    try:
        with path.open("rb") as file:
            batch = ArrayUnpickler(file, encoding="bytes").load()
        pixels, labels = batch[b"data"], np.asarray(batch[b"labels"], dtype=np.int64)
        rows = pixels.reshape(len(labels), 3, SIDE, SIDE)
    except Exception as error:  # a broken pickle raises nearly anything
        raise DataProblem(f"{path} is not a batch of CIFAR-10 ({error}): fetch it anew.") from error
    if pixels.dtype != np.uint8 or not len(labels) or labels.min() < 0 or labels.max() >= len(LABELS):
        raise DataProblem(f"{path} is not a batch of CIFAR-10 (other values than pixels and labels): fetch it anew.")
    return rows.transpose(0, 2, 3, 1), labels


def _examples(pixels: NDArray[np.uint8], labels: NDArray[Any]) -> Examples:
    return Examples(np.ascontiguousarray(pixels), labels.astype(np.int64))


def _checksum(*parts: Examples) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.inputs.tobytes())
        digest.update(part.labels.astype(np.uint8).tobytes())
    return digest.hexdigest()

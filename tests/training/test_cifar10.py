import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data import cifar10
from training.problems import DataProblem


def test_official_batches_become_upright_pictures_and_labels(cifar_folder: Path) -> None:
    data = cifar10.read(cifar_folder, name="tiny", validation=0.1, seed=0)
    assert data.test.inputs.shape == (40, 32, 32, 3)
    assert data.test.inputs.dtype == np.uint8
    raw = pickle.loads((cifar_folder / "test_batch").read_bytes(), encoding="bytes")  # noqa: S301 - our own
    # a row is all of red, then green, then blue, each line by line
    assert data.test.inputs[7, 2, 5].tolist() == [raw[b"data"][7][c * 1024 + 2 * 32 + 5] for c in range(3)]
    assert data.test.labels.tolist() == raw[b"labels"]


def test_the_folder_that_holds_the_layout_is_taken_too(cifar_folder: Path) -> None:
    inner = cifar10.read(cifar_folder, name="tiny", validation=0.1, seed=0)
    outer = cifar10.read(cifar_folder.parent, name="tiny", validation=0.1, seed=0)
    assert inner.sha256 == outer.sha256


def test_its_folder_is_told_from_others_even_when_a_batch_is_missing(cifar_folder: Path, tmp_path: Path) -> None:
    assert cifar10.is_here(cifar_folder)
    assert cifar10.is_here(cifar_folder.parent)
    shutil.copytree(cifar_folder, tmp_path / "copy")
    (tmp_path / "copy" / "data_batch_1").unlink()
    assert cifar10.is_here(tmp_path / "copy")
    assert not cifar10.is_here(tmp_path)


def test_validation_holds_out_a_share_of_every_label_and_nothing_is_lost(cifar_folder: Path) -> None:
    data = cifar10.read(cifar_folder, name="tiny", validation=0.1, seed=0)
    assert np.bincount(data.validation.labels).tolist() == [2] * 10
    assert len(data.train) + len(data.validation) == 200


def test_the_seed_chooses_what_is_held_out(cifar_folder: Path) -> None:
    first, again, other = (cifar10.read(cifar_folder, name="tiny", validation=0.1, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.validation.inputs, again.validation.inputs)
    assert not np.array_equal(first.validation.inputs, other.validation.inputs)


def test_one_changed_pixel_changes_the_checksum(cifar_folder: Path, tmp_path: Path) -> None:
    before = cifar10.read(cifar_folder, name="tiny", validation=0.1, seed=0).sha256
    copy = tmp_path / "copy"
    shutil.copytree(cifar_folder, copy)
    batch = pickle.loads((copy / "test_batch").read_bytes(), encoding="bytes")  # noqa: S301 - our own
    batch[b"data"][0, 0] ^= 1
    (copy / "test_batch").write_bytes(pickle.dumps(batch))
    assert cifar10.read(copy, name="tiny", validation=0.1, seed=0).sha256 != before


def test_a_missing_batch_is_named(cifar_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(cifar_folder, copy)
    (copy / "data_batch_3").unlink()
    with pytest.raises(DataProblem, match="no data_batch_3"):
        cifar10.read(copy, name="tiny", validation=0.1, seed=0)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_batch_that_would_run_code_is_refused_and_does_not_run(cifar_folder: Path, tmp_path: Path) -> None:
    copy, target = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(cifar_folder, copy)
    (copy / "data_batch_1").write_bytes(pickle.dumps({b"data": Bomb(target), b"labels": [0]}))
    with pytest.raises(DataProblem, match=r"mkdir, which no array needs"):
        cifar10.read(copy, name="tiny", validation=0.1, seed=0)
    assert not target.exists()


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2]},
        {b"data": np.zeros((3, 3072), np.float32), b"labels": [0, 1, 2]},
        {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 10]},
        {b"data": np.zeros((0, 3072), np.uint8), b"labels": []},
        {b"labels": [0]},
        [1, 2],
    ],
    ids=["more rows than labels", "floats", "an eleventh label", "nothing", "no pixels", "a list"],
)
def test_a_pickle_that_is_no_batch_is_refused_by_name(batch: Any, cifar_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(cifar_folder, copy)
    (copy / "data_batch_2").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataProblem, match="data_batch_2 is not a batch of CIFAR-10"):
        cifar10.read(copy, name="tiny", validation=0.1, seed=0)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_pickle_protocol_are_admitted(protocol: int, tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    (tmp_path / "array").write_bytes(pickle.dumps(array, protocol=protocol))
    with (tmp_path / "array").open("rb") as file:
        assert np.array_equal(cifar10.ArrayUnpickler(file, encoding="bytes").load(), array)

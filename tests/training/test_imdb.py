from pathlib import Path

import numpy as np
import pytest

from training.data import Examples, imdb
from training.problems import DataProblem


def test_the_official_layout_becomes_texts_and_labels(imdb_folder: Path) -> None:
    data = imdb.read(imdb_folder, name="IMDB", validation=0.1, seed=0)
    assert data.labels == ["negative", "positive"]
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 40)
    assert all(("good" in text) == (label == 1) for text, label in zip(data.test.inputs, data.test.labels, strict=True))


def test_the_folder_that_holds_the_layout_is_taken_too(imdb_folder: Path) -> None:
    inner = imdb.read(imdb_folder, name="IMDB", validation=0.1, seed=0)
    assert imdb.read(imdb_folder.parent, name="IMDB", validation=0.1, seed=0).sha256 == inner.sha256


def test_its_folder_is_told_from_others_even_when_a_part_is_missing(imdb_folder: Path, tmp_path: Path) -> None:
    assert imdb.is_here(imdb_folder)
    assert imdb.is_here(tmp_path)
    (imdb_folder / "train").rename(tmp_path / "elsewhere")
    assert imdb.is_here(imdb_folder)
    assert not imdb.is_here(tmp_path / "elsewhere")


def test_reviews_of_one_film_are_held_out_together() -> None:
    # 40 films of 25 reviews each, neighbours as their numbers are
    films = np.repeat(np.arange(40), 25)
    examples = Examples(np.concatenate([films, films]), np.repeat([0, 1], 1000))
    train, held_out = imdb.cut_films(examples, 0.1, seed=3)
    for label in (0, 1):
        kept, held = (set(part.inputs[part.labels == label]) for part in (train, held_out))
        assert kept.isdisjoint(held)
        assert (held_out.labels == label).sum() == 100
    assert sorted([*train.inputs, *held_out.inputs]) == sorted(examples.inputs)
    again, other = (imdb.cut_films(examples, 0.1, seed=seed)[1].inputs.tolist() for seed in (3, 4))
    assert again == held_out.inputs.tolist() != other


def test_one_changed_letter_changes_the_checksum(imdb_folder: Path) -> None:
    before = imdb.read(imdb_folder, name="IMDB", validation=0.1, seed=0).sha256
    (imdb_folder / "test" / "pos" / "0_5.txt").write_text("A food film", encoding="utf-8")
    assert imdb.read(imdb_folder, name="IMDB", validation=0.1, seed=0).sha256 != before


def test_a_folder_that_is_something_else_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DataProblem, match=r"holds no \*\.txt: give the unpacked aclImdb, or a CSV, JSONL or Parquet file, with --data"
    ):
        imdb.read(tmp_path, name="IMDB", validation=0.1, seed=0)


def test_a_text_in_another_encoding_is_named(imdb_folder: Path) -> None:
    (imdb_folder / "train" / "neg" / "0_5.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataProblem, match=r"0_5\.txt cannot be read"):
        imdb.read(imdb_folder, name="IMDB", validation=0.1, seed=0)

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from serving.contract import ImageInput
from serving.preprocessing import ImagePreprocessor
from tests.training.made_data import SHAPES, write_shapes
from training.data import Dataset, pictures
from training.data.left_out import Bad
from training.problems import DataProblem


def read(folder: Path, **options: Any) -> tuple[Dataset, list[Bad]]:
    given: dict[str, Any] = {"name": "mine", "height": 8, "width": 8, "validation": 0.1, "seed": 0}
    return pictures.read(folder, **given | options)


def write(path: Path, number: int = 0, size: tuple[int, int] = (8, 8)) -> Path:
    """A picture of noise, another one for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def write_label(folder: Path, count: int, start: int) -> None:
    for number in range(start, start + count):
        write(folder / f"{number}.png", number)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty pictures of each of two labels, no two alike."""
    write_label(tmp_path / "data" / "cat", 30, 0)
    write_label(tmp_path / "data" / "dog", 30, 100)
    return tmp_path / "data"


def reasons(bad: list[Bad]) -> dict[str, str]:
    return {one.where: one.reason for one in bad}


def test_pictures_of_many_sizes_and_formats_become_three_parts_of_every_label(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes", 20, seed=0)
    data, bad = read(tmp_path / "shapes", height=None, width=None)
    assert data.labels == sorted(SHAPES)
    assert bad == []
    assert [np.bincount(part.labels).tolist() for part in (data.train, data.validation, data.test)] == [
        [13] * 4,
        [3] * 4,
        [4] * 4,
    ]
    assert not data.seen
    assert data.train.inputs.dtype == np.uint8
    assert data.train.inputs.shape[1:] == (56, 56, 3)


def test_a_picture_is_what_the_gateway_would_make_of_it(folder: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photo = folder / "cat" / "photo.jpg"
    Image.effect_mandelbrot((60, 40), (-2, -1, 1, 1), 50).convert("RGB").save(photo, exif=exif)
    data, _ = read(folder, height=8, width=12)
    spec = ImageInput(name="image", height=8, width=12, channels=3, fit="cover", filter="bicubic")
    wanted = ImagePreprocessor(spec).prepare(photo.read_bytes())
    everything = np.concatenate([part.inputs for part in (data.train, data.validation, data.test)])
    assert (everything == wanted).all(axis=(1, 2, 3)).sum() == 1


def test_every_picture_keeps_its_file_and_its_part_whatever_the_size(folder: Path) -> None:
    small, large = read(folder)[0], read(folder, height=16, width=16)[0]
    for part, same in ((small.train, large.train), (small.validation, large.validation), (small.test, large.test)):
        assert part.files is not None
        assert same.files is not None
        assert part.files.tolist() == same.files.tolist()
        for position, pixels in enumerate(part.inputs):
            assert np.array_equal(np.asarray(Image.open(part.raw(position))), pixels)


def test_an_example_has_the_label_of_its_folder(folder: Path) -> None:
    data, _ = read(folder)
    for part in (data.train, data.validation, data.test):
        for pixels, label in zip(part.inputs, part.labels, strict=True):
            first = 100 * label
            noises = [np.random.default_rng(first + n).integers(0, 256, (8, 8, 3), np.uint8) for n in range(30)]
            assert any(np.array_equal(pixels, noise) for noise in noises)


def test_parts_that_are_there_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(folder, parts / "train")
    for part, start in (("Test", 200), ("val", 300)):
        write_label(parts / part / "cat", 4, start)
        write_label(parts / part / "dog", 3, start + 10)
    (parts / "README.txt").write_text("mine")
    data, bad = read(parts)
    assert (len(data.train), len(data.validation), len(data.test)) == (60, 7, 7)
    assert reasons(bad) == {"README.txt": "it is in none of train, validation and test"}


def test_a_part_that_is_missing_is_cut_from_the_training(folder: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(folder, parts / "train")
    write_label(parts / "val" / "cat", 4, 200)
    write_label(parts / "val" / "dog", 4, 300)
    data, _ = read(parts)
    assert (len(data.train), len(data.validation), len(data.test)) == (48, 8, 12)


@pytest.mark.parametrize(("train", "validation", "test"), [("Training", "dev", "Testing"), ("train", "Eval", "TEST")])
def test_parts_are_known_by_other_names_too(
    train: str, validation: str, test: str, folder: Path, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(folder, parts / train)
    for part, start in ((validation, 200), (test, 400)):
        write_label(parts / part / "cat", 4, start)
        write_label(parts / part / "dog", 5, start + 100)
    data, bad = read(parts)
    assert data.labels == ["cat", "dog"]
    assert (len(data.train), len(data.validation), len(data.test)) == (60, 9, 9)
    assert not bad


def test_parts_of_unknown_names_are_not_taken_for_labels(folder: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    for part in ("first_half", "second_half"):
        shutil.copytree(folder, parts / part)
    with pytest.raises(DataProblem, match=r"'first_half' and 'second_half', which look .* folders cat, dog.* call"):
        read(parts)


def test_folders_in_labels_folders_that_hold_pictures_too_are_no_labels(folder: Path) -> None:
    for label, start in (("cat", 200), ("dog", 300)):
        write_label(folder / label / "day", 5, start)
        write_label(folder / label / "night", 5, start + 50)
    assert read(folder)[0].labels == ["cat", "dog"]


def test_a_folder_of_one_name_in_every_labels_folder_is_no_label(folder: Path) -> None:
    for label in ("cat", "dog"):
        (folder / label).rename(folder / "images")
        (folder / label).mkdir()
        (folder / "images").rename(folder / label / "images")
    assert read(folder)[0].labels == ["cat", "dog"]


def test_trains_beside_buses_are_a_label(folder: Path) -> None:
    (folder / "cat").rename(folder / "train")
    assert read(folder)[0].labels == ["dog", "train"]


def test_pictures_in_folders_of_a_labels_folder_count(folder: Path) -> None:
    write(folder / "cat" / "from" / "the" / "garden" / "1.png", 50)
    data, _ = read(folder)
    assert len(data.train) + len(data.validation) + len(data.test) == 61


def test_what_is_no_picture_is_listed_with_the_gateways_reason_and_nothing_else_is_lost(folder: Path) -> None:
    cat = folder / "cat"
    (cat / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0 thumbnails")
    (cat / "drawing.svg").write_text("<svg/>")
    (cat / "empty.png").touch()
    whole = write(cat / "whole.png", 60, (64, 64)).read_bytes()
    (cat / "truncated.png").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (10_000, 10_000)).save(cat / "giant.png")
    (cat / "gone.png").symlink_to("nowhere")
    (cat / "round.png").symlink_to("round.png")
    os.mkfifo(cat / "pipe.png")
    with (cat / "heavy.png").open("wb") as file:
        file.truncate(pictures.MAX_BYTES + 1)
    (folder / "notes.txt").write_text("mine")
    (folder / "bird").mkdir()
    (cat / ".DS_Store").write_text("hidden")
    write(folder / ".cache" / "1.png")
    (folder / "__MACOSX").mkdir()
    data, bad = read(folder)
    assert len(data.train) + len(data.validation) + len(data.test) == 61
    said = reasons(bad)
    assert len(said) == len(bad)
    assert said == {
        "bird": "the folder is empty",
        "cat/Thumbs.db": "These 15 bytes are not a picture, or it is damaged at its start. "
        "Send JPEG, PNG, WebP, GIF, BMP or TIFF.",
        "cat/drawing.svg": "SVG is not taken. Send JPEG, PNG, WebP, GIF, BMP or TIFF.",
        "cat/empty.png": "The picture is empty (0 bytes).",
        "cat/giant.png": "The picture has 10000 × 10000 pixels; at most 50,000,000 are taken. Send it smaller.",
        "cat/gone.png": "it cannot be read (No such file or directory)",
        "cat/heavy.png": "The file has 200,000,001 bytes; at most 200,000,000 are read.",
        "cat/pipe.png": "It is no file, but a device, a pipe or a socket.",
        "cat/round.png": "it cannot be read (Too many levels of symbolic links)",
        "cat/truncated.png": said["cat/truncated.png"],
        "notes.txt": "it lies in no label's folder",
    }
    assert "The picture cannot be decoded: " in said["cat/truncated.png"]


def test_links_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "1.png", 70)
    (folder / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    (folder / "dog" / "up").symlink_to(folder)
    data, bad = read(folder)
    assert len(data.train) + len(data.validation) + len(data.test) == 61
    circle = "it is a link to a folder that it lies in"
    assert reasons(bad) == {"cat/more/back": circle, "dog/up": circle}


def test_a_copy_of_a_picture_is_left_out_whatever_its_format(folder: Path) -> None:
    Image.open(folder / "cat" / "3.png").save(folder / "cat" / "again.bmp")
    data, bad = read(folder)
    assert len(data.train) + len(data.validation) + len(data.test) == 60
    assert bad == [Bad("cat/again.bmp", "a copy of 'cat/3.png'")]


def test_a_picture_under_two_labels_is_left_out_of_both(folder: Path) -> None:
    shutil.copy(folder / "cat" / "3.png", folder / "dog")
    data, bad = read(folder)
    assert len(data.train) + len(data.validation) + len(data.test) == 59
    assert bad == [
        Bad("cat/3.png", "the same picture has the label 'dog' too ('dog/3.png')"),
        Bad("dog/3.png", "the same picture has the label 'cat' too ('cat/3.png')"),
    ]


def test_a_test_picture_that_is_in_the_training_too_stays_in_the_test(folder: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(folder, parts / "train")
    for label in ("cat", "dog"):
        write_label(parts / "test" / label, 4, 200 if label == "cat" else 300)
    shutil.copy(folder / "cat" / "3.png", parts / "test" / "cat" / "seen.png")
    data, bad = read(parts)
    assert len(data.test) == 9
    assert bad == [Bad("train/cat/3.png", "a copy of 'test/cat/seen.png'")]


@pytest.mark.parametrize(("one", "other"), [("Cat", "cat"), ("cat", "cat "), ("caf\u00e9", "cafe\u0301")])
def test_labels_that_read_alike_are_refused_and_both_are_named(one: str, other: str, tmp_path: Path) -> None:
    for start, label in enumerate((one, other, "dog")):
        write_label(tmp_path / label, 2, 10 * start)
    with pytest.raises(DataProblem, match="give both one name") as caught:
        read(tmp_path)
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)


def test_labels_that_read_alike_are_found_across_parts(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "parts" / "train")
    write_label(tmp_path / "parts" / "test" / "CAT", 5, 200)
    with pytest.raises(DataProblem, match="'CAT' and 'cat'"):
        read(tmp_path / "parts")


def test_one_label_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "dog")
    with pytest.raises(DataProblem, match=r"has 1 labels \('cat'\): give it two or more"):
        read(folder)


def test_a_label_with_too_few_pictures_is_named_with_their_number(folder: Path) -> None:
    write_label(folder / "yak", 2, 200)
    with pytest.raises(DataProblem, match="too few examples of a label: 'yak' has 2, where 'cat' has 30"):
        read(folder)


def test_a_label_whose_pictures_are_all_bad_is_too_rare_and_not_gone(folder: Path) -> None:
    (folder / "yak").mkdir()
    (folder / "yak" / "1.png").write_text("no picture")
    with pytest.raises(DataProblem, match="'yak' has 0"):
        read(folder)


def test_a_label_that_the_test_lacks_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "parts" / "train")
    write_label(tmp_path / "parts" / "test" / "cat", 5, 200)
    with pytest.raises(DataProblem, match="too few test examples of a label: 'dog' has 0"):
        read(tmp_path / "parts")


def test_a_handful_of_pictures_is_used_whole_and_says_so(tmp_path: Path) -> None:
    write_label(tmp_path / "cat", 3, 0)
    write_label(tmp_path / "dog", 4, 10)
    data, _ = read(tmp_path)
    assert data.seen
    assert len(data.train) == len(data.validation) == len(data.test) == 7


@pytest.mark.parametrize("make", [Path.exists, Path.mkdir, Path.touch])
def test_what_is_no_folder_of_pictures_is_refused_with_what_to_do(make: Callable[[Path], Any], tmp_path: Path) -> None:
    make(tmp_path / "data")
    with pytest.raises(DataProblem, match="with --data, or leave --data out to download CIFAR-10"):
        read(tmp_path / "data")


def test_a_folder_of_other_things_says_what_the_first_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(DataProblem, match=r"has 0 labels .*left out: 1, first a\.csv: it lies in no label's folder"):
        read(tmp_path)


def test_more_than_the_memory_holds_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(3000):
            (tmp_path / label / str(number)).touch()
    with pytest.raises(DataProblem, match=r"6,000 files, .* 4096 × 4096 pixels need 302\.0 GB .* choose a smaller"):
        read(tmp_path, height=4096, width=4096)


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(8, 300)] * 3, 32),
        ([(500, 400)] * 3, 128),
        ([(40, 90), (60, 50), (200, 300)], 48),
        ([(69, 80)], 72),
        ([], 32),
    ],
    ids=["small", "large", "the median", "rounded", "none"],
)
def test_the_size_follows_from_the_shorter_sides(sizes: list[tuple[int, int]], side: int, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.png", number, size) for number, size in enumerate(sizes)]
    (tmp_path / "broken").write_text("no picture")
    assert pictures.side([*paths, tmp_path / "broken"]) == side


def test_the_sample_that_the_size_follows_from_reaches_the_last_pictures(tmp_path: Path) -> None:
    small, large = write(tmp_path / "small.png"), write(tmp_path / "large.png", size=(104, 104))
    assert pictures.side([small] * 190 + [large] * 200) == 104


def test_one_given_side_makes_a_square(folder: Path) -> None:
    assert read(folder, height=12, width=None)[0].train.inputs.shape[1:] == (12, 12, 3)


def test_the_checksum_is_of_content_and_labels_and_not_of_names(folder: Path) -> None:
    before = read(folder)[0].sha256
    (folder / "cat" / "3.png").rename(folder / "cat" / "zzz.png")
    assert read(folder)[0].sha256 == before
    assert read(folder, height=16, width=16)[0].sha256 == before
    shutil.move(folder / "cat" / "4.png", folder / "dog")
    moved = read(folder)[0].sha256
    assert moved != before
    (folder / "dog" / "100.png").write_bytes((folder / "dog" / "100.png").read_bytes() + b"\0")
    assert read(folder)[0].sha256 not in {before, moved}


def test_the_seed_chooses_what_is_held_out(folder: Path) -> None:
    first, again, other = (read(folder, seed=seed)[0].test.inputs for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_picture_that_was_learned_from_is_not_in_the_test_of_a_folder_that_grew(folder: Path) -> None:
    before, _ = read(folder)
    for label, start in (("cat", 500), ("dog", 600)):
        for number in range(start, start + 6):
            write(folder / label / f"0{number}.png", number)  # sorted in between
    after, _ = read(folder)
    learned, tested, tests = (
        {pixels.tobytes() for pixels in part.inputs} for part in (before.train, before.test, after.test)
    )
    assert learned.isdisjoint(tests)
    assert len(tested & tests) >= 0.8 * len(tested)


def test_a_file_name_that_is_no_unicode_is_listed(folder: Path) -> None:
    with open(os.fsencode(folder / "cat") + b"/\xff.png", "wb") as file:  # noqa: PTH123 - a name in bytes
        file.write(b"no picture")
    _, bad = read(folder)
    assert [one.where for one in bad] == ["cat/\udcff.png"]


def test_a_label_that_is_no_unicode_is_refused(folder: Path) -> None:
    os.rename(folder / "dog", os.fsencode(folder) + b"/dog\xff")  # noqa: PTH104 - a name in bytes
    with pytest.raises(DataProblem, match=r"'dog\\udcff', which is not valid Unicode"):
        read(folder)

"""The user's own pictures: a folder that holds a folder of pictures for each label."""

import hashlib
import math
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from serving.contract import ImageInput
from serving.preprocessing import ImagePreprocessor
from serving.preprocessing.image import FORMATS
from serving.preprocessing.structure import check_structure
from serving.problems import Problem, TooLarge, Unprocessable
from training.data import Dataset, Examples, in_parts
from training.data.copies import copies
from training.data.labels import check, tidy
from training.data.left_out import Bad
from training.problems import DataProblem

PARTS = {
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "eval": "validation",
    "train": "train",
    "training": "train",
}
"""Folders that are parts of a data set and no labels, and what they are."""
JUNK = {"__MACOSX"}
"""What archives bring along besides hidden files."""
CHANNELS: Literal[3] = 3

MAX_PIXELS = 50_000_000
"""What the gateway takes if nobody says otherwise."""
MAX_BYTES = 200_000_000
"""Of one file: enough for MAX_PIXELS without compression."""
CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")
MEMORY_SHARE = 0.25
"""Of the machine's: cutting the pictures copies them, and so does feeding them."""

SMALLEST_SIDE, LARGEST_SIDE, STEP = 32, 128, 8
"""Pixels, where the size follows from the pictures."""
SAMPLE = 200
"""Pictures that it follows from."""
SHOWN = 3
"""Names that a message lists."""


Identity = tuple[int, int]
"""Device and inode: what a folder is, whatever path led there."""


@dataclass(frozen=True)
class Picture:
    """A file that should be a picture.

    Attributes:
        path: where it lies.
        part: "train", "validation" or "test".
        label: its label's folder, as it is called.
    """

    path: Path
    part: str
    label: str


def read(
    folder: Path, *, name: str, height: int | None, width: int | None, validation: float, seed: int
) -> tuple[Dataset, list[Bad]]:
    """The pictures of a folder, and the files that were left out.

    A label's pictures lie in a folder called as the label, or in folders inside it. The labels' folders lie in
    `folder`, or in its folders `train`, `test` and `validation` (see PARTS), of which all but `train` may be missing:
    what is missing is cut from `train`, see `training.data.in_parts`. Labels are sorted by name.

    Whatever the gateway takes is read as the gateway reads it, cropped to the middle and resized. Hidden files are
    passed over; every other file that does not become a picture is listed. Links are followed. Pictures that look the
    same in the model's size are read once, and where one of them is in the test it stays there, see
    `training.data.copies`.

    Args:
        folder: as above.
        name: what it is called.
        height: of the pictures that the model gets, in pixels. One of height and width that is not given is as the
            other; for both, see `side`.
        width: likewise.
        validation: share of the training pictures to hold out.
        seed: which are held out.

    Raises:
        DataProblem: there is no such folder, too few labels or pictures of one, or more than the memory holds.
    """
    found, bad = find(folder)
    check((picture.label for picture in found), source=folder, bad=bad)
    if height is None or width is None:
        height = width = height or width or side([picture.path for picture in found])
    _check_memory(folder, len(found), height, width)
    pixels, checksums, reasons = decode(found, height=height, width=width)
    places = [_place(picture.path, folder) for picture in found]
    readable = [position for position in range(len(found)) if position not in reasons]
    reasons |= {
        readable[position]: reason
        for position, reason in copies(
            [hashlib.sha256(pixels[position]).digest() for position in readable],
            [found[position].label for position in readable],
            [repr(places[position]) for position in readable],
            thing="picture",
        ).items()
    }
    bad += [Bad(places[position], reason) for position, reason in reasons.items()]
    kept = [position for position in range(len(found)) if position not in reasons]
    # of all that were found: a label whose pictures are all bad is too rare, not gone
    written = sorted({picture.label for picture in found}, key=tidy)
    label_of = {label: position for position, label in enumerate(written)}
    # cut by positions, so that no pixel is copied twice
    positions = in_parts(
        {
            part: Examples(
                np.array([position for position in kept if found[position].part == part], dtype=np.int64),
                np.array([label_of[found[at].label] for at in kept if found[at].part == part], dtype=np.int64),
            )
            for part in sorted({picture.part for picture in found} | {"train"})
        },
        source=folder,
        name=name,
        labels=[tidy(label) for label in written],
        validation=validation,
        seed=seed,
        content=lambda position: checksums[position],
        sha256=_checksum(f"{found[at].part}\0{tidy(found[at].label)}\0{checksums[at]}\0" for at in kept),
    )
    dataset = replace(
        positions,
        train=_pictures(positions.train, pixels, found),
        validation=_pictures(positions.validation, pixels, found),
        test=_pictures(positions.test, pixels, found),
    )
    return dataset, sorted(bad, key=lambda one: one.where)


def find(folder: Path) -> tuple[list[Picture], list[Bad]]:
    """The files that should be pictures: those of the test first, then of the validation, then of the training.

    Returns:
        them, and what else lies there.

    Raises:
        DataProblem: the folder cannot be read, it holds no folders, or they look like parts of other names.
    """
    try:
        parts, bad = _parts(folder)
        labels = [
            (part, label)
            for part in dict.fromkeys(PARTS.values())
            for place in parts.get(part, [])
            for label in _visible(place)
        ]
        root = _identity(folder)
    except OSError as error:
        raise DataProblem(f"{folder} cannot be read ({error.strerror}): {HINT}") from error
    pictures: list[Picture] = []
    for part, label in labels:
        if not _is_folder(label):
            bad.append(Bad(_place(label, folder), "it lies in no label's folder"))
            continue
        files, unread = _files(label, root)
        pictures += [Picture(path, part, label.name) for path in files]
        bad += [Bad(_place(path, folder), reason) for path, reason in unread]
        if not files and not unread:
            bad.append(Bad(_place(label, folder), "the folder is empty"))
    if not pictures and not bad:
        raise DataProblem(f"{folder} is empty: {HINT}")
    return pictures, bad


HINT = (
    "give a folder that holds a folder of pictures for each label, or CIFAR-10's own, with --data, or leave --data out "
    "to download CIFAR-10."
)


def _parts(folder: Path) -> tuple[dict[str, list[Path]], list[Bad]]:
    """Part → the folders that hold its labels' folders, and what lies beside them."""
    inside = _visible(folder)
    folders = [path for path in inside if _is_folder(path)]
    named = {path: PARTS[path.name.lower()] for path in folders if path.name.lower() in PARTS}
    train = [path for path, part in named.items() if part == "train"]
    # pictures of trains beside those of buses are no part
    divided = any(map(_is_folder, (path for place in train for path in _visible(place)))) and (
        len(named) > 1 or len(folders) == 1
    )
    if not divided:
        _check_names(folder, folders)
        return {"train": [folder]}, []
    parts: dict[str, list[Path]] = {}
    for path, part in named.items():
        parts.setdefault(part, []).append(path)
    beside = [path for path in inside if path not in named]
    return parts, [Bad(_place(path, folder), "it is in none of train, validation and test") for path in beside]


def _check_names(folder: Path, labels: Sequence[Path]) -> None:
    """Whether the labels' folders are labels': those of parts hold all the same folders and nothing else."""
    with suppress(OSError):  # what cannot be read is told with the files
        names = _only_folders(labels[0]) if len(labels) > 1 else set()
        # one name that all labels share, such as `images`, is no list of labels
        if len(names) > 1 and all(_only_folders(label) == names for label in labels[1:]):
            first, second, *_ = labels
            some = ", ".join(sorted(names)[:SHOWN])
            raise DataProblem(
                f"{folder} holds {first.name!r} and {second.name!r}, which look like parts of a data set: each "
                f"holds nothing but the folders {some}. If these are the labels, call the folders around them train, "
                "test and validation; if not, put the pictures of each label into its folder without folders between."
            )


def _only_folders(folder: Path) -> set[str]:
    """The names of the folders in a folder that holds nothing else."""
    inside = _visible(folder)
    return {path.name for path in inside} if all(map(_is_folder, inside)) else set()


def _files(label: Path, root: Identity) -> tuple[list[Path], list[tuple[Path, str]]]:
    """All files in a label's folder, however deep, in order, and the folders that cannot be read."""
    files: list[Path] = []
    unread: list[tuple[Path, str]] = []
    # each with what it lies in: a link to that would go round in circles
    folders = [(label, frozenset({root}))]
    while folders:
        folder, above = folders.pop()
        try:
            identity = _identity(folder)
            if identity in above:
                unread.append((folder, "it is a link to a folder that it lies in"))
                continue
            for path in _visible(folder):
                if _is_folder(path):
                    folders.append((path, above | {identity}))
                else:
                    files.append(path)
        except OSError as error:
            unread.append((folder, f"the folder cannot be read ({error.strerror})"))
    return sorted(files), unread


def side(paths: Sequence[Path]) -> int:
    """The square that suits pictures: as their shorter sides are.

    Half of a sample have a shorter side of more, half of less; that, rounded to STEP and at least SMALLEST_SIDE, so
    that a network has something to fold, and at most LARGEST_SIDE, so that it learns in bearable time.

    Args:
        paths: of the files; those that are no pictures do not count.

    Returns:
        height and width in pixels.
    """
    sides: list[int] = []
    for path in paths[:: -(-len(paths) // SAMPLE) or 1]:
        # whatever is wrong here `decode` will say
        with suppress(Exception):
            encoded = _bytes(path)
            check_structure(encoded, max_pixels=MAX_PIXELS)
            with Image.open(BytesIO(encoded), formats=FORMATS) as image:
                sides.append(min(image.size))
    middle = float(np.median(sides)) if sides else 0.0
    return int(np.clip(STEP * round(middle / STEP), SMALLEST_SIDE, LARGEST_SIDE))


def decode(
    pictures: Sequence[Picture], *, height: int, width: int
) -> tuple[NDArray[np.uint8], dict[int, str], dict[int, str]]:
    """Files → pixels, as the gateway makes them; a bar on the terminal tells how far it is.

    Returns:
        uint8 [n, height, width, 3], where those of a file that is no picture are anything; position → SHA-256 of the
        file; position → why it is no picture.
    """
    spec = ImageInput(name="image", height=height, width=width, channels=CHANNELS, fit="cover", filter="bicubic")
    preprocessor = ImagePreprocessor(spec, max_pixels=MAX_PIXELS)
    pixels = np.empty((len(pictures), height, width, CHANNELS), dtype=np.uint8)
    checksums: dict[int, str] = {}
    reasons: dict[int, str] = {}

    def read_one(position: int) -> None:
        try:
            encoded = _bytes(pictures[position].path)
            pixels[position] = preprocessor.prepare(encoded)
            checksums[position] = hashlib.sha256(encoded).hexdigest()
        except Problem as problem:
            reasons[position] = problem.detail
        except OSError as error:
            reasons[position] = f"it cannot be read ({error.strerror})"

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        done = threads.map(read_one, range(len(pictures)))
        try:
            for _ in tqdm(done, total=len(pictures), unit=" pictures", disable=not sys.stderr.isatty()):
                pass
        except BaseException:
            # whoever interrupts does not want to wait for the rest
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return pixels, checksums, reasons


def _bytes(path: Path) -> bytes:
    status = path.stat()
    if not S_ISREG(status.st_mode):
        # one could wait for ever for what is in it
        raise Unprocessable("It is no file, but a device, a pipe or a socket.")
    if status.st_size > MAX_BYTES:
        raise TooLarge(f"The file has {status.st_size:,} bytes; at most {MAX_BYTES:,} are read.")
    return path.read_bytes()


def _check_memory(folder: Path, count: int, height: int, width: int) -> None:
    needed, limit = count * height * width * CHANNELS, MEMORY_SHARE * memory()
    if needed > limit:
        raise DataProblem(
            f"{folder} has {count:,} files, which at {height} × {width} pixels need {needed / 1e9:.1f} GB of memory; "
            f"{limit / 1e9:.1f} GB, a quarter of all, may be used: choose a smaller size, or fewer pictures."
        )


def memory() -> float:
    """Bytes of memory that this process may use: the machine's, or the container's; infinite where nobody tells."""
    limits = []
    with suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError, OSError):  # "max" for none
        limits.append(int(CONTAINER_MEMORY.read_text()))
    return float(min(limits, default=math.inf))


def _pictures(part: Examples, pixels: NDArray[np.uint8], found: Sequence[Picture]) -> Examples:
    files = np.array([found[position].path for position in part.inputs], dtype=object)
    return Examples(pixels[part.inputs], part.labels, files)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in JUNK)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # may not be looked at
        return False


def _identity(folder: Path) -> Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _place(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _checksum(pictures: Iterable[str]) -> str:
    """Of pictures in whatever order they were found."""
    return hashlib.sha256("".join(sorted(pictures)).encode()).hexdigest()

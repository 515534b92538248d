"""A plain JPEG gives the same pixels as Pillow, and whatever is not plain, or not whole, is Pillow's."""

import random
from io import BytesIO
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.contract import ImageInput
from serving.preprocessing import ImagePreprocessor
from serving.preprocessing.structure import check_structure
from serving.problems import Problem, TooLarge

OF_NO_MATTER = b"\xff\xed\x00\x02"
"""An empty segment that a plain JPEG does not have (APP13)."""
SIZES = [(1, 1), (7, 5), (17, 17), (32, 32), (63, 65), (64, 64), (127, 300), (640, 480), (1000, 33), (9, 2000)]
SAVED: list[dict[str, object]] = [
    {},
    {"quality": 30, "subsampling": 0},
    {"quality": 95, "subsampling": 1},
    {"subsampling": 2, "progressive": True},
    {"optimize": True, "restart_marker_blocks": 3},
]


def noise(size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def is_plain(encoded: bytes) -> bool:
    return check_structure(encoded, max_pixels=None) is not None


def by_pillow(encoded: bytes) -> bytes:
    return encoded[:2] + OF_NO_MATTER + encoded[2:]


def prepared(encoded: bytes, fit: Literal["cover", "contain", "fill"], channels: Literal[1, 3]) -> NDArray[np.uint8]:
    spec = ImageInput(name="image", height=32, width=32, channels=channels, fit=fit, filter="bilinear")
    return ImagePreprocessor(spec).prepare(encoded)


@pytest.mark.parametrize("options", SAVED)
@pytest.mark.parametrize("size", SIZES)
def test_a_plain_jpeg_gives_the_same_pixels_as_pillow(size: tuple[int, int], options: dict[str, object]) -> None:
    encoded = saved(noise(size), **options)
    assert is_plain(encoded)
    assert not is_plain(by_pillow(encoded))
    for fit in ("cover", "contain", "fill"):
        for channels in (3, 1):
            ours, pillows = prepared(encoded, fit, channels), prepared(by_pillow(encoded), fit, channels)
            assert np.array_equal(ours, pillows), (fit, channels)


def test_what_says_more_of_the_picture_is_not_plain() -> None:
    image = noise((40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    others = {
        "orientation": saved(image, exif=exif),
        "profile": saved(image, icc_profile=b"x" * 200),
        "grey": saved(image.convert("L")),
        "cmyk": saved(image.convert("CMYK")),
        "cut in its headers": saved(image)[:100],
        "png": by_pillow(b"\x89PNG\r\n\x1a\n"),
    }
    assert not [name for name, encoded in others.items() if is_plain(encoded)]
    assert is_plain(saved(image, comment=b"says nothing of it"))


def outcome(encoded: bytes) -> bytes | str:
    try:
        return prepared(encoded, "cover", 3).tobytes()
    except Problem as problem:
        return problem.detail


def test_a_damaged_one_is_answered_as_pillow_answers_it() -> None:
    chance = random.Random(7)  # noqa: S311  # no secret
    whole = saved(noise((48, 40)), quality=60)
    answers = set()
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 4))):
            damaged[chance.randrange(4, len(damaged))] = chance.randrange(256)
        cut = bytes(damaged[: chance.choice((len(damaged), len(damaged), chance.randrange(4, len(damaged))))])
        answer = outcome(cut)
        assert answer == outcome(by_pillow(cut))
        answers.add(type(answer))
    assert answers == {bytes, str}


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    spec = ImageInput(name="image", height=32, width=32, channels=3, fit="cover", filter="bilinear")
    with pytest.raises(TooLarge, match="300 × 200"):
        ImagePreprocessor(spec, max_pixels=59_999).prepare(saved(noise((300, 200))))

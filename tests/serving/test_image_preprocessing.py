"""Pictures, as people see them, in the model's geometry; everything else refused with a reason."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.contract import ImageInput
from serving.preprocessing import ImagePreprocessor
from serving.problems import Problem, TooLarge, Unprocessable, UnsupportedMediaType
from tests.serving import hostile_pictures, odd_pictures

SPEC = ImageInput(name="image", height=32, width=32, channels=3, fit="cover", filter="bilinear")


def spec(**changes: object) -> ImageInput:
    return ImageInput.model_validate(SPEC.model_dump() | changes)


def prepare(encoded: bytes, *, max_pixels: int | None = None, **changes: object) -> NDArray[np.uint8]:
    return ImagePreprocessor(spec(**changes), max_pixels=max_pixels).prepare(encoded)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(width: int = 32, height: int = 32) -> Image.Image:
    """Red above blue, with a green left edge: which way is up can be seen."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, :, 0] = 220
    pixels[height // 2 :, :, 2] = 220
    pixels[:, : width // 4, 1] = 200
    return Image.fromarray(pixels)


def test_pixels_of_the_models_own_size_arrive_untouched() -> None:
    assert np.array_equal(prepare(encode(scene())), np.asarray(scene()))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("size", [(32, 32), (640, 480), (50, 120)])
def test_every_format_of_the_allow_list_gives_about_the_same_pixels(kind: str, size: tuple[int, int]) -> None:
    image = scene(*size)
    off = prepare(encode(image, kind)).astype(int) - prepare(encode(image, "PNG")).astype(int)
    assert np.abs(off).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_orientation_says(orientation: int) -> None:
    upright = scene(640, 480)
    stored = odd_pictures.turned(upright, orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    off = prepare(encode(stored, "JPEG", exif=exif, quality=95)).astype(int) - prepare(encode(upright)).astype(int)
    assert np.abs(off).mean() < 8


def test_what_is_transparent_lies_over_white() -> None:
    nothing = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    assert prepare(encode(nothing)).min() == 255


def test_a_palette_with_a_transparent_colour_lies_over_white() -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([10, 20, 30, 200, 100, 0])
    assert prepare(encode(image, "GIF", transparency=0)).min() == 255


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(np.full((32, 32), 0x8000, np.uint16))
    assert set(prepare(encode(grey)).flat) == {0x80}


def test_cmyk_and_grey_become_rgb() -> None:
    grey = Image.new("L", (32, 32), 77)
    assert np.array_equal(prepare(encode(grey)), np.full((32, 32, 3), 77))
    red = Image.new("RGB", (32, 32), (255, 0, 0)).convert("CMYK")
    assert np.allclose(prepare(encode(red, "JPEG")).mean(axis=(0, 1)), [255, 0, 0], atol=4)


def test_a_model_of_one_channel_gets_one() -> None:
    assert prepare(encode(scene(64, 48)), channels=1).shape == (32, 32, 1)


def test_cover_crops_the_middle_fill_stretches_and_contain_adds_borders() -> None:
    wide = Image.new("RGB", (96, 32), "white")
    wide.paste("black", (0, 0, 32, 32))
    wide.paste("black", (64, 0, 96, 32))
    assert prepare(encode(wide), fit="cover").min() == 255
    assert prepare(encode(wide), fit="fill")[16, 2].max() == 0
    contained = prepare(encode(Image.new("RGB", (96, 32), "white")), fit="contain")
    assert contained[0].max() == 0
    assert contained[16].min() == 255


@pytest.mark.parametrize("fit", ["cover", "contain", "fill"])
@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (4000, 3)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_extreme_shapes_still_give_a_frame(fit: str, size: tuple[int, int], kind: str) -> None:
    assert prepare(encode(Image.new("RGB", size, "white"), kind), fit=fit).shape == (32, 32, 3)


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    animated = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert prepare(animated)[0, 0].tolist() == [255, 0, 0]


def test_a_large_jpeg_is_drafted_but_means_the_same() -> None:
    image = scene(3000, 2250)
    off = prepare(encode(image, "JPEG")).astype(int) - prepare(encode(image, "PNG")).astype(int)
    assert np.abs(off).mean() < 8


def test_a_picture_over_the_pixel_limit_is_refused_by_its_header() -> None:
    with pytest.raises(TooLarge, match="640 × 480"):
        prepare(encode(scene(640, 480)), max_pixels=640 * 480 - 1)
    assert prepare(encode(scene(640, 480)), max_pixels=640 * 480).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("PDF", b"%PDF-1.7 ..."),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("HEIC", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00"),
        ("AVIF", encode(scene(), "AVIF")),
        ("ICO", encode(scene(), "ICO")),
    ],
)
def test_a_format_that_is_not_on_the_allow_list_is_named(name: str, encoded: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match=name):
        prepare(encoded)


@pytest.mark.parametrize(
    "encoded", [b"", b"\x00", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM" + b"\0" * 60]
)
def test_bytes_that_are_no_picture_are_unprocessable(encoded: bytes) -> None:
    with pytest.raises(Unprocessable):
        prepare(encoded)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_cut_anywhere_is_a_problem_and_never_another_error(kind: str) -> None:
    whole = encode(scene(64, 48), kind)
    for end in range(0, len(whole), max(1, len(whole) // 60)):
        try:
            pixels = prepare(whole[:end])
        except Problem:
            continue
        assert pixels.shape == (32, 32, 3)  # some formats end in bytes that they can do without


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_with_any_byte_changed_is_read_or_a_problem(kind: str) -> None:
    whole = encode(scene(64, 48), kind)
    random = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(whole)
        for at in random.integers(0, len(whole), 3):
            broken[at] = int(random.integers(256))
        try:
            pixels = prepare(bytes(broken), max_pixels=10_000_000)
        except (TooLarge, UnsupportedMediaType, Unprocessable):
            continue
        assert pixels.shape == (32, 32, 3)


def test_pictures_are_stacked_into_a_batch() -> None:
    preprocessor = ImagePreprocessor(SPEC)
    rows = [preprocessor.prepare(encode(scene())), preprocessor.prepare(encode(scene(64, 64)))]
    batch = preprocessor.collate(rows)
    assert batch.shape == (2, 32, 32, 3)
    assert batch.dtype == np.uint8


COLOURED = odd_pictures.coloured(odd_pictures.scene())
GREY_SCENE = Image.fromarray(np.tile(np.linspace(10, 250, 64).astype(np.uint8), (48, 1)))
GREY = odd_pictures.grey(GREY_SCENE)


def difference(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> float:
    return float(np.abs(left.astype(int) - right.astype(int)).mean())


@pytest.mark.parametrize("name", COLOURED)
def test_a_picture_in_any_form_gives_nearly_the_same_pixels(name: str) -> None:
    plain = prepare(odd_pictures.encode(odd_pictures.scene(), "PNG"))
    assert difference(prepare(COLOURED[name]), plain) < 3


@pytest.mark.parametrize("name", GREY)
def test_a_grey_picture_of_any_depth_gives_nearly_the_same_pixels(name: str) -> None:
    assert difference(prepare(GREY[name]), prepare(odd_pictures.encode(GREY_SCENE, "PNG"))) < 2


def test_a_bilevel_picture_is_black_and_white() -> None:
    image = GREY_SCENE.convert("1", dither=Image.Dither.NONE)
    plain = prepare(encode(image.convert("L")))
    for kind, options in [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "group4"})]:
        assert np.array_equal(prepare(encode(image, kind, **options)), plain), (kind, options)


def test_a_profile_is_heeded_only_where_it_moves_colours() -> None:
    wide = odd_pictures.matrix_profile(odd_pictures.DISPLAY_P3)
    red = Image.new("RGB", (32, 32), (200, 60, 60))
    assert prepare(encode(red, icc_profile=wide))[0, 0].tolist() != [200, 60, 60]
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    assert difference(prepare(encode(grey, icc_profile=wide)), prepare(encode(grey))) <= 2


def test_borders_are_black_whatever_the_picture_is_made_of() -> None:
    for mode in ("L", "RGB", "CMYK"):
        assert prepare(encode(Image.new("RGB", (96, 32), "white").convert(mode), "TIFF"), fit="contain")[0].max() == 0


def test_a_colour_profile_that_is_huge_is_ignored() -> None:
    profile = odd_pictures.matrix_profile(odd_pictures.SWAPPED).ljust(5_000_000, b"\0")
    image = odd_pictures.scene(32, 32)
    assert np.array_equal(prepare(encode(image, "TIFF", icc_profile=profile)), np.asarray(image))


def test_two_models_may_take_pictures_at_once() -> None:
    files = list(COLOURED.values()) * 3
    preprocessor = ImagePreprocessor(SPEC)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(preprocessor.prepare, files))
    assert all(np.array_equal(pixels, preprocessor.prepare(file)) for pixels, file in zip(together, files, strict=True))


@pytest.mark.parametrize("name", ["JPEG", "progressive JPEG", "PNG", "WEBP", "GIF", "TIFF", "JPEG with a profile"])
def test_what_takes_longer_than_a_look_is_left_for_later(name: str) -> None:
    kind = name.removeprefix("progressive ").split()[0]
    options: dict[str, object] = {"progressive": True} if name.startswith("progressive") else {}
    if "profile" in name:
        options["icc_profile"] = odd_pictures.matrix_profile(odd_pictures.DISPLAY_P3)
    preprocessor = ImagePreprocessor(SPEC)
    small = preprocessor.prepare_quickly(encode(scene(), kind, **options))
    assert (small is None) == ("profile" in name)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8))
    assert preprocessor.prepare_quickly(encode(noise, kind, **options)) is None


BOMBS = hostile_pictures.bombs()
NOT_PICTURES = hostile_pictures.not_pictures()
BROKEN = hostile_pictures.broken()
HARMLESS = hostile_pictures.harmless()
LIMIT = 4_000_000


def check_good() -> None:
    """A good picture still gives exactly its pixels."""
    assert np.array_equal(prepare(hostile_pictures.good()), GOOD)


GOOD = prepare(hostile_pictures.good())


@pytest.mark.timeout(5)
@pytest.mark.parametrize("name", [*BOMBS, *NOT_PICTURES])
def test_a_bomb_and_what_is_no_picture_are_refused_with_a_reason(name: str) -> None:
    with pytest.raises((TooLarge, UnsupportedMediaType, Unprocessable)) as refused:
        prepare((BOMBS | NOT_PICTURES)[name], max_pixels=LIMIT)
    assert 20 < len(refused.value.detail) < 250
    check_good()


@pytest.mark.timeout(5)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_read_or_refused(name: str) -> None:
    try:
        pixels = prepare(BROKEN[name], max_pixels=LIMIT)
    except (TooLarge, UnsupportedMediaType, Unprocessable):
        pass
    else:
        assert pixels.shape == (32, 32, 3)
    check_good()


@pytest.mark.timeout(5)
@pytest.mark.parametrize("name", HARMLESS)
def test_a_picture_that_only_looks_like_a_bomb_is_read(name: str) -> None:
    assert prepare(HARMLESS[name], max_pixels=LIMIT).shape == (32, 32, 3)


def test_there_are_enough_hostile_files() -> None:
    assert len(BOMBS | NOT_PICTURES | BROKEN) >= 150
    assert max(map(len, (BOMBS | NOT_PICTURES | BROKEN).values())) < 32 * 1024 * 1024


MEMORY_OF_ALL = """
import resource
from serving.contract import ImageInput
from serving.preprocessing import ImagePreprocessor
from serving.problems import Problem
from tests.serving import hostile_pictures as hostile

spec = ImageInput(name="image", height=32, width=32, channels=3, fit="cover", filter="bilinear")
preprocessor = ImagePreprocessor(spec, max_pixels=4_000_000)
files = [*hostile.broken().values(), *hostile.not_pictures().values(), *hostile.bombs().values()]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in files:
    try:
        preprocessor.prepare(file)
    except Problem:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.timeout(30)
def test_all_hostile_files_together_take_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY_OF_ALL], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 1024  # kB

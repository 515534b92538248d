"""Pictures: encoded bytes → a picture as people see it → uint8 pixels in the model's geometry."""

import logging
import math
import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from serving.contract import ImageInput
from serving.explanation import numbers
from serving.preprocessing.colour import opaque, to_srgb
from serving.preprocessing.jpeg import PlainJpeg
from serving.preprocessing.structure import RUN_LENGTH, SCAN, check_exif, check_pixels, check_structure, format_of
from serving.problems import Unprocessable, UnsupportedMediaType

PLUGINS = (
    JpegImagePlugin.JpegImageFile,  # multi-picture JPEGs (MPO), too
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
)
FORMATS = tuple(plugin.format for plugin in PLUGINS)
"""The allow-list, by Pillow's names. What the bytes are counts, not what a header says."""

OTHER_FORMATS = {
    "AVIF": (4, b"ftypavif"),
    "HEIC": (4, b"ftyphei"),
    "HEIF": (4, b"ftypmif1"),
    "ICO": (0, b"\x00\x00\x01\x00"),
    "JPEG 2000": (4, b"jP  \r\n\x87\n"),
    "JPEG XL": (0, b"\x00\x00\x00\x0cJXL "),
    "OpenEXR": (0, b"v/1\x01"),
    "PDF": (0, b"%PDF"),
    "Photoshop": (0, b"8BPS"),
    "PostScript": (0, b"%!PS"),
    "SVG": (0, b"<svg"),
    "XML": (0, b"<?xml"),
}
"""What people send by mistake, told by its first bytes, so that the answer can name it."""

DRAFT_SCALE = 2
"""A JPEG is decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that is still this many times the model's size: the filter
then has enough to work on, and a large photo costs a fraction."""

QUICK_COST = 160 * 1024
"""What still takes about two milliseconds of a slow core: as much as the way to a thread and back may cost under load.
In pixels of a JPEG that is decoded at its full size, with all that is done to them. Other formats: bytes or pixels,
whichever are more, times the format's COST."""
COST = {"PNG": 2.0, "WEBP": 4.0, "GIF": 2.0, "BMP": 1.0, "TIFF": 2.0}
JPEG_COST_OF_A_BYTE = 1.5
JPEG_COST_OF_A_PIXEL_LEFT_OUT = 0.04
"""By decoding at a smaller scale."""
COST_OF_A_SCAN = 0.35

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what turns the picture upright."""

TELL_ORIENTATION = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
"""What Pillow reads it from, by its names in `info`."""

# Everything beyond the caller's `max_pixels` is refused from the header; Pillow's own warning would only repeat it.
Image.MAX_IMAGE_PIXELS = None
# What Pillow remarks on a file quotes it: Python would remember each remark for ever, and pictures are not for the log.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class ImagePreprocessor:
    """Makes pixels as one contract asks for them.

    Args:
        spec: the contract's `input`.
        max_pixels: a picture of more, by its header, is refused before anything is decoded; None for no limit.
    """

    def __init__(self, spec: ImageInput, *, max_pixels: int | None = None) -> None:
        self._spec = spec
        self._max_pixels = max_pixels
        self._size = (spec.width, spec.height)
        self._filter = Image.Resampling[spec.filter.upper()]
        self._mode = "RGB" if spec.channels == 3 else "L"  # noqa: PLR2004

    def without_limits(self) -> Self:
        """The same without `max_pixels`."""
        return type(self)(self._spec)

    def prepare(self, encoded: bytes) -> NDArray[np.uint8]:
        """One picture, encoded → its pixels, uint8 [height, width, channels].

        Args:
            encoded: a file's bytes, in one of FORMATS.

        Raises:
            TooLarge: more pixels than the limit.
            UnsupportedMediaType: a format that is not on the allow-list.
            Unprocessable: empty, not a picture, truncated or corrupt.
        """
        pixels = self._prepare(encoded, quickly=False)
        assert pixels is not None, "it may take long"  # noqa: S101
        return pixels

    def prepare_quickly(self, encoded: bytes) -> NDArray[np.uint8] | None:
        """As `prepare`, but None for a picture that would take more than about two milliseconds."""
        return self._prepare(encoded, quickly=True) if len(encoded) <= QUICK_COST else None

    def _prepare(self, encoded: bytes, *, quickly: bool) -> NDArray[np.uint8] | None:
        """The pixels, or None if they are wanted quickly and cost more than QUICK_COST."""
        if plain := self._check(encoded):
            scale = plain.scale(DRAFT_SCALE * self._longest(plain.width, plain.height))
            if quickly and _plain_cost(plain, scale) > QUICK_COST:
                return None
            pixels = plain.pixels(scale)
            if pixels is not None:
                return self._fitted(pixels)
            # Pillow says what is wrong, or reads it all the same: a damaged one takes up to twice as long
        image = self._open(encoded)
        size = image.width * image.height
        self._draft(image)
        if quickly and _cost(image, size, encoded) > QUICK_COST:
            return None
        return self._pixels(_decode(image))

    def _fitted(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A plain JPEG's pixels, uint8 [any height, any width, 3], in the model's geometry."""
        if pixels.shape == (self._spec.height, self._spec.width, self._spec.channels):
            return pixels
        return self._pixels(Image.fromarray(pixels))

    def remarks(self, encoded: bytes, row: NDArray[np.uint8]) -> dict[str, Any]:
        """Nothing: a picture is always seen whole, or cropped as the contract says."""
        del encoded, row
        return {}

    def explain(self, encoded: bytes, attribution: NDArray[np.float32]) -> dict[str, Any]:
        """What each pixel adds, float32 [height, width] → the same as numbers, and where they lie on the picture.

        `area` is the frame that the model saw, in shares of the upright picture's width and height, from its upper left
        corner: `cover` leaves out what is beside it, `contain` lets it reach over the picture's edges.
        """
        self._check(encoded)
        image = self._open(encoded)
        self._draft(image)
        return {"attribution": numbers(attribution), "area": self._area(*_decode(image).size)}

    def _area(self, width: int, height: int) -> dict[str, float]:
        frame_width, frame_height = self._size
        scales = (frame_width / width, frame_height / height)
        match self._spec.fit:
            case "cover":
                across = down = max(scales)
            case "contain":
                across = down = min(scales)
            case "fill":
                across, down = scales
        wide, high = frame_width / (width * across), frame_height / (height * down)
        return {"left": (1 - wide) / 2, "top": (1 - high) / 2, "width": wide, "height": high}

    def collate(self, rows: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Pixels of n pictures → uint8 [n, height, width, channels]."""
        # of one nothing has to be copied: for a single request NumPy's way around that would be felt
        return rows[0][np.newaxis] if len(rows) == 1 else np.stack(rows)

    def _check(self, encoded: bytes) -> PlainJpeg | None:
        """Refuse a file beyond a limit; the file, if it is a plain JPEG."""
        if not encoded:
            raise Unprocessable("The picture is empty (0 bytes).")
        plain = check_structure(encoded, max_pixels=self._max_pixels)
        if plain:
            check_pixels(plain.width, plain.height, self._max_pixels)
        return plain

    def _open(self, encoded: bytes) -> Image.Image:
        """The header of a picture that was checked, by Pillow."""
        try:
            image = Image.open(BytesIO(encoded), formats=FORMATS)
        except UnidentifiedImageError:
            raise _unidentified(encoded) from None
        except Exception as error:  # Pillow's parsers raise any kind on broken files
            raise _undecodable(error) from error
        check_pixels(*image.size, self._max_pixels)
        return image

    def _longest(self, width: int, height: int) -> int:
        """Of the sides that the model sees of a picture of such sides, the longest one at least."""
        longest = max(self._size)
        if self._spec.fit == "contain" and min(width, height) > 0:
            # the frame holds the whole picture, so its short side gets smaller than the frame
            return max(1, longest * min(width, height) // max(width, height))
        return longest

    def _draft(self, image: Image.Image) -> None:
        """Have a JPEG decoded at a smaller scale where the model sees no more of it. Once: twice would halve twice."""
        size = DRAFT_SCALE * self._longest(*image.size)
        try:
            image.draft(None, (size, size))
        except Exception as error:  # Pillow's decoders raise any kind on broken files
            raise _undecodable(error) from error

    def _pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        width, height = self._size
        # after the fit, so that few pixels pay for their colours
        fitted = to_srgb(image if image.size == self._size else self._fit(image), like=image)
        if fitted.mode != self._mode:
            fitted = fitted.convert(self._mode)
        if fitted.size != self._size:
            fitted = ImageOps.pad(fitted, self._size)
        return np.frombuffer(fitted.tobytes(), np.uint8).reshape(height, width, self._spec.channels)

    def _fit(self, image: Image.Image) -> Image.Image:
        match self._spec.fit:
            case "cover":
                return ImageOps.fit(image, self._size, self._filter)
            case "contain":
                return ImageOps.contain(image, self._size, self._filter)
            case "fill":
                return image.resize(self._size, self._filter)


def _decode(image: Image.Image) -> Image.Image:
    """The picture upright, opaque, in a mode that can be resized."""
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise any kind on broken files
        raise _undecodable(error) from error
    return opaque(_upright(image))


def _cost(image: Image.Image, pixels: int, encoded: bytes) -> float:
    """What it takes to make so many bytes and pixels the model's, in the units of QUICK_COST."""
    if "icc_profile" in image.info or image.info.get("compression") in RUN_LENGTH:
        return math.inf  # a profile that was not met before takes some milliseconds, and Python decodes the runs
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return _jpeg_cost(len(encoded), pixels, image.width * image.height, encoded.count(SCAN))
    return COST[image.format or ""] * max(len(encoded), pixels)


def _plain_cost(plain: PlainJpeg, scale: int) -> float:
    size = plain.width * plain.height
    scans = plain.encoded.count(SCAN) if plain.has_several_scans else 1
    return _jpeg_cost(len(plain.encoded), size, size // scale**2, scans)


def _jpeg_cost(size: int, pixels: int, decoded: int, scans: int) -> float:
    cost = JPEG_COST_OF_A_BYTE * size + decoded + JPEG_COST_OF_A_PIXEL_LEFT_OUT * (pixels - decoded)
    return cost * max(1.0, COST_OF_A_SCAN * scans)


def _upright(image: Image.Image) -> Image.Image:
    """A decoded picture turned as its EXIF orientation says. Pillow has turned a TIFF already."""
    turn = UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> Any:
    if TELL_ORIENTATION.isdisjoint(image.info):
        return None
    if "exif" in image.info:
        check_exif(image.info["exif"])
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001  # the picture is there, whatever is wrong with what is written about it
        return None


def _unidentified(encoded: bytes) -> UnsupportedMediaType | Unprocessable:
    allowed = "Send JPEG, PNG, WebP, GIF, BMP or TIFF."
    start = encoded[:64].lstrip()
    for name, (offset, magic) in OTHER_FORMATS.items():
        if start.startswith(magic, offset):
            return UnsupportedMediaType(f"{name} is not taken. {allowed}")
    if known := format_of(encoded):
        return Unprocessable(f"The picture cannot be decoded: it is a damaged {known}, or one of a rare kind.")
    return Unprocessable(f"These {len(encoded):,} bytes are not a picture, or it is damaged at its start. {allowed}")


def _undecodable(error: Exception) -> Unprocessable:
    return Unprocessable(f"The picture cannot be decoded: {_reason(error)}.")


def _reason(error: Exception) -> str:
    """Pillow's own words where they are a sentence for people, in one line and of a bounded length."""
    if "too large" in str(error) or "Too much memory" in str(error):
        return "its metadata is too large"
    words = " ".join(str(error).split()).rstrip(".")[:120]
    return words if isinstance(error, OSError) and words else "its file is corrupt"

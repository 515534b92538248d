"""Pictures: encoded bytes → a picture as people see it → uint8 pixels in the model's geometry."""

from collections.abc import Sequence
from io import BytesIO

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
from serving.problems import TooLarge, Unprocessable, UnsupportedMediaType

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

QUICK_BYTES = 64 * 1024
QUICK_PIXELS = 256 * 256

# Everything beyond the caller's `max_pixels` is refused from the header; Pillow's own warning would only repeat it.
Image.MAX_IMAGE_PIXELS = None


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
        assert pixels is not None, "only a quick look gives up"  # noqa: S101
        return pixels

    def prepare_quickly(self, encoded: bytes) -> NDArray[np.uint8] | None:
        """As `prepare`, but None for a picture that would take more than about a millisecond."""
        return self._prepare(encoded, quickly=True) if len(encoded) <= QUICK_BYTES else None

    def collate(self, rows: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Pixels of n pictures → uint8 [n, height, width, channels]."""
        return np.stack(rows)

    def _prepare(self, encoded: bytes, *, quickly: bool) -> NDArray[np.uint8] | None:
        if not encoded:
            raise Unprocessable("The picture is empty (0 bytes).")
        try:
            with Image.open(BytesIO(encoded), formats=FORMATS) as image:
                self._check_pixels(image)
                if quickly and image.width * image.height > QUICK_PIXELS:
                    return None
                return self._pixels(image)
        except UnidentifiedImageError:
            raise _unidentified(encoded) from None
        except (OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, IndexError, OverflowError) as error:
            # Pillow's decoders raise all of these on broken files
            raise Unprocessable(f"The picture cannot be decoded: {_reason(error)}.") from error
        except (MemoryError, RuntimeError, AttributeError, ZeroDivisionError, AssertionError) as error:
            raise Unprocessable("The picture cannot be decoded: its file is corrupt.") from error

    def _check_pixels(self, image: Image.Image) -> None:
        width, height = image.size
        if self._max_pixels is not None and width * height > self._max_pixels:
            raise TooLarge(
                f"The picture has {width} × {height} pixels; at most {self._max_pixels:,} are taken. Send it smaller."
            )

    def _pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        width, height = self._size
        longest = max(width, height)
        if self._spec.fit == "contain" and min(image.size) > 0:
            # the frame holds the whole picture, so its short side gets smaller than the frame
            longest = max(1, longest * min(image.size) // max(image.size))
        image.draft(None, (DRAFT_SCALE * longest, DRAFT_SCALE * longest))
        upright = _upright(image)
        opaque = _opaque(upright)
        if opaque.mode != self._mode:
            opaque = opaque.convert(self._mode)
        if opaque.size != self._size:
            opaque = self._fit(opaque)
        pixels = np.asarray(opaque)
        return pixels.reshape(height, width, self._spec.channels)

    def _fit(self, image: Image.Image) -> Image.Image:
        match self._spec.fit:
            case "cover":
                return ImageOps.fit(image, self._size, self._filter)
            case "contain":
                return ImageOps.pad(image, self._size, self._filter)
            case "fill":
                return image.resize(self._size, self._filter)


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def _opaque(image: Image.Image) -> Image.Image:
    """The picture in 8 bits a channel, what is transparent laid over white."""
    if image.mode.startswith("I;16"):
        # convert() would clip every value above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if image.mode == "I" else max(1.0, float(np.nanmax(values)))
        return Image.fromarray((np.nan_to_num(values / top).clip(0, 1) * 255).astype(np.uint8))
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha)
    return image


def _unidentified(encoded: bytes) -> UnsupportedMediaType | Unprocessable:
    allowed = "Send JPEG, PNG, WebP, GIF, BMP or TIFF."
    start = encoded[:64].lstrip()
    for name, (offset, magic) in OTHER_FORMATS.items():
        if start.startswith(magic, offset):
            return UnsupportedMediaType(f"{name} is not taken. {allowed}")
    return Unprocessable(f"These {len(encoded):,} bytes are not a picture, or it is damaged at its start. {allowed}")


def _reason(error: Exception) -> str:
    """Pillow's own words where they are a sentence for people, in one line and of a bounded length."""
    words = " ".join(str(error).split()).rstrip(".")[:120]
    return words if isinstance(error, OSError) and words else "its file is corrupt"

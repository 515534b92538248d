"""Colours: whatever a decoded picture is made of → 8 bits of sRGB or grey, nothing transparent."""

import math
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

MAX_PROFILE_BYTES = 4 * 1024 * 1024
"""A larger colour profile is ignored. Those of cameras have some kilobytes, those of presses up to three megabytes."""
CACHED_TRANSFORMS = 16
"""Most pictures carry one of a handful of profiles."""
VISIBLE = 2
"""A profile that moves no colour by more than this, of 255, is sRGB under whatever name."""

WHITES = {"I": (255.0, 65535.0, 2.0**31 - 1), "F": (1.0, 255.0, 65535.0)}
"""What may be white where the mode leaves it open: the first that no value exceeds."""

_SRGB = ImageCms.createProfile("sRGB")
_WHITE_IS_ZERO = 0


def opaque(image: Image.Image) -> Image.Image:
    """The decoded picture in a mode that can be resized, what is transparent laid over white. It keeps its `info`."""
    if image.mode in {"RGB", "L"} and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I;16"):
        flat = _wide(image)
    elif image.has_transparency_data:
        flat = _over_white(image)
    elif image.mode in {"1", "P"}:
        flat = image.convert("L" if image.mode == "1" else "RGB")
    else:
        return image
    flat.info = image.info
    return flat


def _wide(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if key is not None:
        values = np.asarray(image)
        return Image.fromarray(np.where(values == key, values.dtype.type(65535), values))
    if image.mode == "I;16B":
        # Pillow would resize it as if its bytes stood in the machine's order
        return Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode == "F" and not math.isfinite(_mean(image)):
        return Image.fromarray(np.nan_to_num(np.asarray(image), nan=0, posinf=0, neginf=0))
    return image


def _over_white(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # noqa: PLR2004
        # of 16 bits, as the file has them; Pillow has made the pixels 8
        image.info["transparency"] = tuple(value >> 8 for value in key)
    grey = image.mode in {"L", "LA"}
    white = Image.new("L" if grey else "RGB", image.size, "white")
    with_alpha = image if image.mode in {"LA", "RGBA"} else image.convert("LA" if grey else "RGBA")
    white.paste(with_alpha.convert("L") if grey else with_alpha, mask=with_alpha)
    return white


def to_srgb(image: Image.Image, *, like: Image.Image) -> Image.Image:
    """The picture in sRGB (or the like) with 8 bits a channel, by its embedded colour profile if it has one.

    A profile that is broken, too large or of another kind of picture is ignored, as browsers do.

    Args:
        image: opaque, and best already small.
        like: what it was before it got small, from which it is told what is white.
    """
    profile = image.info.get("icc_profile")
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        image = _of_8_bits(image, *_black_and_white(like))
    if image.mode == "LAB":
        profile = b""
    elif not isinstance(profile, bytes) or not 0 < len(profile) <= MAX_PROFILE_BYTES:
        return image
    transform = _transform(profile, image.mode)
    return image if transform is None else transform.apply(image)


def _of_8_bits(image: Image.Image, black: float, white: float) -> Image.Image:
    values = (np.asarray(image, dtype=np.float64) - black) / (white - black)
    return Image.fromarray(np.rint(values.clip(0, 1) * 255).astype(np.uint8))


def _black_and_white(image: Image.Image) -> tuple[float, float]:
    """The values that are black and white in a picture of one channel of more than 8 bits."""
    tags = getattr(image, "tag_v2", {})
    if image.mode in WHITES:
        top = float(image.getextrema()[1])  # type: ignore[arg-type]  # one channel
        white = next((white for white in WHITES[image.mode] if top <= white), top)
    else:
        white = 2.0 ** (12 if tags.get(BITSPERSAMPLE) == (12,) else 16) - 1
    return (white, 0.0) if tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO else (0.0, white)


@lru_cache(maxsize=CACHED_TRANSFORMS)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What brings a mode with this profile to sRGB; None where nothing can, or need."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        # a picture of some thousand pixels costs less than lcms's preparation of a large table does
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "CMYK" else ImageCms.Flags.NONE
        transform = ImageCms.buildTransform(source, _SRGB, mode, "RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode != "RGB":
        return transform
    before = _colours()
    moved = np.abs(np.asarray(transform.apply(before)).astype(int) - np.asarray(before))
    return transform if moved.max() > VISIBLE else None


def _colours() -> Image.Image:
    """Colours from all over RGB."""
    levels = np.linspace(0, 255, 9, dtype=np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3))


def _mean(image: Image.Image) -> float:
    return float(image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)))  # type: ignore[arg-type]  # one channel

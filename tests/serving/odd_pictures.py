"""One scene in every form in which a valid picture may come, and what any of them must look like."""

import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageCms

if TYPE_CHECKING:
    from collections.abc import Callable

ORIENTATION = 0x0112
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation → how an upright picture lies in such a file."""

DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
"""Red, green and blue in the profile's XYZ (D50), as Apple's profile has them."""
SWAPPED = ((0.3851, 0.7169, 0.0971), (0.4361, 0.2225, 0.0139), (0.1431, 0.0606, 0.7141))
"""sRGB with red and green exchanged: whoever ignores this profile sees other colours."""


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    # a saved image remembers how, and the next format stumbles over it
    frames = (
        {"append_images": [frame.copy() for frame in options["append_images"]]} if "append_images" in options else {}
    )
    image.copy().save(buffer, kind, **options | frames)
    return buffer.getvalue()


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """Orange-red above dark red, with a grey left edge: every turn and every exchange of colours can be seen."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2] = (230, 60, 20)
    pixels[height // 2 :] = (120, 20, 10)
    pixels[:, : width // 4] = (128, 128, 128)
    return Image.fromarray(pixels)


def with_exif(orientation: int) -> dict[str, Any]:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return {"exif": exif}


def turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(STORED[orientation]) if orientation in STORED else image


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(image: np.ndarray[Any, Any], colour: int, depth: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG of big-endian samples [height, width, channels], with chunks before its pixels."""
    height, width = image.shape[:2]
    passes = [image]
    if interlaced:  # Adam7
        starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        passes = [image[y::dy, x::dx] for y, x, dy, dx in starts]
    rows = b"".join(b"\0" + row.tobytes() for part in passes for row in part if part.size)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *chunks,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def matrix_profile(primaries: tuple[tuple[float, ...], ...], gamma: float = 2.2) -> bytes:
    """An ICC profile of three primaries and one gamma."""
    tags = {b"wtpt": _xyz(0.9642, 1.0, 0.8249)}
    for name, primary in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        tags[name] = _xyz(*primary)
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        tags[name] = _gamma(gamma)
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"kTRC": _gamma(gamma)})


def cmyk_profile() -> bytes:
    """A press whose inks are those of the naive formula, so that a converter that reads it changes little."""
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 255 / 8).round().astype(int)] * 4, indexing="ij"), -1).reshape(
        -1, 4
    )
    rgb = (255 - grid[:, :3]) * (255 - grid[:, 3:]) // 255
    image = Image.fromarray(rgb.astype(np.uint8).reshape(1, -1, 3))
    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    # lut8: input, output channels, grid points; identity matrix; straight curves
    table = b"mft1" + bytes(4) + bytes([4, 3, 9, 0]) + struct.pack(">9i", *(np.eye(3, dtype=int) * 65536).flat)
    table += (
        bytes(range(256)) * 4 + (np.asarray(lab) ^ np.array([0, 128, 128], np.uint8)).tobytes() + bytes(range(256)) * 3
    )
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"A2B0": table})


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _gamma(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79),
        b"cprt": b"text" + bytes(4) + b"none\0" + bytes(3),
        **tags,
    }
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    header = struct.pack(
        ">I4sI4s4s4s12s4s", at + len(body), bytes(4), 0x02400000, kind, space, connection, bytes(12), b"acsp"
    )
    header += bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + table + body


def _in_profile(image: Image.Image, profile: bytes, mode: str = "RGB") -> Image.Image:
    """The numbers that mean the same colours in another profile."""
    source, target = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(BytesIO(profile))
    converted = ImageCms.profileToProfile(image, source, target, outputMode=mode)
    assert converted is not None
    return converted


def _palette(image: Image.Image) -> Image.Image:
    return image.quantize(16, dither=Image.Dither.NONE)


def _over_white(image: Image.Image) -> Image.Image:
    """RGBA that gives the image again when it lies over white: a third as transparent as its colours allow."""
    pixels = np.asarray(image).astype(float)
    alpha = 1 - pixels.min(-1, keepdims=True) / 255 * 0.9
    colours = (pixels - 255 * (1 - alpha)) / alpha
    return Image.fromarray(np.concatenate([colours, alpha * 255], -1).round().clip(0, 255).astype(np.uint8))


def _deep(image: Image.Image) -> np.ndarray[Any, Any]:
    """16 bits a sample, big-endian, as PNG wants them."""
    return (np.asarray(image).astype(np.uint16) * 257).astype(">u2")


def _top_down(bmp: bytes) -> bytes:
    (start,) = struct.unpack_from("<I", bmp, 10)
    (height,) = struct.unpack_from("<i", bmp, 22)
    stride = (len(bmp) - start) // height
    rows = [bmp[start + row * stride : start + (row + 1) * stride] for row in range(height)]
    return bmp[:22] + struct.pack("<i", -height) + bmp[26:start] + b"".join(reversed(rows))


def _tiled_tiff(image: Image.Image, side: int = 16) -> bytes:
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    pixels = np.pad(pixels, ((0, -height % side), (0, -width % side), (0, 0)))
    tiles = [
        pixels[y : y + side, x : x + side].tobytes() for y in range(0, height, side) for x in range(0, width, side)
    ]
    count, size = len(tiles), side * side * 3
    fields = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3)]
    after = 8 + 2 + 12 * 11 + 4
    fields[2] = (258, 3, 3, after)
    fields += [(322, 3, 1, side), (323, 3, 1, side), (324, 4, count, after + 6), (325, 4, count, after + 6 + 4 * count)]
    fields += [(339, 3, 1, 1)]
    data = after + 6 + 8 * count
    return b"".join(
        [
            b"II*\0" + struct.pack("<IH", 8, len(fields)),
            *(struct.pack("<HHII", *field) for field in fields),
            bytes(4) + struct.pack("<3H", 8, 8, 8),
            struct.pack(f"<{count}I", *range(data, data + count * size, size)),
            struct.pack(f"<{count}I", *[size] * count),
            *tiles,
        ]
    )


def _tiff_orientation(image: Image.Image, orientation: int, **options: Any) -> bytes:
    return encode(turned(image, orientation), "TIFF", tiffinfo={ORIENTATION: orientation}, **options)


def coloured(image: Image.Image) -> dict[str, bytes]:
    """The image in every form that holds its colours: name → file."""
    cmyk = Image.fromarray(255 - np.asarray(image)).convert("RGB")
    inks = Image.merge("CMYK", [*cmyk.split(), Image.new("L", image.size, 0)])
    other = Image.new("RGB", image.size, "blue")
    p3, swapped, press = matrix_profile(DISPLAY_P3), matrix_profile(SWAPPED), cmyk_profile()
    animated = {"save_all": True, "append_images": [other]}
    lossless: dict[str, Any] = {"lossless": True}
    jpeg: dict[str, Any] = {"quality": 95, "subsampling": 0}
    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    forms: dict[str, Callable[[], bytes]] = {
        "jpeg": lambda: encode(image, "JPEG", **jpeg),
        "jpeg-420": lambda: encode(image, "JPEG", quality=90),
        "jpeg-progressive": lambda: encode(image, "JPEG", progressive=True, **jpeg),
        "jpeg-restarts": lambda: encode(image, "JPEG", restart_marker_blocks=1, **jpeg),
        "jpeg-kept-rgb": lambda: encode(image, "JPEG", keep_rgb=True, quality=95),
        "jpeg-cmyk-inverted": lambda: encode(inks, "JPEG", quality=95),
        "jpeg-cmyk-profile": lambda: encode(inks, "JPEG", quality=95, icc_profile=press),
        "jpeg-display-p3": lambda: encode(_in_profile(image, p3), "JPEG", icc_profile=p3, **jpeg),
        "jpeg-swapped-profile": lambda: encode(_in_profile(image, swapped), "JPEG", icc_profile=swapped, **jpeg),
        "jpeg-broken-profile": lambda: encode(image, "JPEG", icc_profile=b"no profile", **jpeg),
        "jpeg-grey-profile-on-colours": lambda: encode(image, "JPEG", icc_profile=grey_profile(1.0), **jpeg),
        "jpeg-broken-exif": lambda: encode(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", **jpeg),
        "mpo": lambda: encode(image, "MPO", quality=95, **animated),
        "png": lambda: encode(image, "PNG"),
        "png-interlaced": lambda: png(np.asarray(image), 2, 8, interlaced=True),
        "png-palette": lambda: encode(_palette(image), "PNG"),
        "png-palette-4-bit": lambda: encode(_palette(image), "PNG", bits=4),
        "png-palette-trns": lambda: encode(_over_white(image).quantize(64), "PNG"),
        "png-rgba": lambda: encode(_over_white(image), "PNG"),
        "png-16-bit": lambda: png(_deep(image), 2, 16),
        "png-16-bit-interlaced": lambda: png(_deep(image), 2, 16, interlaced=True),
        "png-16-bit-rgba": lambda: png(_deep(_over_white(image)), 6, 16),
        "png-16-bit-trns": lambda: png(_deep(image), 2, 16, chunk(b"tRNS", struct.pack(">3H", 256, 512, 1))),
        "png-swapped-profile": lambda: encode(_in_profile(image, swapped), "PNG", icc_profile=swapped),
        "png-rgba-swapped-profile": lambda: encode(
            _over_white(_in_profile(image, swapped)), "PNG", icc_profile=swapped
        ),
        "png-broken-profile": lambda: png(np.asarray(image), 2, 8, chunk(b"iCCP", b"name\0\0not deflated")),
        "png-broken-exif": lambda: png(np.asarray(image), 2, 8, chunk(b"eXIf", b"nothing")),
        "apng": lambda: encode(image, "PNG", **animated),
        "apng-with-a-default-image": lambda: encode(image, "PNG", default_image=True, **animated),
        "webp": lambda: encode(image, "WEBP", quality=95),
        "webp-lossless": lambda: encode(image, "WEBP", **lossless),
        "webp-alpha": lambda: encode(_over_white(image), "WEBP", exact=True, **lossless),
        "webp-animated": lambda: encode(image, "WEBP", **lossless, **animated),
        "webp-swapped-profile": lambda: encode(_in_profile(image, swapped), "WEBP", icc_profile=swapped, **lossless),
        "gif": lambda: encode(_palette(image), "GIF"),
        "gif-interlaced": lambda: encode(_palette(image), "GIF", interlace=1),
        "gif-animated-local-palettes": lambda: encode(_palette(image), "GIF", **animated),
        "bmp": lambda: encode(image, "BMP"),
        "bmp-top-down": lambda: _top_down(encode(image, "BMP")),
        "bmp-32-bit": lambda: encode(image.convert("RGBA"), "BMP"),
        "bmp-palette": lambda: encode(_palette(image), "BMP"),
        "tiff": lambda: encode(image, "TIFF"),
        "tiff-big": lambda: encode(image, "TIFF", big_tiff=True),
        "tiff-tiled": lambda: _tiled_tiff(image),
        "tiff-cmyk": lambda: encode(inks, "TIFF"),
        "tiff-cmyk-profile": lambda: encode(inks, "TIFF", icc_profile=press),
        "tiff-lab": lambda: encode(lab, "TIFF"),
        "tiff-ycbcr": lambda: encode(image.convert("YCbCr"), "TIFF"),
        "tiff-jpeg": lambda: encode(image, "TIFF", compression="jpeg", quality=95),
        "tiff-palette": lambda: encode(_palette(image), "TIFF"),
        "tiff-rgba": lambda: encode(_over_white(image), "TIFF"),
        "tiff-pages": lambda: encode(image, "TIFF", **animated),
        "tiff-swapped-profile": lambda: encode(_in_profile(image, swapped), "TIFF", icc_profile=swapped),
    }
    files = {name: form() for name, form in forms.items()}
    for compression in ("packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate"):
        files[f"tiff-{compression}"] = encode(image, "TIFF", compression=compression)
    for orientation in range(1, 9):
        exif, stored = with_exif(orientation), turned(image, orientation)
        files[f"jpeg-exif-{orientation}"] = encode(stored, "JPEG", **exif, **jpeg)
        files[f"png-exif-{orientation}"] = encode(stored, "PNG", **exif)
        files[f"webp-exif-{orientation}"] = encode(stored, "WEBP", **exif, **lossless)
        files[f"tiff-{orientation}"] = _tiff_orientation(image, orientation)
        files[f"tiff-lzw-{orientation}"] = _tiff_orientation(image, orientation, compression="tiff_lzw")
    return files


def grey(image: Image.Image) -> dict[str, bytes]:
    """A grey image (mode L) in every form that holds its values: name → file."""
    values = np.asarray(image)
    deep = values.astype(np.uint16) * 257
    profile = grey_profile(1.8)
    other = Image.fromarray((((values / 255) ** (2.2 / 1.8)) * 255).round().astype(np.uint8))
    twelve = values.astype(int) * 4095 // 255
    return {
        "jpeg": encode(image, "JPEG", quality=95),
        "png": encode(image, "PNG"),
        "png-16-bit": encode(Image.fromarray(deep), "PNG"),
        "png-alpha": encode(Image.merge("LA", [image, Image.new("L", image.size, 255)]), "PNG"),
        "png-16-bit-alpha": png(np.stack([deep, np.full_like(deep, 65535)], -1).astype(">u2"), 4, 16),
        "png-16-bit-trns": png(deep[..., None].astype(">u2"), 0, 16, chunk(b"tRNS", struct.pack(">H", 1))),
        "png-grey-profile": encode(other, "PNG", icc_profile=profile),
        "tiff-16-bit": encode(Image.fromarray(deep), "TIFF"),
        "tiff-16-bit-lzw": encode(Image.fromarray(deep), "TIFF", compression="tiff_lzw"),
        "tiff-16-bit-big-endian": _big_endian_tiff(deep),
        "tiff-16-bit-white-is-zero": _white_is_zero(encode(Image.fromarray(65535 - deep), "TIFF")),
        "tiff-12-bit": _twelve_bit_tiff(twelve, image.size),
        "tiff-32-bit": encode(Image.fromarray(deep.astype(np.int32)), "TIFF"),
        "tiff-32-bit-of-bytes": encode(image.convert("I"), "TIFF"),
        "tiff-float": encode(Image.fromarray((values / 255).astype(np.float32)), "TIFF"),
        "tiff-float-of-bytes": encode(image.convert("F"), "TIFF"),
        "bmp": encode(image, "BMP"),
        "gif": encode(image, "GIF"),
        "webp": encode(image.convert("RGB"), "WEBP", lossless=True),
    }


def _white_is_zero(tiff: bytes) -> bytes:
    """The photometric interpretation 1 (black is zero) set to 0."""
    entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert tiff.count(entry) == 1
    return tiff.replace(entry, struct.pack("<HHIHH", 262, 3, 1, 0, 0))


def _big_endian_tiff(values: np.ndarray[Any, Any]) -> bytes:
    return _grey_tiff(values.shape[::-1], 16, values.astype(">u2").tobytes(), ">")


def _twelve_bit_tiff(values: np.ndarray[Any, Any], size: tuple[int, ...]) -> bytes:
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1)
    return _grey_tiff(size, 12, packed.astype(np.uint8).tobytes(), "<")


def _grey_tiff(size: tuple[int, ...], bits: int, data: bytes, order: str) -> bytes:
    width, height = size
    numbers = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (277, 1), (278, height)]
    place = 8 + 2 + 12 * (len(numbers) + 2) + 4
    fields = [struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in numbers]
    fields.insert(5, struct.pack(order + "HHII", 273, 4, 1, place))
    fields.append(struct.pack(order + "HHII", 279, 4, 1, len(data)))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(fields))
    return head + b"".join(fields) + bytes(4) + data

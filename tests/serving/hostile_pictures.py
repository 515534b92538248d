"""Files that want to do harm, or are merely broken: every format × every fault, always the same ones.

`broken()` may be read or refused, `bombs()` must be refused, `harmless()` look dangerous and must be read. None takes
more than a second or a few megabytes to make, and none is larger than a request may be by default.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from tests.serving.odd_pictures import chunk, encode, scene

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {}),
    "jpeg-progressive": ("JPEG", {"progressive": True}),
    "mpo": ("MPO", {"save_all": True, "append_images": [scene(16, 16)]}),
    "png": ("PNG", {}),
    "apng": ("PNG", {"save_all": True, "append_images": [scene(48, 32).rotate(180)]}),
    "webp": ("WEBP", {}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff-big": ("TIFF", {"big_tiff": True}),
}
CUTS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)


def good() -> bytes:
    return encode(scene(48, 32), "PNG")


def broken() -> dict[str, bytes]:
    """Files that somebody damaged: name → file."""
    random = np.random.default_rng(7)
    files: dict[str, bytes] = {}
    for name, (kind, options) in FORMATS.items():
        whole = encode(scene(48, 32), kind, **options)
        for cut in CUTS:
            files[f"{name}-cut-at-{cut}"] = whole[: int(len(whole) * cut)]
        files[f"{name}-without-its-last-byte"] = whole[:-1]
        files[f"{name}-zeros-from-the-middle"] = whole[: len(whole) // 2].ljust(len(whole), b"\0")
        files[f"{name}-ones-from-the-middle"] = whole[: len(whole) // 2].ljust(len(whole), b"\xff")
        files[f"{name}-twice"] = whole + whole
        files[f"{name}-of-noise"] = whole[:16] + random.bytes(4000)
        for share in (0.005, 0.05):
            noisy = np.frombuffer(whole, np.uint8).copy()
            at = random.random(len(noisy)) < share
            noisy[at] = random.integers(0, 256, at.sum())
            files[f"{name}-noisy-{share}"] = noisy.tobytes()
        files[f"{name}-in-reverse-after-its-head"] = whole[:12] + whole[:11:-1]
    return files


def not_pictures() -> dict[str, bytes]:
    """What is no picture of a format on the allow-list: name → file."""
    random = np.random.default_rng(8)
    image = scene(16, 16)
    files = {
        "nothing": b"",
        "one-byte": b"\0",
        "text": b"BMW makes cars.\n" * 10,
        "tagged-text": b"II is not always a TIFF.",
        "html": b"<!doctype html><img src=x onerror=alert(1)>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n",
        "postscript-from-dos": b"\xc5\xd0\xd3\xc6" + bytes(60),
        "wmf": b"\xd7\xcd\xc6\x9a" + bytes(60),
        "emf": struct.pack("<II", 1, 88) + bytes(32) + b" EMF" + bytes(44),
        "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj",
        "zip": b"PK\x03\x04" + bytes(60),
        "gzip": zlib.compress(bytes(10**6), wbits=31),
        "elf": b"\x7fELF" + bytes(60),
        "noise": random.bytes(10_000),
        "zeros": bytes(100_000),
        "heic": b"\0\0\0\x18ftypheic" + bytes(60),
        "jpeg-xl": b"\0\0\0\x0cJXL \r\n\x87\n",
        "photoshop": b"8BPS\0\x01" + bytes(60),
        "fits": b"SIMPLE  =                    T".ljust(2880),
        "xbm": b"#define a_width 8\n#define a_height 8\nstatic char a_bits[] = {0,0,0,0,0,0,0,0};",
        "riff-wave": b"RIFF\x24\0\0\0WAVEfmt " + bytes(60),
    }
    for kind in ("AVIF", "ICO", "JPEG2000", "PPM", "TGA", "PCX", "SGI", "DDS", "ICNS", "QOI"):
        files[f"a-good-{kind.lower()}"] = encode(image, kind)
    for name in ("jpeg", "png", "webp", "gif", "bmp", "tiff"):
        kind, options = FORMATS[name]
        files[f"{name}-after-a-script"] = b"#!/bin/sh\nexit\n" + encode(image, kind, **options)
        files[f"{name}-only-its-signature"] = encode(image, kind, **options)[: {"jpeg": 3, "bmp": 2}.get(name, 8)]
    return files


def bombs() -> dict[str, bytes]:
    """Files that ask for far more than they are worth, or for what nobody gives: name → file."""
    return dict([*_jpeg_bombs(), *_png_bombs(), *_webp_bombs(), *_gif_bombs(), *_bmp_bombs(), *_tiff_bombs()])


def harmless() -> dict[str, bytes]:
    """Files that look like bombs and are not: name → file."""
    whole, image = good(), scene(48, 32)
    html = b"<script>alert(1)</script>"
    endless = struct.pack(">II", 2**31 - 1, 0)
    frames = [Image.new("P", (1, 1), index % 2) for index in range(500)]
    tiff = encode(image, "TIFF")
    return {
        "jpeg-with-html-inside": encode(image, "JPEG", comment=html),
        "png-then-zip": whole + b"PK\x03\x04" + bytes(60),
        "gif-then-html": encode(image, "GIF") + html,
        "jpeg-then-pdf": encode(image, "JPEG") + b"%PDF-1.7",
        "png-of-endless-frames": whole[:33] + chunk(b"acTL", endless) + whole[33:],
        "png-inflating-beyond-its-size": _png(32, 32, zlib.compress(bytes(50_000_000), 9)),
        "gif-of-500-frames": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "webp-of-many-frames": _frames_of_webp(5000),
        "tiff-directory-that-is-its-own-next": _next_directory(tiff, 8),
        "tiff-next-directory-beyond-its-end": _next_directory(tiff, 2**32 - 1),
        "jpeg-with-exif-that-is-its-own-subdirectory": encode(
            image, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 34665, 4, 1, 8) + bytes(4)
        ),
    }


def _jpeg_bombs() -> Iterator[tuple[str, bytes]]:
    baseline, progressive = encode(scene(48, 32), "JPEG"), encode(scene(48, 32), "JPEG", progressive=True)
    for name, whole in (("jpeg", baseline), ("jpeg-progressive", progressive)):
        frame = whole.index(b"\xff\xc0" if whole is baseline else b"\xff\xc2")
        scan = whole.index(b"\xff\xda")
        segment = struct.pack(">H", 65_000) + bytes(64_998)
        for what, size in (
            ("pixels", (65_500, 65_500)),
            ("width", (1, 65_535)),
            ("height-0", (0, 64)),
            ("width-0", (64, 0)),
        ):
            yield f"{name}-{what}", whole[: frame + 5] + struct.pack(">HH", *size) + whole[frame + 9 :]
        yield f"{name}-segments", whole[:2] + b"\xff\xfe\0\x02" * 500_000 + whole[2:]
        yield f"{name}-hidden-segments", whole[:2] + b"\xff\xf0\xff\xff" + b"\xff\xfe\0\x02" * 500_000 + whole[2:]
        yield f"{name}-strays", whole[:2] + bytes(3_000_000) + whole[2:]
        yield f"{name}-fill-bytes", whole[:2] + b"\xff" * 3_000_000 + whole[2:]
        yield f"{name}-exif", whole[:2] + (b"\xff\xe1" + segment.replace(bytes(6), b"Exif\0\0", 1)) * 20 + whole[2:]
        yield f"{name}-exif-entries", _with_exif(whole, struct.pack("<H", 5000) + bytes(60_000))
        yield f"{name}-12-bit", whole[: frame + 4] + b"\x0c" + whole[frame + 5 :]
        yield f"{name}-5-layers", whole[: frame + 9] + b"\x05" + whole[frame + 10 :]
        yield f"{name}-no-pixels", whole[:scan]
    end = progressive.rindex(b"\xff\xda")
    yield "jpeg-scans", progressive[:-2] + progressive[end:-2] * 5000 + b"\xff\xd9"
    # one layer, and again and again
    layer = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    at = baseline.index(b"\xff\xda")
    yield "jpeg-scans-of-one-layer", baseline[:at] + (layer + baseline[at + 14 : -2]) * 5000 + b"\xff\xd9"
    hidden = b"\xff\xfe\0\x04\xff\xd9"
    yield "jpeg-scans-behind-a-false-end", progressive[:-2] + (hidden + progressive[end:-2]) * 5000 + b"\xff\xd9"


def _with_exif(jpeg: bytes, directory: bytes) -> bytes:
    exif = b"Exif\0\0II*\0\x08\0\0\0" + directory
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def _png(width: int, height: int, data: bytes, *chunks: bytes, colour: int = 2, depth: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")])


def _png_bombs() -> Iterator[tuple[str, bytes]]:
    rows = zlib.compress(bytes(32 * (1 + 32 * 3)))
    inflating = zlib.compress(bytes(100_000_000), 9)
    yield "png-pixels", _png(60_000, 60_000, zlib.compress(bytes(10**6)))
    yield "png-pixels-of-one-bit", _png(200_000, 200_000, inflating, colour=0, depth=1)
    yield "png-largest-size", _png(2**31 - 1, 2**31 - 1, rows)
    yield "png-width-0", _png(0, 32, rows)
    yield "png-height-0", _png(32, 0, rows)
    yield "png-unknown-colour", _png(32, 32, rows, colour=5)
    yield "png-unknown-filter", _png(32, 32, zlib.compress(b"\x09" * (32 * 97)))
    yield "png-not-deflated", _png(32, 32, b"not deflated")
    yield "png-zTXt", _png(32, 32, rows, chunk(b"zTXt", b"a\0\0" + inflating))
    yield "png-iTXt", _png(32, 32, rows, chunk(b"iTXt", b"a\0\x01\0\0\0" + inflating))
    yield "png-iCCP", _png(32, 32, rows, chunk(b"iCCP", b"a\0\0" + inflating))
    megabyte = zlib.compress(bytes(1_000_000))
    yield "png-many-zTXt", _png(32, 32, rows, chunk(b"zTXt", b"a\0\0" + megabyte) * 2000)
    yield "png-zTXt-after-its-pixels", _png(32, 32, rows)[:-12] + chunk(b"zTXt", b"a\0\0" + megabyte) * 2000
    yield "png-chunks", _png(32, 32, rows, chunk(b"teSt", b"") * 500_000)
    yield "png-empty-pixel-chunks", _png(32, 32, b"", chunk(b"IDAT", b"") * 500_000)
    yield "png-eXIf", _png(32, 32, rows, chunk(b"eXIf", b"II*\0\x08\0\0\0" + bytes(2_000_000)))
    yield "png-eXIf-entries", _png(32, 32, rows, chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + bytes(800_000)))
    yield "png-wrong-checksum", _png(32, 32, rows).replace(b"IHDR", b"IHDR\0", 1)
    yield "png-endless-chunk", _png(32, 32, rows, b"\xff\xff\xff\xffteSt")


def _webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _canvas(flags: int, width: int, height: int) -> bytes:
    return bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def _frames_of_webp(count: int) -> bytes:
    lossless = encode(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    frame = bytes(6) + bytes(6) + bytes(3) + b"\0" + lossless
    return _webp((b"VP8X", _canvas(2, 1, 1)), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * count)


def _webp_bombs() -> Iterator[tuple[str, bytes]]:
    lossy, lossless = encode(scene(48, 32), "WEBP")[20:], encode(scene(48, 32), "WEBP", lossless=True)[20:]
    yield "webp-canvas", _webp((b"VP8X", _canvas(2, 2**24, 2**24)), (b"ANIM", bytes(6)))
    yield "webp-canvas-around-a-small-frame", _webp((b"VP8X", _canvas(0, 60_000, 60_000)), (b"VP8 ", lossy))
    yield "webp-pixels", _webp((b"VP8 ", lossy[:6] + b"\xff\x3f\xff\x3f" + lossy[10:]))
    yield "webp-lossless-pixels", _webp((b"VP8L", b"\x2f\xff\xff\xff\x0f" + lossless[5:]))
    yield "webp-width-0", _webp((b"VP8 ", lossy[:6] + b"\0\0\x20\0" + lossy[10:]))
    yield "webp-exif", _webp((b"VP8X", _canvas(8, 48, 32)), (b"VP8 ", lossy), (b"EXIF", b"II*\0" + bytes(2_000_000)))
    yield "webp-no-pixels", _webp((b"VP8X", _canvas(0, 48, 32)))
    yield "webp-of-another-size", _webp((b"VP8X", _canvas(0, 480, 320)), (b"VP8 ", lossy))


def _gif_bombs() -> Iterator[tuple[str, bytes]]:
    head, frame = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0), b"," + struct.pack("<HHHHB", 0, 0, 8, 8, 0)
    pixels = b"\x08\x02\x80\0\0;"
    yield "gif-screen", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + frame + pixels
    yield "gif-frame", head + b"," + struct.pack("<HHHHB", 65_535, 65_535, 65_535, 65_535, 0) + pixels
    disposed = b"!\xf9\x04\x08" + bytes(4)  # to be cleared after it was shown: all of it is allocated on opening
    yield "gif-disposed", head + disposed + b"," + struct.pack("<HHHHB", 0, 0, 65_524, 65_528, 0) + pixels
    yield "gif-comment", head + b"!\xfe" + b"\x01 " * 1_000_000 + b"\0" + frame + pixels
    yield "gif-extensions", head + b"!\xf9\0" * 1_000_000 + frame + pixels
    yield "gif-strays", head + b"?" * 3_000_000 + frame + pixels
    yield "gif-no-frame", head + b";"
    yield "gif-width-0", b"GIF89a" + bytes(7) + b"," + bytes(9) + pixels
    yield "gif-code-of-99-bits", head + frame + b"\x63" + pixels[1:]
    yield "gif-code-beyond-the-table", head + frame + b"\x02\x04\xff\xff\xff\xff\0;"


def _bmp(
    width: int, height: int, *, bits: int = 24, compression: int = 0, data: bytes = b"", colours: int = 0
) -> bytes:
    palette = bytes(1024 if bits <= 8 else 0)
    head = struct.pack("<2sIHHI", b"BM", 54 + len(palette) + len(data), 0, 0, 54 + len(palette))
    return (
        head
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, colours, 0)
        + palette
        + data
    )


def _bmp_bombs() -> Iterator[tuple[str, bytes]]:
    yield "bmp-pixels", _bmp(2**31 - 1, 2**31 - 1)
    yield "bmp-lowest-height", _bmp(8, -(2**31))
    yield "bmp-width-0", _bmp(0, 8)
    yield "bmp-height-0", _bmp(8, 0)
    yield "bmp-negative-width", _bmp(-8, 8, data=bytes(192))
    yield "bmp-no-pixels", _bmp(8, 8)
    yield "bmp-7-bits", _bmp(8, 8, bits=7, data=bytes(192))
    yield "bmp-unknown-compression", _bmp(8, 8, compression=9, data=bytes(192))
    yield "bmp-colours", _bmp(8, 8, bits=8, colours=2**31)
    yield "bmp-runs", _bmp(1900, 1900, bits=8, compression=1, data=b"\x01\x01" * 5_000_000)
    yield "bmp-runs-of-nothing", _bmp(8, 8, bits=8, compression=1, data=b"\x01\x01" * 5_000_000)
    yield "bmp-one-long-row", _bmp(3_900_000, 1, bits=8, compression=1, data=b"\x01\x01\0\0")
    yield "bmp-jumps", _bmp(1_900_000, 2, bits=8, compression=1, data=b"\0\x02\xff\xff" * 100)
    yield "bmp-header-of-2-gigabytes", b"BM" + bytes(12) + struct.pack("<I", 2**31) + bytes(60)


def _tiff(*fields: tuple[int, int, int, int], data: bytes = b"", entries: int | None = None) -> bytes:
    """A TIFF of some fields (tag, kind, count, value), whose data start at `_tiff_data(fields)`."""
    count = len(fields) if entries is None else entries
    packed = b"".join(struct.pack("<HHII", *field) for field in sorted(fields))
    return b"II*\0" + struct.pack("<IH", 8, count) + packed + bytes(4) + data


def _tiff_bombs() -> Iterator[tuple[str, bytes]]:
    def picture(width: int = 32, height: int = 32, data: bytes = bytes(32 * 32), **changes: Any) -> bytes:
        fields: dict[str, tuple[int, int, int]] = {
            "t256": (4, 1, width),
            "t257": (4, 1, height),
            "t258": (3, 1, 8),
            "t259": (3, 1, 1),
            "t262": (3, 1, 1),
            "t277": (3, 1, 1),
        }
        if "t322" not in changes:
            fields |= {"t273": (4, 1, 200), "t278": (4, 1, height), "t279": (4, 1, len(data))}
        fields |= changes
        head = _tiff(*((int(name[1:]), *field) for name, field in fields.items()))
        return head.ljust(200, b"\0") + data

    many = 300_000
    yield "tiff-pixels", picture(2**31, 2**31)
    yield "tiff-width-0", picture(0, 32)
    yield "tiff-height-0", picture(32, 0)
    yield "tiff-no-pixels", picture(data=b"")
    yield "tiff-entries", b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 65_000, 3, 1, 1) * 65_535
    yield "tiff-big-entries", b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(2_000_000)
    yield (
        "tiff-subdirectory-of-many-entries",
        picture(t34665=(4, 1, 200), data=b"\xff\xff" + struct.pack("<HHII", 700, 3, 1, 1) * 65_535),
    )
    chain = b"".join(
        struct.pack("<H", 1) + struct.pack("<HHII", 34665, 4, 1, 200 + 18 * (index + 1)) + bytes(4)
        for index in range(100)
    )
    yield "tiff-subdirectories", picture(t34665=(4, 1, 200), data=chain)
    for name, compression in (
        ("old-jpeg", 6),
        ("jpeg-of-nothing", 7),
        ("lzma", 34925),
        ("zstd", 50000),
        ("webp", 50001),
    ):
        yield f"tiff-{name}", picture(t259=(3, 1, compression))
    yield "tiff-unknown-compression", picture(t259=(3, 1, 99))
    places = struct.pack(f"<{many}I", *[200] * many)
    yield "tiff-strips", picture(t273=(4, many, 200), t279=(4, many, 200), data=places)
    few = 150_000
    shared = struct.pack(f"<{few}I", *[200] * few).ljust(1_200_000, b"\0")
    for name, compression in (("", 1), ("-deflate", 8)):
        yield (
            f"tiff-strips-of-the-same-bytes{name}",
            picture(
                1000,
                1000,
                t259=(3, 1, compression),
                t273=(4, few, 200),
                t278=(4, 1, 999),
                t279=(4, few, 200),
                data=shared,
            ),
        )
    tile: dict[str, Any] = {"t324": (4, 1, 200), "t325": (4, 1, 1000)}
    yield "tiff-huge-tile", picture(t322=(4, 1, 60_000), t323=(4, 1, 60_000), **tile)
    inflating = zlib.compress(bytes(100_000_000), 9)
    yield (
        "tiff-huge-deflate-tile",
        picture(t259=(3, 1, 8), t322=(4, 1, 60_000), t323=(4, 1, 60_000), data=inflating, **tile),
    )
    yield "tiff-tiles-of-nothing", picture(t322=(4, 1, 0), t323=(4, 1, 0), **tile)
    yield "tiff-samples", picture(t277=(3, 1, 65_535))
    yield "tiff-bits", picture(t258=(3, 1, 65_535))
    yield "tiff-no-size", _tiff((259, 3, 1, 1))
    yield "tiff-size-twice", _tiff((256, 4, 1, 32), (256, 4, 1, 2**31), (257, 4, 1, 32))
    yield "tiff-pixels-beyond-its-end", picture(t273=(4, 1, 2**31))
    yield "tiff-directory-beyond-its-end", b"II*\0\xff\xff\xff\x7f" + bytes(60)
    yield "tiff-numbers", picture(t65000=(3, 2_000_000, 200), data=bytes(4_000_000))
    yield "tiff-not-deflated", picture(t259=(3, 1, 8), data=b"not deflated" * 9)


def _next_directory(tiff: bytes, offset: int) -> bytes:
    (at,) = struct.unpack_from("<I", tiff, 4)
    (entries,) = struct.unpack_from("<H", tiff, at)
    end = at + 2 + 12 * entries
    return tiff[:end] + struct.pack("<I", offset) + tiff[end + 4 :]

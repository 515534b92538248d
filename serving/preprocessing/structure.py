"""What a picture's file says of its own make, read before a decoder sees it: a bomb is refused without being lit.

Pillow and the libraries under it bound what one picture may be, but not how much work its file may ask for: thousands
of scans, chunks, directory entries or strips, each small, each costly. Nothing is decoded here. A file whose structure
is broken passes: that it cannot be decoded, and why, is the decoder's to say.
"""

import re
from contextlib import suppress
from struct import Struct, error, unpack_from

from PIL.TiffImagePlugin import (
    COMPRESSION,
    IMAGELENGTH,
    IMAGEWIDTH,
    PLANAR_CONFIGURATION,
    ROWSPERSTRIP,
    SAMPLESPERPIXEL,
    STRIPOFFSETS,
    TILELENGTH,
    TILEOFFSETS,
    TILEWIDTH,
)

from serving.preprocessing.jpeg import PlainJpeg
from serving.problems import TooLarge, Unprocessable, UnsupportedMediaType

SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WebP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II|MM"),
}
"""How a file of each format on the allow-list starts."""

MAX_SCANS = 100
"""Scans of one JPEG. Each costs a pass over all of its pixels and may be nearly empty, so libjpeg-turbo's authors ask
callers for a limit ("Two Issues with the JPEG Standard", 2015). This is libtiff's own; encoders write 3 to 20."""
MAX_SEGMENTS = 1024
"""Segments before a JPEG's first scan: Pillow appends those of EXIF to each other one by one."""
MAX_STRAYS = 1024
"""Bytes that belong to nothing between two segments of a JPEG: Pillow skips them one by one."""
MAX_BLOCKS = 16_384
"""Chunks of a PNG, segments between a JPEG's scans, sub-blocks (or strays) before a GIF's first frame: Pillow spends
up to a microsecond on each."""
MAX_INFLATING = 32
"""Compressed chunks beside a PNG's pixels. Pillow inflates each to at most a megabyte."""
MAX_EXIF_BYTES = 1_000_000
"""A JPEG segment holds 64 kB of it; the other formats set no bound."""
MAX_ENTRIES = 512
"""Entries of one directory, in EXIF and in TIFF. Cameras and scanners write fewer than 100."""
MAX_VALUES = 400_000
"""Numbers in all entries of one directory: a strip's place and length each, one strip a row, leave room."""
MAXRUN_LENGTH = 1_000_000
"""Pixels, and half of the bytes, of a run-length BMP: Pillow decodes it in Python."""
MAX_PADDING = 4
"""How many times its own pixels a TIFF's tiles may hold."""
TILE_ALLOWANCE = 1024 * 1024
"""Pixels of padding that tiles may have in any case: a small picture in one tile of a usual size."""

TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}
"""None, CCITT, LZW, JPEG, Deflate, PackBits. The others bring a decoder of their own into libtiff (the old style of
JPEG, LZMA, Zstandard, WebP, LERC, camera makers'), with few honest files and much of libtiff's history of holes."""

RUN_LENGTH = {1, 2}
"""A BMP's compressions that Pillow decodes in Python."""
SCAN = b"\xff\xda"
"""What every scan of a JPEG starts with."""

_STARTS_SEGMENT = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_PLAIN = {0xC0, 0xC1, 0xC2, 0xC4, _SOS, 0xDB, 0xDD, 0xE0, 0xFE}
"""Frames of the usual kinds, tables, restart intervals, JFIF and comments: no segment that speaks of the picture."""
BITS, COLOURS = 8, 3
"""Of a plain JPEG."""
_WITHOUT_LENGTH = {*range(0xD0, 0xD8), _SOI, _EOI, 0xC8, *range(0xF0, 0xFE)}
"""As Pillow reads them: what follows is skipped byte by byte."""
_EXIF_PREFIX = b"Exif\0\0"
_LENGTH = Struct(">H")
_SIZE = Struct(">HH")
_CHUNK = Struct(">I4s")


def format_of(encoded: bytes) -> str | None:
    """The format on the allow-list that these bytes start like, or None."""
    return next((name for name, signature in SIGNATURES.items() if signature.match(encoded)), None)


def check_structure(encoded: bytes, *, max_pixels: int | None) -> PlainJpeg | None:
    """Refuse a file that asks for more work than its picture is worth.

    Args:
        encoded: a file's bytes.
        max_pixels: what the canvas or the tiles may hold; None for no limit. Decoders that allocate only when they
            decode are checked by what Pillow reads from the header.

    Returns:
        The file, if it is a plain JPEG.

    Raises:
        TooLarge: more pixels than the limit.
        UnsupportedMediaType: a TIFF with a compression that is not on the allow-list.
        Unprocessable: beyond another limit of this module.
    """
    with suppress(error, IndexError):  # cut off
        match encoded[:2]:
            case b"\xff\xd8":
                return _check_jpeg(encoded)
            case b"\x89P":
                _check_png(encoded)
            case b"RI":
                _check_webp(encoded, max_pixels)
            case b"GI":
                _check_gif(encoded, max_pixels)
            case b"BM":
                _check_bmp(encoded)
            case b"II" | b"MM":
                _check_tiff(encoded)
    return None


def check_exif(exif: bytes) -> None:
    """Refuse EXIF that is too large to be read. It may start with its JPEG prefix.

    Raises:
        Unprocessable: beyond a limit of this module.
    """
    if len(exif) > MAX_EXIF_BYTES:
        raise Unprocessable(f"The picture has {len(exif):,} bytes of EXIF; at most {MAX_EXIF_BYTES:,} are taken.")
    with suppress(error):  # cut off: Pillow reads what there is
        _check_directories(exif.removeprefix(_EXIF_PREFIX))


def check_pixels(width: int, height: int, max_pixels: int | None) -> None:
    """Refuse a picture by its size.

    Raises:
        TooLarge: more pixels than the limit.
    """
    if max_pixels is not None and width * height > max_pixels:
        raise TooLarge(f"The picture has {width} × {height} pixels; at most {max_pixels:,} are taken. Send it smaller.")


def _check_jpeg(encoded: bytes) -> PlainJpeg | None:
    at = 2
    layers = width = height = 0
    is_plain = True
    several_scans = False
    exif: list[bytes] = []
    for _ in range(MAX_SEGMENTS):
        marker = encoded[at + 1]
        if encoded[at] != 0xFF or marker in {0x00, 0xFF}:  # noqa: PLR2004  # what every marker starts with
            at = _past_strays(encoded, at)
            marker = encoded[at + 1]
            is_plain = False
        is_plain = is_plain and marker in _PLAIN
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        if marker == _SOS:
            several_scans = several_scans or encoded[at + 4] < layers
            break
        length = max(2, encoded[at + 2] << 8 | encoded[at + 3])
        if marker == _APP1:
            if encoded.startswith(_EXIF_PREFIX, at + 4):
                exif.append(encoded[at + 10 : at + 2 + length])
        elif marker in _FRAMES:
            several_scans = marker in _PROGRESSIVE
            is_plain = is_plain and not layers and encoded[at + 4] == BITS
            height, width = _SIZE.unpack_from(encoded, at + 5)
            layers = encoded[at + 9]
        at += 2 + length
    else:
        raise _too_many_blocks("JPEG")
    if exif:
        check_exif(b"".join(exif))
    if several_scans:
        _check_scans(encoded, at)
    is_plain = is_plain and layers == COLOURS and width > 0 and height > 0
    return PlainJpeg(encoded, width, height, several_scans) if is_plain else None


def _past_strays(encoded: bytes, at: int) -> int:
    segment = _next_segment(encoded, at)
    if segment - at > MAX_STRAYS:
        raise Unprocessable(f"The JPEG is corrupt: {segment - at:,} bytes that belong to nothing stand at {at:,}.")
    return segment


def _next_segment(encoded: bytes, at: int) -> int:
    """Where the next segment starts, past compressed data or what does not belong there."""
    found = _STARTS_SEGMENT.search(encoded, at)
    return found.start() if found else len(encoded)


def _check_scans(encoded: bytes, at: int) -> None:
    scans = 0
    for _ in range(MAX_BLOCKS):
        marker = encoded[at + 1]
        if marker == _EOI:
            return
        if marker == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise Unprocessable(f"The JPEG has more than {MAX_SCANS} scans. Save it anew as an ordinary one.")
        at = _next_segment(encoded, at + 2 + _LENGTH.unpack_from(encoded, at + 2)[0])
    raise _too_many_blocks("JPEG")


def _check_png(encoded: bytes) -> None:
    at = 8
    inflating = 0
    for _ in range(MAX_BLOCKS):
        length, kind = _CHUNK.unpack_from(encoded, at)
        if kind == b"IEND":
            return
        if kind in {b"zTXt", b"iTXt", b"iCCP"}:
            inflating += 1
            if inflating > MAX_INFLATING:
                raise Unprocessable(f"The PNG has more than {MAX_INFLATING} compressed texts. Save it without them.")
        at += 12 + length
    raise _too_many_blocks("PNG")


def _check_webp(encoded: bytes, max_pixels: int | None) -> None:
    """The canvas: libwebp allocates it on opening."""
    match encoded[12:16]:
        case b"VP8X":
            width, height = (1 + int.from_bytes(encoded[at : at + 3], "little") for at in (24, 27))
        case b"VP8L":
            (bits,) = unpack_from("<I", encoded, 21)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = (side & 0x3FFF for side in unpack_from("<HH", encoded, 26))
        case _:
            return
    check_pixels(width, height, max_pixels)


def _check_gif(encoded: bytes, max_pixels: int | None) -> None:
    """The first frame, too: Pillow allocates it on opening, and it may reach far beyond the canvas."""
    at = 13 + _gif_palette(encoded[10])
    blocks = 0
    while encoded[at] != ord(","):
        if encoded[at] == ord(";"):
            return
        # an extension and its sub-blocks, or one byte that does not belong there
        at += 1
        if encoded[at - 1] == ord("!"):
            at += 1
            while length := encoded[at]:
                at += 1 + length
                blocks += 1
                if blocks > MAX_BLOCKS:
                    raise _too_many_blocks("GIF")
            at += 1
        blocks += 1
        if blocks > MAX_BLOCKS:
            raise _too_many_blocks("GIF")
    left, top, width, height = unpack_from("<4H", encoded, at + 1)
    check_pixels(left + width, top + height, max_pixels)


def _gif_palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _check_bmp(encoded: bytes) -> None:
    _, width, height, _, _, compression = unpack_from("<IIiHHI", encoded, 14)
    if compression in RUN_LENGTH and max(width * abs(height), len(encoded) // 2) > MAXRUN_LENGTH:
        raise TooLarge(
            f"The BMP is run-length encoded; at most {MAXRUN_LENGTH:,} pixels of that are taken. Send it as PNG."
        )


def _check_tiff(encoded: bytes) -> None:
    first = _check_directories(encoded)
    compression = first.get(COMPRESSION, 1)
    if compression not in TIFF_COMPRESSIONS:
        raise UnsupportedMediaType(
            f"TIFF with compression {compression} is not taken. Send it uncompressed, or with LZW or Deflate."
        )
    width, height = first.get(IMAGEWIDTH, 0), first.get(IMAGELENGTH, 0)
    across, down = first.get(TILEWIDTH, width) or 1, first.get(TILELENGTH) or first.get(ROWSPERSTRIP, height) or 1
    columns, rows = -(-width // across), -(-height // down)
    if TILEWIDTH in first and columns * across * rows * down > MAX_PADDING * max(width * height, TILE_ALLOWANCE):
        raise Unprocessable(f"The TIFF's tiles of {across} × {down} pixels do not fit its {width} × {height}.")
    needed = columns * rows * (first.get(SAMPLESPERPIXEL, 1) if first.get(PLANAR_CONFIGURATION) == _PLANES else 1)
    listed = max(first.get(_COUNT | STRIPOFFSETS, 0), first.get(_COUNT | TILEOFFSETS, 0))
    # of strips that each hold the whole picture, Pillow decodes one
    if listed > needed and (across < width or down < height):
        raise Unprocessable(f"The TIFF lists {listed:,} strips or tiles of its pixels; {needed:,} are in it.")


_PLANES = 2
_COUNT = 1 << 16
_BYTES = {1, 2, 7}
_NUMBERS = {3: "H", 4: "I", 16: "Q"}
_SUBDIRECTORIES = {34665, 34853, 40965}
_MAX_DIRECTORIES = 8
_LAST_GEOMETRY = TILEOFFSETS


def _check_directories(tiff: bytes) -> dict[int, int]:
    """Check a TIFF's first directory and those that it points to; return the first one's inline numbers.

    Returns:
        tag → its value, if that is one number that stands in the entry; tag + _COUNT → how many it has.

    Raises:
        Unprocessable: too many entries or numbers, or a tag of the picture's geometry twice.
    """
    order = "<" if tiff[:1] == b"I" else ">"
    big = tiff[2:3] == b"\x2b"
    count, entry, offset = (Struct(order + fields) for fields in (("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")))
    queue = [offset.unpack_from(tiff, 8 if big else 4)[0]]
    numbers: dict[int, int] = {}
    seen: set[int] = set()
    while queue:
        at = queue.pop(0)
        if at in seen or at + count.size > len(tiff):
            continue
        seen.add(at)
        if len(seen) > _MAX_DIRECTORIES:
            raise Unprocessable(f"The picture's metadata has more than {_MAX_DIRECTORIES} directories.")
        (entries,) = count.unpack_from(tiff, at)
        if entries > MAX_ENTRIES:
            raise Unprocessable(f"The picture's metadata has {entries:,} entries; at most {MAX_ENTRIES} are taken.")
        at += count.size
        there = min(entries, (len(tiff) - at) // entry.size)
        fields = [entry.unpack_from(tiff, at + index * entry.size) for index in range(there)]
        queue += [offset.unpack(data)[0] for tag, _, _, data in fields if tag in _SUBDIRECTORIES]
        values = sum(number for _, kind, number, _ in fields if kind not in _BYTES)
        if values > MAX_VALUES:
            raise Unprocessable(f"The picture's metadata has {values:,} numbers; at most {MAX_VALUES:,} are taken.")
        if len(seen) == 1:
            numbers = _numbers(fields, order)
    return numbers


def _numbers(fields: list[tuple[int, int, int, bytes]], order: str) -> dict[int, int]:
    numbers: dict[int, int] = {}
    for tag, kind, number, data in fields:
        if _COUNT | tag in numbers and tag <= _LAST_GEOMETRY:
            raise Unprocessable(f"The picture's metadata is corrupt: tag {tag} stands in it twice.")
        numbers[_COUNT | tag] = number
        if number == 1 and kind in _NUMBERS:
            (numbers[tag],) = unpack_from(order + _NUMBERS[kind], data)
    return numbers


def _too_many_blocks(name: str) -> Unprocessable:
    return Unprocessable(f"The {name} is made of more than {MAX_BLOCKS:,} blocks. Save it anew as an ordinary one.")

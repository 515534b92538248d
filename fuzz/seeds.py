"""Small valid inputs, from which all fuzzing starts."""

from io import BytesIO

from PIL import Image

MODES = {
    "JPEG": ["RGB", "L", "CMYK"],
    "PNG": ["RGB", "1", "L", "LA", "P", "RGBA", "I;16"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["P", "L"],
    "BMP": ["RGB", "1", "L", "P"],
    "TIFF": ["RGB", "1", "L", "RGBA", "CMYK", "F", "I", "I;16"],
}
TEXTS = [
    "A warm, funny film, and the cast enjoys every minute of it.",
    "It's bad... so BAD!<br /><br />Two hours, 12 jokes & nothing else.",
    "caf\u00e9 cafe\u0301 \u6587\u5b57 \u0641\u064a\u0644\u0645 \u202eright to left\u202c",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \ufb01 \u2460 \x00 \x85 [PAD] [UNK]",
]


def pictures(size: tuple[int, int] = (12, 7)) -> list[bytes]:
    """One picture in every format and many of its modes, some turned, animated, progressive or compressed."""
    gradient = Image.linear_gradient("L").resize(size)
    made = []

    def save(mode: str, kind: str, **options: object) -> None:
        buffer = BytesIO()
        image = gradient.convert("L").convert(mode) if mode == "I;16" else gradient.convert("RGB").convert(mode)
        image.save(buffer, kind, **options)
        made.append(buffer.getvalue())

    for kind, modes in MODES.items():
        for mode in modes:
            save(mode, kind)
    turned = Image.Exif()
    turned[0x0112] = 6
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        save("RGB", kind, exif=turned)
    save("RGB", "JPEG", progressive=True)
    save("RGB", "PNG", compress_level=0)
    save("P", "PNG", transparency=0)
    save("P", "GIF", transparency=0)
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        save("RGB", kind, save_all=True, append_images=[gradient.convert("RGB")])
    for compression in ("tiff_lzw", "tiff_deflate", "packbits"):
        save("RGB", "TIFF", compression=compression)
    save("RGB", "WEBP", lossless=True)
    return made

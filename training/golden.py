"""Golden examples: raw inputs on which a version proves itself, with the probabilities that training gets for them.

Some are test examples, of every label, sure and unsure ones. The others are odd on purpose: each would come out
otherwise if a step of the preprocessing were left out or done differently.
"""

import base64
import unicodedata
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from serving.contract import Golden, GoldenExample, ImageInput, TextInput
from serving.preprocessing import TextPreprocessor, preprocessor_for

if TYPE_CHECKING:  # it takes seconds to import, and pictures are encoded without it
    import keras

TOLERANCE = 0.02
CLEAR = 0.1
"""The best label leads the second by this, far beyond the tolerance: another machine's kernels cannot swap them."""

Raw = bytes | str


def golden(
    model: "keras.Model", spec: ImageInput | TextInput, plain: Sequence[Raw], odd: Sequence[Sequence[Raw]]
) -> Golden:
    """The contract's part.

    Args:
        model: maps the wire's tensor to calibrated probabilities.
        spec: the contract's input.
        plain: raw inputs that are all taken.
        odd: for each further example the candidates. The least sure one is taken, because a sure answer hides small
            mistakes, but one whose best label is clear, or where there is none the clearest.
    """
    import keras  # noqa: PLC0415

    preprocessor = preprocessor_for(spec)

    def answers(raws: Sequence[Raw]) -> NDArray[np.float32]:
        batch = preprocessor.collate([preprocessor.prepare(raw) for raw in raws])
        probabilities: NDArray[np.float32] = keras.ops.convert_to_numpy(model(batch, training=False))
        return probabilities

    chosen = list(plain)
    for candidates in odd:
        leads = lead(answers(candidates))
        clear = np.where(leads >= CLEAR, leads, np.inf)
        chosen.append(candidates[int(clear.argmin() if np.isfinite(clear).any() else leads.argmax())])
    return Golden(
        tolerance=TOLERANCE,
        examples=[_example(raw, row) for raw, row in zip(chosen, answers(chosen), strict=True)],
    )


def lead(probabilities: NDArray[np.floating]) -> NDArray[np.floating]:
    """By how much each row's best label leads its second, [n, labels] → [n]."""
    ordered = np.sort(probabilities, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def choose(probabilities: NDArray[np.floating], truth: NDArray[np.int64], count: int) -> list[int]:
    """Examples worth keeping: the labels in turn, sure ones and unsure ones in turn, none whose best label is unclear.

    Args:
        probabilities: [n, labels].
        truth: positions of the right labels, [n].
        count: how many; fewer come back where there are not so many.
    """
    leads = lead(probabilities)
    candidates = np.flatnonzero(leads >= CLEAR)
    if len(candidates) < count:
        candidates = np.arange(len(leads))
    by_lead = candidates[leads[candidates].argsort(kind="stable")]
    queues = [list(by_lead[truth[by_lead] == label]) for label in range(probabilities.shape[1])]
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        turn = len(chosen)
        label = turn % len(queues)
        queue = queues[label] or max(queues, key=len)
        # with an even number of labels the turns alone would give one label only sure examples
        sure = (turn + turn // len(queues)) % 2 == 0
        chosen.append(int(queue.pop(-1 if sure else 0)))
    return chosen


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture, uint8 [height, width, 3], without loss."""
    return _encoded(Image.fromarray(pixels), "PNG", optimize=True)


def odd_pictures(pixels: NDArray[np.uint8]) -> list[list[bytes]]:
    """What clients send besides square PNGs of the right size, made of pictures, uint8 [n, height, width, 3].

    Returns:
        for each oddity its n candidates.
    """
    pictures = [Image.fromarray(picture) for picture in pixels]
    return [[make(picture) for picture in pictures] for make in (_jpeg, _lying_photo, _cut_out, _grey, _palette)]


def odd_texts(texts: Sequence[str], length: int, preprocessor: TextPreprocessor) -> list[list[str]]:
    """What clients send besides plain texts. What is odd stands in front, where no limit cuts it off.

    Args:
        texts: n of them.
        length: words that the model reads.
        preprocessor: tells how many of them a text has: languages without spaces have others than `split` finds.

    Returns:
        for each oddity its n candidates.
    """
    oddities: list[Callable[[str], str]] = [
        lambda text: "<b>Well</b>,<br /><br />" + text,
        str.upper,
        lambda text: "Zxqvyw kjhgfq " + text,
        lambda text: "🎬👍 " + text,
        lambda text: unicodedata.normalize("NFD", "Café, naïve: ") + text,
    ]
    made = [[oddity(text) for text in texts] for oddity in oddities]
    # the end says the opposite, for those who do not cut
    too_long = [
        " ".join([text] * (1 + length // len(preprocessor.prepare(text))) + [other]) for text, other in _pairs(texts)
    ]
    return [*made, too_long]


def _pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(texts, [*texts[1:], *texts[:1]], strict=True))


def _example(raw: Raw, row: NDArray[np.float32]) -> GoldenExample:
    # float32 has seven digits; clipped because its rounding can leave [0, 1]
    probabilities = [min(1.0, max(0.0, round(float(value), 7))) for value in row]
    if isinstance(raw, bytes):
        return GoldenExample(image=base64.b64encode(raw), probabilities=probabilities)
    return GoldenExample(text=raw, probabilities=probabilities)


def _jpeg(picture: Image.Image) -> bytes:
    return _encoded(picture, "JPEG", quality=90)


def _lying_photo(picture: Image.Image) -> bytes:
    """Larger than the model's frame, not square, and stored on its side with an EXIF orientation that says so."""
    wide = picture.resize((3 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return _encoded(wide.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=85, exif=exif)


def _cut_out(picture: Image.Image) -> bytes:
    """Transparent at the left, where the colour below is black."""
    hole = (0, 0, picture.width // 4, picture.height)
    transparent = picture.convert("RGBA")
    transparent.paste((0, 0, 0, 0), hole)
    return _encoded(transparent, "PNG", optimize=True)


def _grey(picture: Image.Image) -> bytes:
    return _encoded(picture.convert("L"), "PNG", optimize=True)


def _palette(picture: Image.Image) -> bytes:
    return _encoded(picture.quantize(64), "GIF")


def _encoded(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()

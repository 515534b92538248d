"""Plain JPEGs, as most are: three colours, and nothing that turns the picture or says what its colours mean.

Pillow reads a JPEG's segments with Python, which takes several times as long as decoding a small picture. What decodes
these is the same libjpeg-turbo, to the same pixels; whatever it has a word to say about is left to Pillow.
"""

from typing import NamedTuple

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray

SCALES = (8, 4, 2, 1)
"""By which Pillow has a JPEG decoded smaller."""


class PlainJpeg(NamedTuple):
    """One that is not decoded yet."""

    encoded: bytes
    width: int
    height: int
    has_several_scans: bool

    def scale(self, size: int) -> int:
        """By what it is decoded smaller, so that both sides have this size at least, as Pillow chooses it."""
        most = min(self.width // size, self.height // size)
        return next((scale for scale in SCALES if scale <= most), 1)

    def pixels(self, scale: int) -> NDArray[np.uint8] | None:
        """Its pixels, uint8 [height / scale, width / scale, 3], rounded up; None if anything is wrong with it."""
        height, width = -(-self.height // scale), -(-self.width // scale)
        try:
            # these least sides are those of one scale; without any the picture is decoded at its full size
            least = {} if scale == 1 else {"min_height": height, "min_width": width}
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(self.encoded, "RGB", **least)
        except ValueError:
            return None
        return pixels if pixels.shape == (height, width, 3) else None

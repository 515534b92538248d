"""`python -m fuzz.images`: whatever the bytes are, they become pixels of the right shape or a Problem."""

import atheris
import numpy as np

with atheris.instrument_imports(include=["PIL", "serving.preprocessing"]):
    from serving.contract import ImageInput
    from serving.preprocessing import ImagePreprocessor

from fuzz.coverage import Finding, fuzz
from fuzz.seeds import pictures
from serving.problems import Problem

SPEC = ImageInput(name="image", height=8, width=9, channels=3, fit="cover", filter="bilinear")
PREPROCESSOR = ImagePreprocessor(SPEC, max_pixels=1_000_000)


def prepare(encoded: bytes) -> None:
    """Raises what is a finding."""
    try:
        pixels = PREPROCESSOR.prepare(encoded)
    except Problem as problem:
        if problem.status >= 500:  # noqa: PLR2004
            raise
        problem.json()
        return
    if pixels.shape != (8, 9, 3) or pixels.dtype != np.uint8:
        raise Finding(f"{pixels.dtype} {pixels.shape}")


if __name__ == "__main__":
    fuzz("images", pictures(), prepare)

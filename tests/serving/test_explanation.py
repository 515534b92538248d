"""Where explanations lie on pictures, and which ones let a version in."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.contract import Contract, Golden, GoldenExample, ImageInput
from serving.explanation import Explanation
from serving.golden import Unproven, compare_golden_explanation
from serving.preprocessing import ImagePreprocessor

FRAME = (24, 16)


@pytest.mark.parametrize("fit", ["cover", "contain", "fill"])
@pytest.mark.parametrize("size", [(240, 90), (90, 240), (240, 160), (50, 50)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_area_is_what_the_model_saw(fit: Any, size: tuple[int, int], orientation: int) -> None:
    """The upright picture, cut to the area and resized, is what the preprocessor makes of the file."""
    original = Image.merge("RGB", [Image.linear_gradient("L").rotate(turn).resize(size) for turn in (0, 90, 180)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    original.save(buffer, "PNG", exif=exif)
    upright = original.transpose(Image.Transpose.ROTATE_270) if orientation == 6 else original

    spec = ImageInput(name="i", width=FRAME[0], height=FRAME[1], channels=3, fit=fit, filter="bilinear")
    preprocessor = ImagePreprocessor(spec)
    told = preprocessor.explain(buffer.getvalue(), np.zeros(FRAME[::-1], np.float32))
    assert np.shape(told["attribution"]) == FRAME[::-1]

    left, top = told["area"]["left"] * upright.width, told["area"]["top"] * upright.height
    width, height = told["area"]["width"] * upright.width, told["area"]["height"] * upright.height
    scale = FRAME[0] / width, FRAME[1] / height
    seen = preprocessor.prepare(buffer.getvalue()).astype(int)
    for y in range(1, FRAME[1] - 1):
        for x in range(1, FRAME[0] - 1):
            at = left + (x + 0.5) / scale[0], top + (y + 0.5) / scale[1]
            if not (1 <= at[0] < upright.width - 1 and 1 <= at[1] < upright.height - 1):
                continue  # beside the picture, or on its edge
            there = np.array(upright.getpixel((int(at[0]), int(at[1]))))
            # a pixel of the frame is at most 15 of the picture, in which a colour changes by 255 from side to side
            assert np.abs(seen[y, x] - there).max() <= 24


def contract(best: int) -> Contract:
    probabilities = [0.1, 0.1]
    probabilities[best] = 0.9
    golden = Golden(examples=[GoldenExample(text="good", probabilities=probabilities)] * 8)
    members: dict[str, Any] = {"labels": ["bad", "good"], "explain": "explain", "golden": golden}
    return Contract.model_construct(**members)


def test_a_version_that_explains_another_label_or_with_no_numbers_is_not_proven() -> None:
    attribution = np.zeros(3, np.float32)
    compare_golden_explanation(contract(1), Explanation(attribution, 1, 0.5))
    with pytest.raises(Unproven, match=r"explains label 1 of golden example 1, which should be bad 0\.900"):
        compare_golden_explanation(contract(0), Explanation(attribution, 1, 0.5))
    for broken in (Explanation(attribution, 1, float("nan")), Explanation(attribution + np.inf, 1, 0.5)):
        with pytest.raises(Unproven, match="not finite"):
            compare_golden_explanation(contract(1), broken)

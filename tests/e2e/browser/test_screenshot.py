"""The README's picture of the page can be taken anew, and is what it says to be."""

from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.browser.screenshot import SCREENSHOT, WIDTH, take

pytestmark = pytest.mark.browser

MOST_BYTES = 200_000


def test_the_readmes_picture_is_taken_by_a_command_and_as_it_would_be_now(tmp_path: Path) -> None:
    take(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as now, Image.open(SCREENSHOT) as shipped:
        assert now.width == shipped.width == WIDTH
        # other fonts break lines elsewhere
        assert now.height == pytest.approx(shipped.height, rel=0.1)
    assert (tmp_path / "page.png").stat().st_size < MOST_BYTES
    assert SCREENSHOT.stat().st_size < MOST_BYTES

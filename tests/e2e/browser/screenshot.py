"""`make screenshot`: the README's picture, taken of the page with the models that ship.

Above a picture's answer with its heat map, below a text's with its words coloured.
"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import FloatRect, Page, sync_playwright

from tests.e2e.browser.test_page import CHROMIUM, FLAGS, why, write
from tests.e2e.processes import PATIENCE, gateway

ROOT = Path(__file__).parents[3]
SCREENSHOT = ROOT / "docs" / "page.png"
WIDTH = 1200
MARGIN = 16
"""Pixels of the page's ground below what is shown."""
COLOURS = 256
"""As many as a PNG with a palette has: a third of the bytes, and hardly a difference."""
TEXT = "Great actors and beautiful pictures, but what a dull film."


def take(place: Path) -> None:
    """Start the service, ask the page for both answers, and write what it shows, one below the other."""
    with (
        tempfile.TemporaryDirectory() as folder,
        gateway(Path(folder) / "log", "--models", str(ROOT / "models")) as service,
        sync_playwright() as playwright,
    ):
        service.settle()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        size = {"width": WIDTH, "height": 900}
        page = browser.new_page(viewport=size, color_scheme="light", reduced_motion="reduce")  # type: ignore[arg-type]  # a TypedDict
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(service.url)
        page.locator("#about article").wait_for()
        page.locator("#image-examples button").filter(has=page.locator("[src*=cat]")).click()
        why(page)
        above = shown(page, top=0)
        write(page, TEXT)
        why(page)
        below = shown(page, top=bounds(page, "#ask")["y"])
        browser.close()
    whole = Image.new("RGB", (WIDTH, above.height + below.height))
    whole.paste(above)
    whole.paste(below, (0, above.height))
    place.parent.mkdir(parents=True, exist_ok=True)
    # by coverage: the most frequent colours would leave none for the eyes of a cat
    whole.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2).save(place, optimize=True)


def shown(page: Page, *, top: float) -> Image.Image:
    """The page from there to the end of the answer."""
    page.evaluate("document.activeElement.blur()")
    end = bounds(page, ".card")
    clip: FloatRect = {"x": 0, "y": top, "width": WIDTH, "height": end["y"] + end["height"] + MARGIN - top}
    return Image.open(BytesIO(page.screenshot(full_page=True, clip=clip)))


def bounds(page: Page, selector: str) -> FloatRect:
    """Where an element is on the page."""
    found = page.locator(selector).bounding_box()
    assert found is not None, selector
    return found


if __name__ == "__main__":
    take(Path(sys.argv[1]) if sys.argv[1:] else SCREENSHOT)

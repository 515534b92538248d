"""The page at `/` in a real browser: everything that can be done on it, and that it can be done by everyone."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect, sync_playwright

from tests.e2e.conftest import Start
from tests.e2e.processes import PATIENCE, Service
from tests.e2e.test_explanations import red_and_blue
from tests.e2e.test_guard import line
from tests.e2e.tiny_models import picture, put, score

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("SIGHTREAD_TEST_CHROMIUM") or shutil.which("chromium")
"""Without one, Playwright takes its own, or says how to get it."""
FLAGS = [
    # as root, in containers
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    # it asks nobody but the service
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # a camera that shows a moving pattern, and may be used
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
THEMES = ["light", "dark"]
WIDTHS = [360, 1440]
TEXT = "👍🏽 A GOOD film, not “bad” at all: good!"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console said, and who else was asked. A test that expects something takes it out."""
    return []


@pytest.fixture
def page(browser: Browser, service: Service, complaints: list[str]) -> Iterator[Page]:
    """The page of the service, loaded. It must have asked nobody else and have had nothing to complain of."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=service.url)
    opened = context.new_page()
    opened.set_default_timeout(1000 * PATIENCE)
    watch(opened, complaints)
    opened.goto(service.url)
    opened.locator("#about article").wait_for()
    yield opened
    context.close()
    assert complaints == []


def watch(page: Page, complaints: list[str]) -> None:
    def console(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "blob:", "data:image/png;base64,")):
            complaints.append(request.url)

    page.on("console", console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", asked)


def file(name: str, content: bytes, kind: str = "image/png") -> Any:
    return {"name": name, "mimeType": kind, "buffer": content}


def choose(page: Page, *files: Any) -> None:
    page.locator("#files").set_input_files(list(files))


def write(page: Page, text: str) -> None:
    page.get_by_text("Text", exact=True).click()
    page.get_by_label("Type or paste a text").fill(text)


def best(page: Page) -> Locator:
    return page.locator(".bars li:first-child")


def why(page: Page) -> None:
    page.get_by_role("button", name="Why?").first.click()
    page.locator(".reason").first.wait_for()


def hand_over(page: Page, event: str, content: bytes) -> None:
    """Drop or paste a file, as the browser would tell the page of it."""
    page.evaluate(
        """([event, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "handed.png", { type: "image/png" }));
            const options = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(event === "drop"
                ? new DragEvent("drop", { ...options, dataTransfer: data })
                : new ClipboardEvent("paste", { ...options, clipboardData: data }));
        }""",
        [event, list(content)],
    )


def test_a_chosen_picture_gets_bars_its_version_and_its_times_at_once(page: Page) -> None:
    choose(page, file("blue.png", picture("blue")))
    expect(best(page)).to_have_text(re.compile(f"blue{100 * score(2):.1f}%"))
    expect(page.locator(".card h2")).to_have_text("cnn version 2")
    expect(page.locator(".stages")).to_have_text(re.compile(r"predict\s[\d.]+\sms.*in\sall\s[\d.]+\sms"))
    expect(page.get_by_role("status")).to_have_text(f"blue, {100 * score(2):.1f}%, says version 2.")
    first, second = (page.locator(".bars .bar").nth(number).evaluate(PAINTED) for number in (0, 1))
    assert first == pytest.approx(score(2), abs=0.01)
    assert second < 0.1


PAINTED = "bar => parseFloat(getComputedStyle(bar, '::before').width) / bar.clientWidth"
"""Which share of a bar is filled."""


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(page: Page, event: str) -> None:
    hand_over(page, event, picture("green"))
    expect(best(page)).to_contain_text("green")


def test_a_pasted_picture_is_taken_while_a_text_is_shown_and_a_pasted_text_while_a_picture_is(page: Page) -> None:
    write(page, "good")
    hand_over(page, "paste", picture("green"))
    expect(best(page)).to_contain_text("green")
    page.evaluate("""() => {
        const data = new DataTransfer();
        data.setData("text/plain", "so bad");
        document.body.dispatchEvent(new ClipboardEvent("paste", { bubbles: true, clipboardData: data }));
    }""")
    expect(page.get_by_label("Type or paste a text")).to_have_value("so bad")
    expect(best(page)).to_contain_text("negative")


def test_a_picture_may_be_photographed(page: Page) -> None:
    page.get_by_role("button", name="Take a photo").click()
    page.get_by_role("button", name="Take it").click()
    expect(best(page)).to_contain_text(re.compile("red|green|blue"))
    expect(page.get_by_role("dialog")).to_be_hidden()
    width = page.locator("figure .picture").evaluate("async image => (await image.decode(), image.naturalWidth)")
    assert width > 100
    assert page.locator("video").evaluate("video => video.srcObject") is None, "the camera is still on"


def test_heat_lies_over_the_part_of_the_picture_that_the_model_saw(page: Page) -> None:
    choose(page, file("wide.png", red_and_blue((640, 320))))
    why(page)
    whole, heat = page.locator("figure .picture").bounding_box(), page.locator("figure .heat").bounding_box()
    assert whole is not None
    assert heat is not None
    assert heat["x"] - whole["x"] == pytest.approx(whole["width"] / 4, abs=2)
    assert heat["width"] == pytest.approx(whole["width"] / 2, abs=2)
    assert heat["height"] == pytest.approx(whole["height"], abs=2)
    assert page.locator("figure .heat").evaluate("async image => (await image.decode(), image.naturalWidth)") >= 8
    expect(page.locator(".reason")).to_contain_text("speaks for red")
    expect(page.locator(".reason")).to_contain_text("The orange centres on the left part")
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("figure .heat")).to_be_hidden()
    expect(page.locator(".reason")).to_be_hidden()


def test_a_typed_text_is_answered_while_it_is_typed_and_its_words_are_coloured(page: Page) -> None:
    write(page, TEXT)
    expect(best(page)).to_contain_text("positive")
    why(page)
    expect(page.locator(".words")).to_have_text(TEXT)
    marks = {
        mark.inner_text(): (mark.get_attribute("class"), float(mark.evaluate(STRENGTH)))
        for mark in page.locator("mark").all()
    }
    assert [marks[word][0] for word in ("GOOD", "bad")] == ["for", "against"]
    assert marks["GOOD"][1] == pytest.approx(0.5)
    assert marks["film"][1] < 0.01
    expect(page.locator(".reason")).to_have_text(
        re.compile(r"For positive speaks most “(GOOD|good)” \(\+\d.\d\d\).* Against it “bad” \(.\d.\d\d\)\.")
    )
    page.get_by_label("Type or paste a text").fill("bad " * 25)
    expect(best(page)).to_contain_text("negative")
    expect(page.locator(".words")).to_be_hidden()
    expect(page.locator(".truncated")).to_be_visible()
    why(page)
    expect(page.locator(".unread")).to_have_text("bad bad bad bad bad")
    page.get_by_label("Type or paste a text").fill("")
    expect(page.locator("#cards")).to_have_text("The answer comes here.")


STRENGTH = "mark => mark.style.getPropertyValue('--strength')"


def test_two_versions_stand_side_by_side_and_the_one_that_cannot_explain_says_so(page: Page) -> None:
    choose(page, file("red.png", picture("red")))
    page.locator("#compare").select_option("1")
    expect(page.locator(".card h2")).to_have_text(["cnn version 2", "cnn version 1"])
    expect(best(page)).to_have_text([re.compile(f"red{100 * score(version):.1f}%") for version in (2, 1)])
    left, right = (card.bounding_box() for card in page.locator(".card").all())
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    assert left["x"] < right["x"]
    buttons = page.get_by_role("button", name="Why?")
    expect(buttons.nth(0)).to_be_enabled()
    expect(buttons.nth(1)).to_be_disabled()
    expect(page.locator(".no-why").nth(1)).to_have_text("This version gives no explanations.")
    expect(page.locator("#about h2")).to_have_text(["cnn, version 2", "cnn, version 1"])
    page.locator("#version").select_option("1")
    page.locator("#compare").select_option("nothing")
    expect(page.locator(".card h2")).to_have_text(["cnn version 1"])
    expect(best(page)).to_have_text([re.compile(f"red{100 * score(1):.1f}%")])


def test_several_pictures_are_a_contact_sheet_however_many_one_request_takes(page: Page) -> None:
    colours = ["red", "green", "blue"] * 3
    files = [file(f"{number} {colour}.png", picture(colour)) for number, colour in enumerate(colours)]
    choose(page, *files, file("broken.png", b"no picture"))
    lines = page.locator("#sheet .line")
    expect(lines).to_have_count(10)
    expect(lines).to_have_text([*(re.compile(rf"{colour}[\d.]+%") for colour in colours), re.compile("not a picture")])
    page.locator("#sheet button").nth(2).click()
    expect(page.locator(".card .bars li:first-child")).to_contain_text("blue")
    why(page)
    expect(page.locator(".reason")).to_contain_text("blue")
    page.locator("#sheet button").nth(9).click()
    expect(page.locator(".card .problem")).to_contain_text("not a picture")
    expect(page.locator("figcaption")).to_have_text("This browser cannot show it.")
    page.locator("#compare").select_option("1")
    expect(lines).to_have_count(20)


@pytest.mark.parametrize("kind", ["picture", "text"])
def test_the_copied_command_and_program_do_the_same(page: Page, tmp_path: Path, kind: str) -> None:
    if kind == "picture":
        name = "it's red.png"
        (tmp_path / name).write_bytes(picture("red"))
        choose(page, file(name, picture("red")))
        page.locator("#version").select_option("1")
        expect(best(page)).to_contain_text("red")
    else:
        write(page, 'It\'s "good" — $HOME `id` \\ 👍\nreally')
        expect(best(page)).to_contain_text("positive")
    page.get_by_text("The same from a program").click()
    answers = []
    for button, program in {"Copy as curl": ["bash", "-c"], "Copy as Python": [sys.executable, "-c"]}.items():
        copy = page.locator(f"button:text-is('{button}')")
        copy.click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        expect(copy).to_be_visible()  # again
        copied = page.evaluate("navigator.clipboard.readText()")
        done = subprocess.run([*program, copied], cwd=tmp_path, capture_output=True, text=True, check=True)
        answers.append(done.stdout.strip())
    sent = json.loads(answers[0])
    assert sent["label"] == ("red" if kind == "picture" else "positive")
    assert sent["model"]["version"] == 1
    assert str(sent["predictions"]) in answers[1]


def test_what_is_wrong_is_said_in_a_sentence(page: Page, complaints: list[str]) -> None:
    choose(page, file("letter.pdf", b"%PDF-1.7", "application/pdf"))
    expect(page.get_by_role("alert")).to_have_text("PDF is not taken. Send JPEG, PNG, WebP, GIF, BMP or TIFF.")
    assert all("status of 415" in complaint for complaint in complaints), complaints
    del complaints[:]


def test_a_service_that_is_gone_is_missed(page: Page, complaints: list[str]) -> None:
    page.context.set_offline(True)
    write(page, "good")
    expect(page.locator(".card .problem")).to_have_text("The service cannot be reached. Is it still running?")
    page.context.set_offline(False)
    page.get_by_label("Type or paste a text").fill("good film")
    expect(best(page)).to_contain_text("positive")
    del complaints[:]  # the console says that it was offline


def test_the_page_tells_how_the_model_was_made(page: Page) -> None:
    about = page.locator("#about")
    expect(about).to_contain_text("Right on 100.0% of 8 test pictures.")
    expect(about).to_contain_text("made by the tests")
    expect(about).to_contain_text("pictures as 8 × 8 pixels")
    expect(about).to_contain_text("red, green, blue")
    write(page, "good")
    expect(about).to_contain_text("the first 20 words of a text")


def test_example_texts_are_answered_by_a_click(page: Page) -> None:
    page.get_by_text("Text", exact=True).click()
    page.locator("#text-examples button").first.click()
    expect(best(page)).to_contain_text(re.compile("positive|negative"))
    assert "film" in page.get_by_label("Type or paste a text").input_value()


OUTLINE = """() => {
    const focused = document.activeElement;
    const shown = focused.closest("#drop") ?? focused.parentElement.querySelector("#kinds input + span") ?? focused;
    return getComputedStyle(shown).outlineStyle;
}"""
"""Of what has the focus, or of what shows it where that is hidden."""


def test_everything_can_be_done_with_the_keyboard(page: Page) -> None:
    def tab_to(target: Locator) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if target.evaluate("element => element === document.activeElement"):
                assert page.evaluate(OUTLINE) == "solid", "the focus is not seen"
                return
        raise AssertionError(f"{target} cannot be reached")

    tab_to(page.locator("#files"))
    page.reload()
    page.locator("#about article").wait_for()
    tab_to(page.locator("#kinds input:checked"))
    page.keyboard.press("ArrowRight")
    tab_to(page.get_by_label("Type or paste a text"))
    page.keyboard.type("good film")
    expect(best(page)).to_contain_text("positive")
    tab_to(page.get_by_role("button", name="Why?"))
    page.keyboard.press("Enter")
    expect(page.locator(".reason")).to_contain_text("“good”")
    page.keyboard.press("Space")
    expect(page.locator(".reason")).to_be_hidden()


def test_who_needs_a_key_is_asked_for_it_and_comes_in_with_it(
    page: Page, tmp_path: Path, repository: Path, start_gateway: Start, complaints: list[str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(line("alice", "sesame"))
    guarded = start_gateway("--models", str(repository), "--api-keys-file", str(keys))
    guarded.wait_for(guarded.is_ready)
    page.goto(guarded.url)
    expect(page.get_by_role("alert")).to_contain_text("This needs an API key")
    field = page.get_by_label("API key")
    expect(field).to_be_focused()
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not known here")
    assert all("status of 401" in complaint for complaint in complaints), complaints
    del complaints[:]
    field.fill("sesame")
    page.get_by_role("button", name="Use this key").click()
    choose(page, file("red.png", picture("red")))
    expect(best(page)).to_contain_text("red")
    expect(page.locator("#problem")).to_be_hidden()
    page.reload()
    page.locator("#about article").wait_for()
    write(page, "good")
    expect(best(page)).to_contain_text("positive")
    page.get_by_text("The same from a program").click()
    expect(page.locator("#curl")).to_contain_text("Bearer $SIGHTREAD_KEY")
    assert "sesame" not in page.content()


def test_a_service_that_is_not_ready_says_so_and_goes_on_when_it_is(
    browser: Browser, tmp_path: Path, versions: Path, start_gateway: Start
) -> None:
    models = tmp_path / "later"
    (models / "lstm").mkdir(parents=True)
    starting = start_gateway("--models", str(models), "--image-model", "")
    opened = browser.new_page()
    opened.set_default_timeout(1000 * PATIENCE)
    opened.goto(starting.url)
    expect(opened.get_by_role("alert")).to_contain_text("lstm is not ready")
    opened.get_by_label("Type or paste a text").fill("so bad")
    expect(opened.locator(".card .problem")).to_contain_text("lstm is not ready")
    put(versions / "lstm" / "1", models / "lstm" / "1")
    expect(best(opened)).to_contain_text("negative")
    expect(opened.get_by_role("alert")).to_be_hidden()
    expect(opened.locator("#kinds")).to_be_hidden()
    opened.close()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_on_it_keeps_anybody_out_or_leaves_the_screen(
    browser: Browser, service: Service, theme: Any, width: int
) -> None:
    """axe-core's rules on every state of the page. It cannot measure a contrast over a picture: there is no text."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    complaints: list[str] = []
    watch(page, complaints)
    page.goto(service.url)
    page.locator("#about article").wait_for()

    def check(state: str) -> None:
        results = Axe().run(page)
        assert results.violations_count == 0, f"{state}:\n{results.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, state
        if folder := os.environ.get("SIGHTREAD_TEST_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/{theme}-{width}-{state}.png", full_page=True)

    check("empty")
    choose(page, file("wide.png", red_and_blue((640, 320))))
    why(page)
    check("heat")
    page.locator("#compare").select_option("1")
    choose(page, *(file(f"{colour}.png", picture(colour)) for colour in ["red", "green", "navy"]))
    expect(page.locator("#sheet .line")).to_have_count(6)
    page.get_by_text("The same from a program").click()
    check("sheet")
    write(page, TEXT)
    why(page)
    page.get_by_role("button", name="API key").click()
    check("words")
    write(page, "a" * 1001)
    expect(page.locator(".card .problem")).to_contain_text("at most 1,000")
    check("problem")
    context.close()
    assert all("status of 422" in complaint for complaint in complaints), complaints

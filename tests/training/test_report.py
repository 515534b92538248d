import base64
import hashlib
import json
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.contract import Contract, Reference
from training import evaluation, plots, report
from training.data import Dataset, Examples

Version = tuple[Any, Contract]
Judged = tuple[Contract, Dataset, NDArray[np.float64]]
CURVES = {
    "accuracy": [0.5, 0.7, 0.8],
    "val_accuracy": [0.4, 0.65, 0.6],
    "loss": [1.5, 1.0, 0.9],
    "val_loss": [1.6, 1.1, 1.2],
}
VOID = {"meta", "img", "br"}
INLINE = {"bdi", "code"}
HOSTILE = [
    "<script>alert(1)</script>",
    "$\\frac{x",
    "\N{RIGHT-TO-LEFT OVERRIDE}شكراً</td>",
    "../../etc/\0passwd" + "ü" * 300,
]


class Page(HTMLParser):
    """What a browser would find on a page: its elements, its text, and whether every element was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._parts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []
        self.text = " ".join("".join(self._parts).replace("\N{WORD JOINER}", "").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag not in INLINE:
            self._parts.append(" ")

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self._parts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def pictures(self) -> list[Image.Image]:
        uris = [attributes["src"].partition(",") for attributes in self.all("img")]
        return [Image.open(BytesIO(base64.b64decode(data))) for kind, _, data in uris if "png" in kind]


def _judged(version: Version, labels: list[str], **of_data: Any) -> Judged:
    """A contract that is true of 600 made-up answers, the data, and the answers. Without what takes time to draw."""
    chance = np.random.default_rng(0)
    truth = np.arange(600) % len(labels)
    probabilities = evaluation.softmax(chance.normal(0, 1, (600, len(labels))) + 3 * np.eye(len(labels))[truth])
    examples = Examples(chance.integers(0, 256, (600, 8, 8, 3)).astype(np.uint8), truth)
    few = examples.take(np.arange(40))
    data = replace(Dataset("Shapes", labels, examples, few, examples, seen=False, sha256="ab" * 32), **of_data)
    made = {
        "data": data.name,
        "machine": "Abacus, 2 cores",
        "config": {"batch_size": 64, "patience": None},
        "training_seconds": 171,
    }
    calibration = evaluation.calibration(1.0, np.log(probabilities), truth)
    contract = version[1].model_copy(
        update={
            "labels": labels,
            "evaluation": evaluation.evaluate(probabilities, truth, labels=labels, dataset=data.judged_on),
            "calibration": calibration.model_copy(update={"reliability": None}),
            "reference": Reference(label_frequencies=data.label_frequencies, confidence_histogram=[]),
            "provenance": version[1].provenance.model_copy(update=made),
        }
    )
    return contract, data, probabilities


def _drawn(judged: Judged) -> Judged:
    """With curves and reliability."""
    contract, data, probabilities = judged
    calibration = evaluation.calibration(1.0, np.log(probabilities), data.test.labels)
    provenance = contract.provenance.model_copy(update={"history": CURVES})
    return contract.model_copy(update={"calibration": calibration, "provenance": provenance}), data, probabilities


@pytest.fixture(scope="module")
def shapes(version: Version) -> Judged:
    return _drawn(_judged(version, ["a", "b", "c"]))


@pytest.fixture(scope="module")
def html(shapes: Judged) -> str:
    contract, data, probabilities = shapes
    mistakes = report.mistakes(data.test, probabilities, data.labels, 5)
    return report.page(contract, data, name="shapes", version=None, mistakes=mistakes)


def _page(contract: Contract, data: Dataset, probabilities: Any, **more: Any) -> Page:
    told = {"name": "shapes", "version": None} | more
    told.setdefault("mistakes", report.mistakes(data.test, probabilities, data.labels))
    return Page(report.page(contract, data, **told))


def test_the_page_asks_for_nothing_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    given = [pair for _, attributes in page.elements for pair in attributes.items()]
    reaching = [value for name, value in given if name in {"src", "srcset", "href", "data"}]
    # two curves and the reliability for two colour schemes, and five mistakes
    assert len(reaching) == 11
    assert all(value.startswith("data:image/") for value in reaching)
    assert "url(" not in html
    assert "@import" not in html


def test_the_pages_own_policy_allows_its_style_and_nothing_else(html: str) -> None:
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(meta["content"] for meta in Page(html).all("meta") if "http-equiv" in meta)
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    assert not [attributes for _, attributes in Page(html).elements if "style" in attributes]


def test_the_first_sentence_gives_the_accuracy_its_interval_and_the_worth_of_a_confidence(
    shapes: Judged, html: str
) -> None:
    _, data, probabilities = shapes
    hits, confidence = probabilities.argmax(axis=1) == data.test.labels, probabilities.max(axis=1)
    low, high = evaluation.wilson_interval(int(hits.sum()), 600)
    share = hits[(confidence > 13 / 15) & (confidence <= 14 / 15)].mean()
    assert (
        f"Right on {100 * hits.mean():.1f} % of 600 test pictures of Shapes "
        f"(95 % interval: {100 * low:.1f}–{100 * high:.1f} %). "
        f"When it is about 90 % sure, it is right {100 * share:.0f} % of the time."
    ) in Page(html).text


def test_the_figures_are_the_contracts(shapes: Judged, html: str) -> None:
    calibration, text = shapes[0].calibration, Page(html).text
    before, after = calibration.expected_calibration_error_before, calibration.expected_calibration_error_after
    assert f"Calibration error {before:.3f} → {after:.3f}" in text
    assert "always giving the most frequent label: 33.3 %" in text
    assert f"Macro F1 {100 * evaluation.macro_f1(shapes[0].evaluation):.1f} %" in text
    assert "Training took 2 min 51 s 3 epochs on Abacus, 2 cores" in text
    assert "highest after epoch 2 of 3: 65.0 %" in text
    assert "batch size 64 patience not set" in text
    assert "Learned from 600 pictures; 40 held out, 600 tested" in text
    assert f"b 33.3 % 200 {100 * shapes[0].evaluation.per_label[1].recall:.1f} %" in text


def test_few_labels_get_a_matrix_with_numbers_and_many_a_heat_map(version: Version) -> None:
    few = _page(*_judged(version, [f"label {i}" for i in range(20)]))
    many = _page(*_judged(version, [f"label {i}" for i in range(21)]))
    assert "matrix" in [table.get("class") for table in few.all("table")]
    assert "matrix" not in [table.get("class") for table in many.all("table")]
    assert [sum("svg" in image["src"] for image in page.all("img")) for page in (few, many)] == [0, 2]


def test_the_matrix_holds_every_count(shapes: Judged, html: str) -> None:
    page, confusion = Page(html), shapes[0].evaluation.confusion
    for label, counts in zip("abc", confusion, strict=True):
        assert f"{label} {' '.join(map(str, counts))} " in page.text
    shades = [cell["class"].partition("-")[0] for cell in page.all("td") if "class" in cell]
    assert shades == ["hit" if i == j else "miss" for i in range(3) for j in range(3)]


def test_hostile_names_are_text_and_nothing_more(version: Version, tmp_path: Path) -> None:
    plain = _judged(version, ["a", "b", "c", "d"])
    hostile = _judged(version, HOSTILE, name="<img src=//evil>")
    reasons = ["</li><b>bold</b>"]
    pages = [
        _page(*plain, checks=["size: 1 MB"], refusals=["reason"]),
        _page(*hostile, checks=reasons, refusals=reasons, name="<u>shapes</u>"),
    ]
    assert [tag for tag, _ in pages[0].elements] == [tag for tag, _ in pages[1].elements]
    for shown in (*HOSTILE[:3], "<img src=//evil>", "</li><b>bold</b>", "<u>shapes</u>"):
        assert shown in pages[1].text
    # the pictures and the files take them too
    contract, data, probabilities = hostile
    mistakes = report.mistakes(data.test, probabilities, data.labels)
    report.write(tmp_path, contract, data, name="<u>shapes</u>", version=None, mistakes=mistakes, refusals=reasons)
    assert len(list((tmp_path / "mistakes").iterdir())) == len(mistakes)


def test_what_was_judged_on_its_own_lessons_says_so(version: Version) -> None:
    honest, seen = (_page(*_judged(version, ["a", "b"], seen=seen)).text for seen in (False, True))
    assert "Judged on what it learned from." not in honest
    assert "only then was the test set asked, once" in honest
    assert "Judged on what it learned from." in seen
    assert "of the 600 examples that it learned from. " in seen
    assert "asked, once" not in seen
    assert " interval: " not in seen


def test_a_refused_version_says_why_and_a_published_one_its_number_and_size(version: Version, tmp_path: Path) -> None:
    refused = _page(*_judged(version, ["a", "b"]), refusals=["It is worse.", "It is slow."]).text
    assert "shapes Pictures" in refused
    assert "Not published. It is worse. It is slow." in refused
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "saved_model.pb").write_bytes(bytes(1_500_000))
    published = _page(*_judged(version, ["a", "b"]), version=tmp_path / "7").text
    assert "shapes 7 " in published
    assert "1.5 MB" in published
    assert "Not published" not in published
    assert str(tmp_path) not in published


def test_what_was_checked_before_publishing_is_listed(version: Version) -> None:
    page = _page(*_judged(version, ["a", "b"]), checks=["size: 1.50 MB", "latency: 0.4 ms"])
    assert "What was checked before publishing size: 1.50 MB latency: 0.4 ms" in page.text


def test_a_forced_version_says_what_spoke_against_it(version: Version) -> None:
    contract, data, probabilities = _judged(version, ["a", "b"])
    forced = contract.provenance.model_copy(update={"forced": ["It is worse."]})
    page = _page(contract.model_copy(update={"provenance": forced}), data, probabilities)
    assert "Published by force, although: It is worse." in page.text


def test_the_worst_mistakes_are_shown_with_what_was_said_and_how_surely(shapes: Judged, html: str) -> None:
    _, data, probabilities = shapes
    mistakes = report.mistakes(data.test, probabilities, data.labels, 5)
    page = Page(html)
    assert len(mistakes) == 5
    for shown, mistake in zip(page.pictures(), mistakes, strict=True):
        np.testing.assert_array_equal(np.asarray(shown), mistake.raw)
        assert (
            f"{mistake.truth} called {mistake.answered} {100 * mistake.confidence:.1f} % sure; "
            f"the right label got {100 * mistake.missed:.1f} %"
        ) in page.text


def test_mistaken_texts_are_shortened_in_the_middle_and_whole_in_their_files(version: Version, tmp_path: Path) -> None:
    contract, data, _ = _judged(version, ["a", "b"])
    texts = [" ".join(["beginning", *["word"] * 400, "ending"]), "short <br /> text", "好" * 2000, ""]
    wrong = [report.Mistake(text, "a", "b", 0.9, 0.1) for text in texts]
    contract = contract.model_copy(update={"kind": "text"})
    report.write(tmp_path, contract, data, name="texts", version=None, mistakes=wrong)
    shown = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "beginning word" in shown.text
    assert "word […] word" in shown.text
    assert "word ending" in shown.text
    assert "short <br /> text" in shown.text
    assert len(shown.text) < 6000
    files = sorted((tmp_path / "mistakes").iterdir())
    assert [path.read_text(encoding="utf-8") for path in files] == texts


def test_no_mistakes_are_none(version: Version) -> None:
    assert "There are none" in _page(*_judged(version, ["a", "b"]), mistakes=[]).text


def test_a_report_is_files_too_and_replaces_the_one_before(version: Version, shapes: Judged, tmp_path: Path) -> None:
    for (contract, data, probabilities), count in ((_judged(version, ["a", "b"]), 5), (shapes, 2)):
        mistakes = report.mistakes(data.test, probabilities, data.labels, count)
        page = report.write(tmp_path / "runs", contract, data, name="shapes", version=None, mistakes=mistakes)
    assert page == tmp_path / "runs" / "report.html"
    assert {path.name for path in page.parent.iterdir()} == {
        "card.json",
        "confusion.png",
        "evaluation.json",
        "history.json",
        "history.png",
        "mistakes",
        "reliability.png",
        "report.html",
    }
    first, second = sorted((page.parent / "mistakes").iterdir())
    assert first.name == f"01 {mistakes[0].truth} called {mistakes[0].answered}.png"
    np.testing.assert_array_equal(np.asarray(Image.open(second)), mistakes[1].raw)
    assert json.loads((page.parent / "evaluation.json").read_text()) == contract.evaluation.model_dump()
    assert json.loads((page.parent / "history.json").read_text()) == contract.provenance.history
    assert json.loads((page.parent / "card.json").read_text(encoding="utf-8")) == contract.card()


def test_the_pictures_show_their_numbers() -> None:
    bins = [evaluation.reliability(np.array([[0.9, 0.1]] * 9), np.array([0] * n + [1] * (9 - n))) for n in (7, 8)]
    pictures = [
        plots.png(draw, size=(3, 3))
        for draw in (
            plots.confusion([[9, 1], [0, 10]], ["a", "b"]),
            plots.confusion([[8, 2], [0, 10]], ["a", "b"]),
            plots.confusion([[8, 2], [0, 10]], ["a", "c"]),
            *map(plots.reliability, bins),
        )
    ]
    assert len(set(pictures)) == 5


def test_an_older_contract_without_curves_or_bins_gets_a_page(version: Version, tmp_path: Path) -> None:
    _, data, _ = _judged(version, version[1].labels)
    report.write(tmp_path, version[1], data, name="shapes", version=None, mistakes=[])
    assert {path.name for path in tmp_path.iterdir()} == {"card.json", "evaluation.json", "report.html"}
    assert "Right on 100.0 % of 6 test pictures" in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_every_picture_is_described_and_every_table_named(html: str) -> None:
    page = Page(html)
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) == 4
    assert [tag for tag, _ in page.elements if tag in {"h1", "h2", "h3"}][:2] == ["h1", "h2"]
    assert len(page.all("h1")) == 1


@pytest.mark.parametrize("shape", [(8, 8, 1), (600, 300, 3)])
def test_grey_and_large_pictures_are_shown_too(shape: tuple[int, int, int], version: Version) -> None:
    picture = np.full(shape, 200, np.uint8)
    wrong = [report.Mistake(picture, "a", "b", 0.9, 0.1)]
    (shown,) = _page(*_judged(version, ["a", "b"]), mistakes=wrong).pictures()
    assert max(shown.size) == min(max(shape), report.THUMBNAIL)
    assert np.asarray(shown).flat[0] == 200


def test_the_most_frequent_mistakes_come_first_and_right_answers_are_none() -> None:
    judged = evaluation.evaluate(
        np.eye(3)[[0, 1, 1, 2, 2, 2, 0]], np.array([0, 0, 0, 2, 1, 1, 1]), labels=["a", "b", "c"], dataset="seven"
    )
    assert report.most_confused(judged) == [
        report.Pair("a", "b", 2, 2 / 3),
        report.Pair("b", "c", 2, 2 / 3),
        report.Pair("b", "a", 1, 1 / 3),
    ]
    assert len(report.most_confused(judged, 1)) == 1


def test_a_rare_mistake_is_shaded_visibly_and_none_is_not() -> None:
    assert report.shaded([[99, 1, 0], [0, 0, 0]]) == [[(99, 0.99, 10), (1, 0.01, 1), (0, 0.0, 0)], [(0, 0.0, 0)] * 3]


def test_the_first_sentence_speaks_of_the_fullest_bin_where_few_are_90_percent_sure() -> None:
    sure = np.array([0.9] * 10 + [0.7] * 20)
    part = evaluation.calibration(1.0, np.log(np.stack([sure, 1 - sure], axis=1)), np.zeros(30, np.int64))
    bin_ = report.typical(part)
    assert bin_
    assert bin_.confidence == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (59.6, "1 min 0 s"), (171, "2 min 51 s"), (3750, "1 h 2 min")],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, told: str) -> None:
    assert report.duration(seconds) == told

"""The report of a run: what came of it, on one page that asks for no other file, and as files beside it.

What the contract knows is taken from the contract, so that the two cannot disagree.
"""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from serving.contract import Calibration, Contract, Evaluation, Reference, ReliabilityBin
from training import evaluation, history, plots
from training.data import Dataset, Examples
from training.files import write_whole
from training.repository import megabytes

PAGE = "report.html"
MISTAKES = 24
"""Mistakes that are shown."""
PAIRS = 10
"""Pairs of labels that are named as the most confused."""
SHADES = 10
"""Steps in which a cell of the confusion matrix is shaded."""
TEXT_START, TEXT_END = 300, 120
"""Characters that the page shows of a longer text: a review's verdict often stands at its end."""
THUMBNAIL = 192
"""Pixels of a picture's longer side on the page."""
SURE = 0.9
"""The confidence that the first sentence speaks of …"""
ENOUGH = 30
"""… where so many answers were about as sure."""
PANEL, DIAGRAM, HEAT_MAP = (3.9, 2.9), (3.9, 3.9), (4.4, 3.7)
"""Sizes in inches."""


@dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
        raw: the picture, uint8 [height, width, 1 or 3], or the text.
        truth: the right label.
        answered: the label that the model gave.
        confidence: how sure it was of that.
        missed: how probable it thought the right one.
    """

    raw: NDArray[np.uint8] | str
    truth: str
    answered: str
    confidence: float
    missed: float


@dataclass(frozen=True)
class LabelRow:
    """A line of the table of labels: shares with the 95 % intervals in which they lie."""

    label: str
    learned: float | None
    examples: int
    recall: float
    recall_interval: tuple[float, float]
    precision: float
    precision_interval: tuple[float, float]
    f1: float


@dataclass(frozen=True)
class Pair:
    """So many examples of one label were called another."""

    truth: str
    answered: str
    count: int
    share: float


def mistakes(
    examples: Examples, probabilities: NDArray[np.floating], labels: Sequence[str], count: int = MISTAKES
) -> list[Mistake]:
    """The wrong answers that the model was most sure of, see `evaluation.worst`.

    Args:
        examples: raw, of the test.
        probabilities: [n, labels], calibrated.
        labels: their names.
        count: how many at most.
    """
    return [
        Mistake(
            raw=examples.inputs[position],
            truth=labels[examples.labels[position]],
            answered=labels[int(row.argmax())],
            confidence=float(row.max()),
            missed=float(row[examples.labels[position]]),
        )
        for position in evaluation.worst(probabilities, examples.labels, count)
        for row in [probabilities[position]]
    ]


def write(
    folder: Path,
    contract: Contract,
    data: Dataset,
    *,
    name: str,
    version: Path | None,
    mistakes: Sequence[Mistake],
    checks: Sequence[str] = (),
    refusals: Sequence[str] = (),
) -> Path:
    """Write a run's report: `report.html`, its pictures, and its numbers in `card.json`.

    Args:
        folder: is made; what an earlier run left of these files is replaced. Evaluation and history are files too.
        contract: of the version.
        data: that it learned from and was tested on.
        name: of the model.
        version: its folder in the model repository; None where it was not published.
        mistakes: from `mistakes`.
        checks: what was found before publishing, a sentence each.
        refusals: why it was not published, a sentence each.

    Returns:
        the page.

    Raises:
        OSError: it cannot be written.
    """
    judged, curves = contract.evaluation, contract.provenance.history
    if curves:
        history.save(curves, folder, title=f"{name}: {data.name}")
    write_whole(folder / "evaluation.json", judged.model_dump_json(indent=2).encode())
    write_whole(folder / "card.json", json.dumps(contract.card(), indent=2, ensure_ascii=False).encode())
    if judged.confusion:
        side = 4 + 0.4 * min(len(contract.labels), plots.NUMBERED_LABELS)
        drawing = plots.confusion(judged.confusion, contract.labels)
        write_whole(folder / "confusion.png", plots.png(drawing, size=(side, side)))
    if contract.calibration.reliability:
        drawing = plots.reliability(contract.calibration.reliability)
        write_whole(folder / "reliability.png", plots.png(drawing, size=(6.0, 6.0)))
    _write_mistakes(folder / "mistakes", mistakes)
    html = page(contract, data, name=name, version=version, mistakes=mistakes, checks=checks, refusals=refusals)
    write_whole(folder / PAGE, html.encode())
    return folder / PAGE


def page(
    contract: Contract,
    data: Dataset,
    *,
    name: str,
    version: Path | None,
    mistakes: Sequence[Mistake],
    checks: Sequence[str] = (),
    refusals: Sequence[str] = (),
) -> str:
    """The page, as `write` writes it: without scripts, and with a policy that keeps it from asking for anything."""
    judged, calibration = contract.evaluation, contract.calibration
    curves = contract.provenance.history or {}
    right = round(judged.accuracy * judged.examples)
    many = len(contract.labels) > plots.NUMBERED_LABELS
    template = _templates().get_template("report.html.jinja")
    return template.render(
        contract=contract,
        data=data,
        name=name,
        version=version,
        megabytes=version and megabytes(version),
        checks=checks,
        refusals=refusals,
        right=right,
        interval=evaluation.wilson_interval(right, judged.examples),
        guess=guess(judged),
        macro_f1=evaluation.macro_f1(judged),
        goal=evaluation.CALIBRATION_GOAL,
        typical=typical(calibration),
        curves=curves,
        epochs=max(map(len, curves.values()), default=0),
        best=best(curves.get("val_accuracy", [])),
        panels=[(key, _drawn(plots.history(curves, key), PANEL)) for key in ("accuracy", "loss") if curves.get(key)],
        matrix=[] if many else shaded(judged.confusion),
        heat_map=_drawn(plots.confusion(judged.confusion, contract.labels), HEAT_MAP) if many else None,
        shades=range(1, SHADES + 1),
        pairs=most_confused(judged),
        reliability=_drawn(plots.reliability(calibration.reliability), DIAGRAM) if calibration.reliability else None,
        bins=bins(calibration),
        rows=label_rows(judged, contract.reference),
        wrong=judged.examples - right,
        mistakes=[(mistake, _picture(mistake.raw), shortened(mistake.raw)) for mistake in mistakes],
    )


def guess(judged: Evaluation) -> float:
    """How often the one answer that fits most examples would be right: what an accuracy has to beat."""
    return max((label.examples for label in judged.per_label), default=0) / judged.examples


def best(values: Sequence[float]) -> int | None:
    """Position of the highest value, the first where there are several."""
    return max(range(len(values)), key=values.__getitem__) if values else None


def bins(calibration: Calibration) -> list[tuple[float, float, ReliabilityBin]]:
    """The bins that hold examples: from which confidence, up to which, and what became of them."""
    every = calibration.reliability or []
    return [(number / len(every), (number + 1) / len(every), one) for number, one in enumerate(every) if one.examples]


def typical(calibration: Calibration) -> ReliabilityBin | None:
    """The bin to speak of: that of answers which are about 90 % sure, or the fullest where those are few."""
    every = calibration.reliability or []
    if not every:
        return None
    sure = every[ceil(SURE * len(every)) - 1]
    return sure if sure.examples >= ENOUGH else max(every, key=lambda one: one.examples)


def shaded(confusion: Sequence[Sequence[int]]) -> list[list[tuple[int, float, int]]]:
    """The confusion matrix, each cell with its share of the row, and how dark to shade it: 0 to SHADES.

    The square root shows rare mistakes beside frequent hits.
    """
    return [
        [(count, count / max(1, sum(row)), ceil(SHADES * sqrt(count / max(1, sum(row))))) for count in row]
        for row in confusion
    ]


def most_confused(judged: Evaluation, count: int = PAIRS) -> list[Pair]:
    """The most frequent mistakes, most frequent first."""
    names = [label.label for label in judged.per_label]
    wrong = np.array(judged.confusion, dtype=np.int64).reshape(len(names), len(names))
    np.fill_diagonal(wrong, 0)
    places = np.argsort(-wrong, axis=None, kind="stable")[:count]
    return [
        Pair(names[i], names[j], int(wrong[i, j]), float(wrong[i, j] / judged.per_label[i].examples))
        for i, j in zip(*np.unravel_index(places, wrong.shape), strict=True)
        if wrong[i, j]
    ]


def label_rows(judged: Evaluation, reference: Reference) -> list[LabelRow]:
    """A line for each label: in their order, or where they are too many for a matrix the least recognised first."""
    called = np.array(judged.confusion, dtype=np.int64).sum(axis=0)
    known = len(reference.label_frequencies) == len(judged.per_label)
    rows = [
        LabelRow(
            label=label.label,
            learned=reference.label_frequencies[i] if known else None,
            examples=label.examples,
            recall=label.recall,
            recall_interval=evaluation.wilson_interval(round(label.recall * label.examples), label.examples),
            precision=label.precision,
            precision_interval=evaluation.wilson_interval(round(label.precision * int(called[i])), int(called[i])),
            f1=evaluation.f1(label),
        )
        for i, label in enumerate(judged.per_label)
    ]
    return sorted(rows, key=lambda row: row.f1) if len(rows) > plots.NUMBERED_LABELS else rows


def shortened(raw: NDArray[np.uint8] | str) -> str | None:
    """The start and the end of a text, at spaces where it has some; None of a picture."""
    if not isinstance(raw, str):
        return None
    if len(raw) <= TEXT_START + TEXT_END:
        return raw
    start, end = raw[:TEXT_START], raw[-TEXT_END:]
    return f"{start.rsplit(None, 1)[0]} […] {end.split(None, 1)[-1]}"


def percent(share: float, digits: int = 1) -> str:
    """0.934 → 93.4 %, with a space that no line breaks at."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def between(interval: tuple[float, float]) -> str:
    """(0.929, 0.939) → 92.9–93.9 %, not broken either."""
    return f"{100 * interval[0]:.1f}–\N{WORD JOINER}{percent(interval[1])}"


def duration(seconds: float) -> str:
    """3750 → 1 h 2 min; the two largest units, and tenths of a second below ten."""
    if seconds < 9.95:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minute} min"
    return f"{minute} min {second} s" if minute else f"{second} s"


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "percent": percent,
        "between": between,
        "duration": duration,
        "sha256": lambda text: base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode(),
    }
    return templates


def _drawn(draw: plots.Draw, size: tuple[float, float]) -> dict[str, str]:
    """A picture for either colour scheme, as data URIs."""
    return {
        scheme: _data_uri(plots.svg(draw, theme, size=size), "image/svg+xml")
        for scheme, theme in (("light", plots.LIGHT), ("dark", plots.DARK))
    }


def _picture(raw: Any) -> dict[str, Any] | None:
    """A picture for the page, and whether it is so small that its pixels are to be seen; None of a text."""
    if isinstance(raw, str):
        return None
    return {"uri": _data_uri(_png(raw, THUMBNAIL), "image/png"), "small": max(raw.shape) < THUMBNAIL / 2}


def _write_mistakes(folder: Path, mistakes: Sequence[Mistake]) -> None:
    """Each raw input as a file, in a folder that holds no others."""
    shutil.rmtree(folder, ignore_errors=True)
    for number, mistake in enumerate(mistakes, 1):
        stem = f"{number:02} {_plain(mistake.truth)} called {_plain(mistake.answered)}"
        if isinstance(mistake.raw, str):
            write_whole(folder / f"{stem}.txt", mistake.raw.encode())
        else:
            write_whole(folder / f"{stem}.png", _png(mistake.raw))


def _plain(label: str) -> str:
    """A label as a part of a file's name, whatever it is."""
    return re.sub(r"[^\w-]+", "_", label)[:20]


def _png(pixels: NDArray[np.uint8], longest: int | None = None) -> bytes:
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    if longest:
        image.thumbnail((longest, longest))
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

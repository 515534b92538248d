"""How answers look on a terminal: bars, coloured words, a heat map. Pure: values → text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.style import Style
from rich.text import Text

from sightread_client import Answer, ImageAnswer, ImageExplanation, Prediction, TextAnswer, TextExplanation

FOR, AGAINST = (230, 85, 13), (33, 102, 222)
"""Orange and blue, as on the page: told apart by nearly every eye."""
SHADED_FIELDS, SIGNED_FIELDS = 16, 8
"""Of a side of a heat map, at most, with colours and without: single pixels of an attribution are noise to the eye."""
FAINT = 0.1
"""Of the strongest: what adds less has no colour."""
SIGNED = (0.2, 0.6)
"""Of the strongest: what adds less has no sign, or only one."""
MIDDLE = (0.42, 0.58)
"""What lies between these shares of a side is neither left nor right, upper nor lower."""
STRONGEST = 3
"""Words that are named on each side."""
EIGHTHS = " ▏▎▍▌▋▊▉"
LONGEST_BAR, LONGEST_LABEL, SHORTEST_LABEL = 24, 24, 10


@dataclass(frozen=True)
class Page:
    """What is written on.

    Attributes:
        width: of a line, in cells.
        cuts: whether a name that is longer than the line is cut; what reads a pipe wants it whole.
        colours: whether it has any.
        unicode: whether it has more than ASCII.
    """

    width: int
    cuts: bool
    colours: bool
    unicode: bool


def answer_line(answer: Answer, name: str, page: Page) -> Text:
    """One line: the best label, its bar, and whose it is; the name last, for it may be long."""
    line = _prediction(Prediction(answer.label, answer.score), SHORTEST_LABEL, page, share=3)
    return line.append("  ").append(_fitted(name, page.width - line.cell_len - 2, answer) if page.cuts else name)


def answer_block(answer: Answer, name: str, page: Page) -> Iterator[Text]:
    """The labels with their bars, the version that answered, and what the answer rests on where that was asked."""
    yield Text(_fitted(name, page.width, answer) if page.cuts else name, "bold")
    width = min(LONGEST_LABEL, max(cell_len(plain(prediction.label)) for prediction in answer.predictions))
    for prediction in answer.predictions:
        yield Text("  ") + _prediction(prediction, width, page, share=2)
    yield Text(f"  {plain(answer.model.name)}, version {answer.model.version}", "dim")


def explained_picture(answer: ImageAnswer, page: Page) -> Iterator[Text]:
    """A coarse heat map of what the model saw, and where its weight lies."""
    if answer.explanation is None:
        return
    yield Text()
    yield from _heat_map(answer.explanation, page)
    legend = "orange" if page.colours else "+"
    against = "blue" if page.colours else "-"
    yield Text(
        f"What is {legend} speaks for {plain(answer.explanation.label)}, what is {against} against it. "
        f"The {legend} centres on {_centre(answer.explanation)}."
    )


def explained_text(answer: TextAnswer, text: str, page: Page) -> Iterator[Text]:
    """The text with its words coloured by what they add, and the strongest of them by name."""
    if answer.explanation is None:
        return
    spans = merged(answer.explanation)
    yield Text()
    if page.colours:
        yield _coloured(text, spans)
    label = plain(answer.explanation.label)
    for preposition, sign in (("for", 1), ("against", -1)):
        ranked = sorted(
            (span for span in spans if sign * span.attribution > 0), key=lambda span: -abs(span.attribution)
        )
        words = ", ".join(
            f"{plain(text[span.start : span.end])} ({span.attribution:+.2f})" for span in ranked[:STRONGEST]
        )
        yield Text(f"{preposition} {label}: {words or 'nothing'}")


def plain(text: str) -> str:
    """A text in one line that changes nothing on a terminal: no colours, no cursor, whatever a file's name holds."""
    shown = " ".join(text.encode("utf-8", "replace").decode().split())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in shown)


def _fitted(name: str, width: int, answer: Answer) -> str:
    """As much of a name as fits: of a path the end tells most, of a text the start."""
    while cell_len(name) > max(width, 1):
        if isinstance(answer, ImageAnswer):
            name = "…" + name.removeprefix("…")[1:]
        else:
            name = name.removesuffix("…")[:-1] + "…"
    return name


def _prediction(prediction: Prediction, label_width: int, page: Page, *, share: int) -> Text:
    """Label, bar, percentage; the bar has a part of what is left of the line."""
    label = set_cell_size(plain(prediction.label), max(label_width, min(cell_len(prediction.label), LONGEST_LABEL)))
    left = page.width - cell_len(label) - len("    100.0 %")
    bar = _bar(prediction.score, max(4, min(LONGEST_BAR, left // share)), page)
    return Text.assemble(label, "  ", (bar, "cyan"), f" {prediction.score:6.1%}".replace("%", " %"))


def _bar(score: float, width: int, page: Page) -> str:
    if not page.unicode:
        return ("#" * round(score * width)).ljust(width)
    full, eighths = divmod(round(score * width * 8), 8)
    return ("█" * full + EIGHTHS[eighths].strip()).ljust(width)


class Span(NamedTuple):
    """Characters `start` to `end` of a text, and what they add."""

    start: int
    end: int
    attribution: float


def merged(explanation: TextExplanation) -> list[Span]:
    """The tokens as spans that do not overlap: several tokens can come from one character."""
    spans: list[Span] = []
    for token in explanation.tokens:
        if spans and token.start < spans[-1].end:
            last = spans.pop()
            spans.append(Span(last.start, max(last.end, token.end), last.attribution + token.attribution))
        elif token.end > token.start:
            spans.append(Span(token.start, token.end, token.attribution))
    return spans


def _coloured(text: str, spans: Sequence[Span]) -> Text:
    most = max((abs(span.attribution) for span in spans), default=0) or 1
    coloured = Text()
    at = 0
    for span in spans:
        coloured.append(_spaced(text[at : span.start]))
        coloured.append(_spaced(text[span.start : span.end]), _style(span.attribution / most))
        at = span.end
    return coloured.append(_spaced(text[at:]), "dim" if spans else "")


def _spaced(text: str) -> str:
    """As `plain`, but for spaces at the ends: the words around need them."""
    if not text.strip():
        return " " if text else ""
    return " " * text[0].isspace() + plain(text) + " " * text[-1].isspace()


def _style(weight: float) -> Style:
    """A colour behind: the stronger the weight, between -1 and 1, the nearer to orange or blue."""
    if abs(weight) < FAINT:
        return Style.null()
    strength = 0.25 + 0.75 * abs(weight)
    red, green, blue = (round(strength * channel) for channel in (FOR if weight > 0 else AGAINST))
    return Style(color="white", bgcolor=Color.from_rgb(red, green, blue))


def _heat_map(explanation: ImageExplanation, page: Page) -> Iterator[Text]:
    """Two cells for each field, so that fields are about square."""
    side = min(SHADED_FIELDS if page.colours else SIGNED_FIELDS, max(1, (page.width - 2) // 2))
    fields = _coarse(explanation.attribution, side, side)
    most = max(abs(field) for row in fields for field in row) or 1
    for row in fields:
        line = Text()
        for field in row:
            weight = field / most
            if page.colours:
                line.append("  ", _style(weight))
            else:
                line.append(_sign(weight))
        yield line


def _sign(weight: float) -> str:
    """A weight, between -1 and 1, without colours: two signs for a strong one, one for a weak one."""
    sign = "+" if weight > 0 else "-"
    return (sign * sum(abs(weight) >= limit for limit in SIGNED)).ljust(2)


def _coarse(attribution: Sequence[Sequence[float]], rows: int, columns: int) -> list[list[float]]:
    """The sums over a coarser grid."""
    return [
        [
            sum(map(sum, (line[left:right] for line in attribution[top:bottom])))
            for left, right in _cuts(len(attribution[0]), columns)
        ]
        for top, bottom in _cuts(len(attribution), rows)
    ]


def _cuts(length: int, parts: int) -> list[tuple[int, int]]:
    parts = min(parts, length)
    return list(pairwise(length * number // parts for number in range(parts + 1)))


def _centre(explanation: ImageExplanation) -> str:
    """In words, where the weight of what speaks for the label lies."""
    height, width = len(explanation.attribution), len(explanation.attribution[0])
    weights = [
        (added, (x + 0.5) / width, (y + 0.5) / height)
        for y, row in enumerate(explanation.attribution)
        for x, added in enumerate(row)
        if added > 0
    ]
    total = sum(added for added, _, _ in weights) or 1
    across = sum(added * x for added, x, _ in weights) / total
    down = sum(added * y for added, _, y in weights) / total
    place = [_third(down, "upper", "lower"), _third(across, "left", "right")]
    return f"the {' '.join(filter(None, place))} part" if any(place) else "the middle"


def _third(share: float, low: str, high: str) -> str:
    start, end = MIDDLE
    return low if share < start else high if share > end else ""

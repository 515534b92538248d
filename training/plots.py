"""The pictures of a report, each drawn once: as a PNG for the folder, as SVG in two colour schemes for the page.

The two colours are of Okabe and Ito's palette, which colour-blind people tell apart.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Literal

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from serving.contract import ReliabilityBin
from training.evaluation import wilson_interval

History = Mapping[str, Sequence[float]]
"""Keras's: `accuracy`, `val_accuracy`, `loss`, `val_loss`, one number for each epoch."""
Draw = Callable[[Figure], None]

NUMBERED_LABELS = 20
"""With more labels than these a confusion matrix has no room for numbers and names."""
MARKED_EPOCHS = 30
"""With more epochs than these a line needs no marks to be seen."""
LONGEST_NAME = 24
AXES = {"accuracy": "Accuracy", "loss": "Loss (nats)"}


def _theme(*, ink: str, grid: str, surface: str, first: str, second: str) -> mpl.RcParams:
    theme = {
        "axes.edgecolor": grid,
        "axes.labelcolor": ink,
        "axes.prop_cycle": cycler(color=[first, second]),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.facecolor": surface,
        "axes.facecolor": surface,
        "font.size": 9,
        "grid.color": grid,
        "legend.frameon": False,
        "svg.fonttype": "none",  # the reader's fonts: they have every alphabet, and the text can be read out
        "svg.hashsalt": "sightread",  # the same picture is the same file
        "text.color": ink,
        "text.parse_math": False,  # a dollar in a name is a dollar
        "xtick.color": ink,
        "ytick.color": ink,
    }
    return mpl.RcParams(theme)


LIGHT = _theme(ink="#24292f", grid="#c8d0d8", surface="#ffffff", first="#0072b2", second="#d55e00")
DARK = _theme(ink="#d6dce2", grid="#444c56", surface="#161b22", first="#56b4e9", second="#e69f00")


def png(draw: Draw, *, size: tuple[float, float]) -> bytes:
    """A picture of a size in inches, 120 pixels each."""
    return _saved(draw, LIGHT, "png", size)


def svg(draw: Draw, theme: mpl.RcParams, *, size: tuple[float, float]) -> bytes:
    """A picture of a size in inches, each 72 of the page's pixels unless it is stretched."""
    return _saved(draw, theme, "svg", size)


def history(curves: History, *names: str, title: str = "") -> Draw:
    """Each of the named curves against the epoch, on training and validation data, side by side."""

    def draw(figure: Figure) -> None:
        figure.suptitle(title)
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _curves(axes, curves, name)

    return draw


def reliability(bins: Sequence[ReliabilityBin]) -> Draw:
    """How often answers of like confidence were right, with 95 % intervals; below, how many there were of them."""
    width = 1 / len(bins)
    filled = [(number, one) for number, one in enumerate(bins) if one.examples]
    middles = np.array([(number + 0.5) * width for number, _ in filled])
    accuracy = np.array([one.accuracy for _, one in filled])
    gaps = np.array([one.confidence - one.accuracy for _, one in filled])
    intervals = [wilson_interval(round(one.accuracy * one.examples), one.examples) for _, one in filled]
    low, high = np.array(intervals).T
    start = min(filled[0][0] * width, 0.5)

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        above.bar(middles, accuracy, width * 0.92, color="C0", alpha=0.75, label="right")
        above.bar(middles, gaps, width * 0.92, accuracy, color=("C1", 0.45), edgecolor="C1", label="gap")
        reach = np.clip([accuracy - low, high - accuracy], 0, None)
        ink = mpl.rcParams["text.color"]
        above.errorbar(middles, accuracy, reach, fmt="none", ecolor=ink, elinewidth=1, capsize=2)
        above.plot([start, 1], [start, 1], color=ink, linestyle="--", linewidth=1, label="perfect")
        above.set_ylabel("Right")
        above.set_ylim(0, 1.02)
        above.yaxis.set_major_formatter(PercentFormatter(1))
        above.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1, borderaxespad=0.2)
        below.bar(middles, [one.examples for _, one in filled], width * 0.92, color="C0", alpha=0.75)
        below.set_ylabel("Answers")
        below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        below.set_xlabel("Confidence")
        below.set_xlim(start, 1)
        below.xaxis.set_major_formatter(PercentFormatter(1))
        figure.align_ylabels()

    return draw


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> Draw:
    """The confusion matrix, shaded by each true label's shares; named and numbered while there is room."""
    counts = np.array(matrix)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        surface, strong = mpl.rcParams["axes.facecolor"], mpl.rcParams["axes.prop_cycle"].by_key()["color"][0]
        # the square root shows rare mistakes beside frequent hits
        shading = axes.imshow(
            shares,
            cmap=LinearSegmentedColormap.from_list("shares", [surface, strong]),
            norm=PowerNorm(0.5, vmin=0, vmax=1),
        )
        axes.set_xlabel("Answered")
        axes.set_ylabel("True")
        if len(labels) > NUMBERED_LABELS:
            figure.colorbar(shading, format=PercentFormatter(1), shrink=0.8, label="Share of the true label")
            return
        names = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in labels]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(counts):
            dark = shares[row, column] > 0.4  # noqa: PLR2004  # where the shade is too dark for ink
            axes.text(column, row, f"{count:,}", ha="center", va="center", size=8, color=surface if dark else None)

    return draw


def _curves(axes: Axes, curves: History, name: str) -> None:
    for key, label, marker, line in ((name, "training", "o", "-"), (f"val_{name}", "validation", "s", "--")):
        values = curves.get(key, [])
        mark = marker if len(values) <= MARKED_EPOCHS else None
        axes.plot(range(1, len(values) + 1), values, marker=mark, markersize=4, linestyle=line, label=label)
    axes.set_xlabel("Epoch")
    axes.set_ylabel(AXES.get(name, name))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    if name == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(visible=True, alpha=0.6)
    axes.legend()


def _saved(draw: Draw, theme: mpl.RcParams, file_format: Literal["png", "svg"], size: tuple[float, float]) -> bytes:
    with mpl.rc_context(theme), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a PNG shows a box for what its font lacks
        # a Figure of its own draws with Agg: pyplot would keep global state and may look for a screen
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        draw(figure)
        file = BytesIO()
        figure.savefig(file, format=file_format, metadata={"Date": None} if file_format == "svg" else None)
    return file.getvalue()

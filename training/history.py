"""How training went, epoch by epoch: as numbers and as a picture."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.files import write_whole

History = Mapping[str, Sequence[float]]
"""Keras's: `accuracy`, `val_accuracy`, `loss`, `val_loss`, one number for each epoch."""


def save(history: History, folder: Path, *, title: str) -> None:
    """Write `history.json` and `history.png` into a folder.

    Raises:
        OSError: they cannot be written.
    """
    numbers = {name: [float(value) for value in values] for name, values in history.items()}
    write_whole(folder / "history.json", (json.dumps(numbers, indent=2) + "\n").encode())
    write_whole(folder / "history.png", plot(history, title=title))


def plot(history: History, *, title: str) -> bytes:
    """Accuracy and loss against epoch, on training and validation data → a PNG."""
    # a Figure of its own draws with Agg: pyplot would keep global state and may look for a screen
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    figure.suptitle(title)
    accuracy, loss = figure.subplots(1, 2)
    _curves(accuracy, history, "accuracy", "Accuracy")
    _curves(loss, history, "loss", "Loss (cross-entropy, nats)")
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _curves(axes: Axes, history: History, name: str, label: str) -> None:
    epochs = range(1, len(history[name]) + 1)
    axes.plot(epochs, history[name], marker="o", label="training")
    axes.plot(epochs, history[f"val_{name}"], marker="s", linestyle="--", label="validation")
    axes.set_xlabel("Epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()

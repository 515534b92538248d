"""How training went, epoch by epoch: as numbers and as a picture."""

import json
from pathlib import Path

from training import plots
from training.files import write_whole
from training.plots import History

SIZE = (10.0, 4.0)


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
    return plots.png(plots.history(history, "accuracy", "loss", title=title), size=SIZE)

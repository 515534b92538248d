import json
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from training import history

CURVES = {"accuracy": [0.5, 0.7], "val_accuracy": [0.4, 0.6], "loss": [1.5, 0.9], "val_loss": [1.6, 1.1]}


def test_the_numbers_are_saved_as_they_are(tmp_path: Path) -> None:
    history.save({**CURVES, "loss": list(np.array([1.5, 0.9], np.float32))}, tmp_path / "new", title="cnn")
    saved = json.loads((tmp_path / "new" / "history.json").read_text())
    assert saved["accuracy"] == [0.5, 0.7]
    assert saved["loss"] == [1.5, np.float32(0.9)]


def test_the_picture_shows_what_the_numbers_say(tmp_path: Path) -> None:
    history.save(CURVES, tmp_path, title="cnn")
    with Image.open(tmp_path / "history.png") as picture:
        assert picture.size == (1200, 480)
    assert history.plot(CURVES, title="cnn") == history.plot(CURVES, title="cnn")
    assert history.plot({**CURVES, "val_loss": [1.6, 1.7]}, title="cnn") != history.plot(CURVES, title="cnn")
    assert history.plot({**CURVES, "val_accuracy": [0.4, 0.7]}, title="cnn") != history.plot(CURVES, title="cnn")


def test_one_epoch_can_be_seen() -> None:
    one = {name: values[:1] for name, values in CURVES.items()}
    pixels = np.asarray(Image.open(BytesIO(history.plot(one, title="cnn"))).convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0] > 80).any(axis=0)
    # a point in the first panel's plot, left of its legend, too: matplotlib draws a lone point only with a marker
    assert blue[:600].sum() > 20
    assert blue[600:].sum() > 20


def test_nothing_half_written_stays_behind(tmp_path: Path) -> None:
    history.save(CURVES, tmp_path, title="cnn")
    assert {path.name for path in tmp_path.iterdir()} == {"history.json", "history.png"}

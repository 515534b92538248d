"""`sightread evaluate`: the user's own test examples through a running service."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import ImageColor

from tests.e2e.processes import Service
from tests.e2e.tiny_models import COLOURS, picture


def _evaluate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "sightread", "evaluate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("good", "bad", "right"), [("positive", "negative", "100.00%"), ("negative", "positive", "0.00%")]
)
def test_a_table_of_texts(service: Service, tmp_path: Path, good: str, bad: str, right: str) -> None:
    rows = [f"{mood} film {number},{label}" for number in range(50) for mood, label in (("good", good), ("bad", bad))]
    table = tmp_path / "reviews.csv"
    table.write_text("\n".join(["said,meant", *rows, "an empty label,"]) + "\n")
    columns = ["--text-column", "said", "--label-column", "meant"]
    done = _evaluate("text", "--url", service.url, "--data", str(table), *columns)
    assert done.returncode == 0, done.stderr
    assert f"accuracy {right} of 20 " in done.stdout
    assert "recall" in done.stdout
    assert "1 of" in done.stderr


def test_a_folder_of_pictures_and_a_certain_version(service: Service, tmp_path: Path) -> None:
    for colour in COLOURS:
        (tmp_path / colour).mkdir()
        for number in range(30):
            # no two alike: copies are left out
            shade = tuple(value * (100 - number) // 100 for value in ImageColor.getrgb(colour))
            (tmp_path / colour / f"{number}.png").write_bytes(picture(shade, (40, 40)))
    done = _evaluate("image", "--url", service.url, "--data", str(tmp_path), "--version", "1")
    assert done.returncode == 0, done.stderr
    assert "answered by version 1 (18)" in done.stdout
    assert "accuracy 100.00% of 18 " in done.stdout
    assert all(f"{colour:12} recall 100.00% of 6" in done.stdout for colour in COLOURS)


def test_nobody_there_and_nothing_to_send_are_told(tmp_path: Path) -> None:
    table = tmp_path / "reviews.csv"
    table.write_text("text,label\n" + "".join(f"film {number},{number % 2}\n" for number in range(20)))
    nobody = _evaluate("text", "--url", "http://127.0.0.1:1", "--data", str(table))
    assert (nobody.returncode, "make serve" in nobody.stderr) == (1, True)
    assert "these same 20" in nobody.stderr
    nothing = _evaluate("image", "--data", str(tmp_path / "nowhere"))
    assert (nothing.returncode, "nowhere" in nothing.stderr) == (1, True)
    assert "Traceback" not in nobody.stderr + nothing.stderr

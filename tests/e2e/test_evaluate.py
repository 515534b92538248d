"""`sightread evaluate`: the user's own test examples through a running service."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageColor

from tests.e2e.conftest import Start
from tests.e2e.processes import Service, started
from tests.e2e.tiny_models import COLOURS, picture
from training.data import Examples
from training.evaluate_service import EvaluateConfig, Unanswered, ask_all


def _evaluate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "sightread", "evaluate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _reviews(rows: int, good: str = "good", bad: str = "bad") -> str:
    """A table of them, half good."""
    moods = ((good, "positive"), (bad, "negative"))
    return "text,label\n" + "".join(
        f"{mood} film {number},{label}\n" for number in range(rows // 2) for mood, label in moods
    )


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


def test_pictures_are_sent_as_they_lie_on_the_disk(service: Service, tmp_path: Path) -> None:
    for colour in COLOURS:
        (tmp_path / colour).mkdir()
        for number in range(30):
            shade = tuple(value * (100 - number) // 100 for value in ImageColor.getrgb(colour))
            # the red ones have more bytes than the service takes
            side, kind = (300, "BMP") if colour == "red" else (40, "PNG")
            (tmp_path / colour / f"{number}.{kind.lower()}").write_bytes(picture(shade, (side, side), kind))
    done = _evaluate("image", "--url", service.url, "--data", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "accuracy 100.00% of 12 " in done.stdout
    assert "left out of these figures: 6 of 18" in done.stdout
    assert f"{tmp_path / 'red'}/" in done.stdout


def test_a_picture_that_is_gone_is_no_answer(service: Service, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture("red"))
    files = np.array([tmp_path / "red.png", tmp_path / "gone.png"], dtype=object)
    examples = Examples(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2, np.int64), files)
    there, gone = asyncio.run(ask_all(EvaluateConfig(what="image", url=service.url), examples))
    assert not isinstance(there, Unanswered)
    assert there.label == "red"
    assert gone == Unanswered(str(files[1]), "it cannot be read any more (No such file or directory)")


def test_what_the_service_refuses_is_named_and_left_out_of_the_figures(service: Service, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(_reviews(120, good="good" + " long" * 300))
    done = _evaluate("text", "--url", service.url, "--data", str(tmp_path / "reviews.csv"))
    assert done.returncode == 0, done.stderr
    assert "accuracy 100.00% of 12 " in done.stdout
    assert "recall 100.00% of 12" in done.stdout
    left_out = done.stdout.partition("not answered, and left out of these figures: 12 of 24\n")[2].splitlines()
    assert len(left_out) == 11
    assert "'good long long" in left_out[0]
    assert "at most 1,000" in left_out[0]
    assert left_out[-1] == "  and 2 more"


@pytest.mark.slow
def test_a_service_that_refuses_every_example_is_no_evaluation(service: Service, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(_reviews(120, good="good" + " long" * 300, bad="bad" + " long" * 300))
    done = _evaluate("text", "--url", service.url, "--data", str(tmp_path / "reviews.csv"))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "none of 24 examples was answered" in line


@pytest.mark.slow
def test_a_limited_rate_is_kept_to(start_gateway: Start, repository: Path, tmp_path: Path) -> None:
    limited = start_gateway("--models", str(repository), "--rate-limit", "8/second")
    limited.wait_for(limited.is_ready)
    (tmp_path / "reviews.csv").write_text(_reviews(100))
    done = _evaluate("text", "--url", limited.url, "--data", str(tmp_path / "reviews.csv"))
    assert done.returncode == 0, done.stderr
    assert "accuracy 100.00% of 20 " in done.stdout


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999",
        *(pytest.param(url, marks=pytest.mark.slow) for url in ("localhost:8080", "http://", "http://[::1")),
    ],
)
def test_what_is_no_address_is_told_in_one_line(url: str, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(_reviews(100))
    done = _evaluate("text", "--url", url, "--data", str(tmp_path / "reviews.csv"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{url!r} is no address" in line


@pytest.mark.slow
def test_what_is_no_such_service_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(_reviews(100))
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with started(command, "Serving HTTP on ", tmp_path / "log") as other:
        url = other.url.partition("(")[2].partition("/)")[0]
        missing = _evaluate("text", "--url", url, "--data", str(tmp_path / "reviews.csv"))
        (tmp_path / "models").write_text("<html>Welcome</html>")
        welcome = _evaluate("text", "--url", url, "--data", str(tmp_path / "reviews.csv"))
    assert (missing.returncode, welcome.returncode) == (1, 1)
    (line,) = missing.stderr.splitlines()
    assert f"{url}/models answered 404" in line
    (line,) = welcome.stderr.splitlines()
    assert "is no answer of a Sightread service: is this its address?" in line


@pytest.mark.slow
def test_nobody_there_and_nothing_to_send_are_told(tmp_path: Path) -> None:
    table = tmp_path / "reviews.csv"
    table.write_text("text,label\n" + "".join(f"film {number},{number % 2}\n" for number in range(20)))
    nobody = _evaluate("text", "--url", "http://127.0.0.1:1", "--data", str(table))
    assert (nobody.returncode, "make serve" in nobody.stderr) == (1, True)
    assert "these same 20" in nobody.stderr
    nothing = _evaluate("image", "--data", str(tmp_path / "nowhere"))
    assert (nothing.returncode, "nowhere" in nothing.stderr) == (1, True)
    assert "Traceback" not in nobody.stderr + nothing.stderr

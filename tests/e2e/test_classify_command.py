"""`sightread classify` against a running gateway: what it prints, for people and for machines, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.cells import cell_len

from tests.client.scripted import Answer, Handler, answers, scripted
from tests.e2e.conftest import Start
from tests.e2e.processes import Service
from tests.e2e.terminals import SIGHTREAD, Done, sightread, sightread_on_terminal
from tests.e2e.tiny_models import picture

Classify = Callable[..., Done]

GREEN = {
    "label": "green",
    "score": 0.9,
    "predictions": [{"label": "green", "score": 0.9}],
    "model": {"name": "cnn", "version": 2},
}
PROBLEM = {"title": "X", "status": 500, "detail": "This is why."}
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def classify(service: Service) -> Classify:
    return lambda *arguments, **options: sightread("classify", *arguments, "--url", service.url, **options)


@pytest.fixture
def on_terminal(service: Service) -> Classify:
    return lambda *arguments, **options: sightread_on_terminal("classify", *arguments, "--url", service.url, **options)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    file = tmp_path / "red.png"
    file.write_bytes(picture("red"))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them deeper, a text, and what is hidden."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name, colour in (("a.png", "red"), ("c.png", "blue"), ("deeper/b.jpg", "green"), (".hidden/d.png", "red")):
        (folder / name).write_bytes(picture(colour))
    (folder / "b.txt").write_text("no picture")
    (folder / ".DS_Store").write_text("no picture")
    return folder


def lines(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_picture_gets_its_labels_with_bars_and_the_version(classify: Classify, red: Path) -> None:
    done = classify(str(red))
    assert (done.code, done.err) == (0, "")
    name, best, *others, version = done.out.strip().splitlines()
    assert name == str(red)
    assert re.fullmatch(r"  red +█+[▏▎▍▌▋▊▉]? +9\d\.\d %", best)
    assert len(others) == 2
    assert version == "  cnn, version 2"


def test_a_folder_is_gone_through_and_what_is_no_picture_is_listed(classify: Classify, folder: Path) -> None:
    done = classify(str(folder))
    assert done.code == 1
    assert [line.split()[0] for line in done.out.splitlines()] == ["red", "blue", "green"]
    assert [line.split()[-1] for line in done.out.splitlines()] == [
        str(folder / name) for name in ("a.png", "c.png", "deeper/b.jpg")
    ]
    assert f"{folder}/b.txt: These 10 bytes are not a picture" in done.err
    assert "3 answered, 1 not" in done.err
    (folder / "b.txt").unlink()
    assert classify(str(folder)).code == 0


def test_json_is_a_line_for_each_item_and_nothing_else_goes_there(
    classify: Classify, folder: Path, tmp_path: Path
) -> None:
    done = classify(str(folder), str(tmp_path / "nowhere.png"), "--json", "--top-k", "2", "--version", "1")
    assert done.code == 1
    told = lines(done)
    assert [line["input"].rpartition("/")[-1] for line in told] == ["a.png", "b.txt", "c.png", "b.jpg", "nowhere.png"]
    assert told[0]["label"] == "red"
    assert told[0]["model"] == {"name": "cnn", "version": 1}
    assert len(told[0]["predictions"]) == 2
    assert told[1]["problem"]["status"] == 422
    assert told[4]["problem"] == {"status": None, "detail": "No such file or directory"}


def test_standard_input_is_a_picture_or_a_whole_text(classify: Classify) -> None:
    (answer,) = lines(classify("-", "--json", stdin=picture("blue")))
    assert (answer["input"], answer["label"]) == ("-", "blue")
    (answer,) = lines(classify("--text", "-", "--json", stdin=b"a good\ngood film"))
    assert (answer["input"], answer["label"]) == ("a good\ngood film", "positive")
    nothing = classify("-", stdin=b"")
    assert nothing.code == 1
    assert "empty" in nothing.err


def test_texts_come_from_the_command_line_or_a_line_each_from_a_file(classify: Classify, tmp_path: Path) -> None:
    done = classify("--text", "good film", "--text", "bad film", "--json")
    assert [line["label"] for line in lines(done)] == ["positive", "negative"]
    file = tmp_path / "reviews.txt"
    file.write_text("good film\n\n  bad film\r\ngood", encoding="utf-8-sig")
    for done in (classify("--texts", str(file), "--json"), classify("--texts", "-", "--json", stdin=file.read_bytes())):
        assert [line["input"] for line in lines(done)] == ["good film", "bad film", "good"]
        assert [line["label"] for line in lines(done)] == ["positive", "negative", "positive"]


def test_an_explained_text_names_its_words_and_colours_them_where_there_are_colours(
    classify: Classify, on_terminal: Classify
) -> None:
    arguments = ("--text", "A good, good film, not bad", "--explain")
    plain = classify(*arguments)
    assert plain.code == 0
    assert re.search(r"for positive: good \(\+\d\.\d\d\), good", plain.out)
    assert re.search(r"against positive: bad \(-\d\.\d\d\)", plain.out)
    assert "\x1b" not in plain.out
    coloured = on_terminal(*arguments)
    assert re.search(r"\x1b\[37;48;2;\d+;\d+;\d+mgood\x1b\[0m", coloured.out)
    assert "\x1b[37" not in on_terminal(*arguments, environment={"NO_COLOR": "1"}).out


def test_an_explained_picture_shows_where_its_weight_lies(classify: Classify, tmp_path: Path) -> None:
    file = tmp_path / "left.bmp"
    # red at the left, blue at the right: what speaks for red stands at the left
    file.write_bytes(_halves("red", "blue", 5))
    done = classify(str(file), "--explain")
    assert done.code == 0
    assert done.out.count("  ++++++++++------") == 8
    assert "The + centres on the left part." in " ".join(done.out.split())
    (answer,) = lines(classify(str(file), "--explain", "--json"))
    assert len(answer["explanation"]["attribution"]) == 8


def _halves(left: str, right: str, columns: int) -> bytes:
    image, buffer = Image.new("RGB", (8, 8), right), BytesIO()
    image.paste(Image.new("RGB", (columns, 8), left))
    image.save(buffer, "BMP")
    return buffer.getvalue()


@pytest.mark.parametrize("columns", [40, 80])
def test_no_line_is_wider_than_the_terminal(on_terminal: Classify, folder: Path, columns: int) -> None:
    deep = folder / "a folder with a long name" / "and one below it"
    deep.mkdir(parents=True)
    (deep / "picture.png").write_bytes(picture("red"))
    for arguments in ((str(deep / "picture.png"),), (str(deep), "--explain")):
        shown = ESCAPE.sub("", on_terminal(*arguments, columns=columns).out)
        assert max(cell_len(line) for line in shown.splitlines()) <= columns
        assert "picture.png" in shown


def test_a_folder_has_a_progress_bar_on_a_terminal_only(
    classify: Classify, on_terminal: Classify, folder: Path
) -> None:
    shown = on_terminal(str(folder))
    assert shown.code == 1
    assert "4/4" in shown.out
    assert "4/4" not in classify(str(folder)).err


def test_names_cannot_play_tricks_on_the_terminal(on_terminal: Classify, classify: Classify, tmp_path: Path) -> None:
    file = tmp_path / "\x1b[31m[bold]\n\u202etxt.png"
    file.write_bytes(picture())
    for done in (on_terminal(str(file), environment={"NO_COLOR": "1"}), classify(str(file))):
        assert done.code == 0
        assert "\x1b[31m" not in done.out
        assert r"\x1b[31m[bold] \u202etxt.png" in done.out
    odd = tmp_path / b"\xff.png".decode("utf-8", "surrogateescape")
    odd.write_bytes(picture())
    assert classify(str(odd)).code == 0
    assert lines(classify(str(odd), "--json"))[0]["input"].endswith("?.png")


def test_whoever_reads_only_the_first_line_ends_it_quietly(service: Service, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(picture())
    for flags in ([], ["--json"]):
        command = [*SIGHTREAD, "classify", str(tmp_path), "--url", service.url, *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert "red" in process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""


def test_output_that_is_no_utf_8_is_no_failure(classify: Classify, red: Path) -> None:
    ascii_only = classify(str(red), environment={"PYTHONIOENCODING": "ascii"})
    assert ascii_only.code == 0
    assert re.search(r"red +#+ +9\d\.\d %", ascii_only.out)
    assert classify("--text", "good 日本", environment={"PYTHONIOENCODING": "latin-1"}).code == 0


def test_without_a_service_it_says_how_to_start_one(red: Path) -> None:
    done = sightread("classify", str(red), environment={"SIGHTREAD_URL": "http://127.0.0.1:1"})
    assert (done.code, done.out) == (1, "")
    assert "make serve" in done.err
    assert "http://127.0.0.1:1" in done.err


def test_a_service_that_wants_a_key_or_is_not_ready_says_what_to_do(
    start_gateway: Start, tmp_path: Path, red: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90")  # the SHA-256 of: alice
    service = start_gateway("--model-server", "127.0.0.1:1", "--api-keys-file", str(keys))
    done = sightread("classify", str(red), "--url", service.url)
    assert done.code == 1
    assert "SIGHTREAD_API_KEY" in done.err
    arguments = ("classify", str(red), "--url", service.url, "--timeout", "2")
    done = sightread(*arguments, environment={"SIGHTREAD_API_KEY": "alice"})
    assert done.code == 1
    assert "cnn is not ready" in done.err
    assert "sightread doctor" in done.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "name a picture"),
        (("a.png", "--text", "good"), "not both"),
        (("-", "-"), "only once"),
        (("--text", "-", "--texts", "-"), "only once"),
        (("",), "'' names no file"),
        (("a.png", "--top-k", "0"), "--top-k: it takes a number from 1, not '0'"),
        (("a.png", "--top-k", "x"), "--top-k: it takes a number from 1, not 'x'"),
        (("a.png", "--version", "1", "--version-label", "stable"), "not allowed with"),
        (("a.png", "--url", "localhost:8080"), "no address"),
        (("a.png", "--timeout", "0"), "timeout"),
        (("--texts", "/nowhere"), "/nowhere cannot be read"),
    ],
)
def test_wrong_flags_are_named(arguments: tuple[str, ...], why: str) -> None:
    done = sightread("classify", *arguments)
    assert (done.code, done.out) == (2, "")
    assert why in done.err


@pytest.mark.parametrize("arguments", [("-",), ("--text", "-"), ("--texts", "-")])
def test_closed_standard_input_is_told(arguments: tuple[str, ...]) -> None:
    command = ["sh", "-c", '"$@" <&-', "sh", *SIGHTREAD, "classify", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "standard input, which is closed: pipe something in" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_is_not_waited_for(on_terminal: Classify) -> None:
    done = on_terminal("-")
    assert done.code == 2
    assert "pipe something in" in " ".join(done.out.split())


def test_an_empty_folder_and_an_unknown_version_fail(classify: Classify, tmp_path: Path, red: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "there is no file" in classify(str(tmp_path / "empty")).err
    done = classify(str(red), "--version", "9")
    assert done.code == 1
    assert "no version 9" in done.err


def in_turn(*whats: Answer) -> Answer:
    """What is answered to pictures of one byte, of two, of three …: several are asked for at once."""
    return lambda handler: whats[len(handler.body) - 1](handler)


def waits(handler: Handler) -> None:
    """No answer, until whoever asked goes away."""
    handler.rfile.read(1)


def in_sizes(folder: Path, count: int) -> Path:
    for number in range(1, count + 1):
        (folder / f"{number}.png").write_bytes(b"x" * number)
    return folder


@pytest.mark.parametrize("status", [429, 500, 504])
def test_a_picture_that_the_service_fails_at_is_listed_and_the_others_are_answered(tmp_path: Path, status: int) -> None:
    answer = in_turn(answers(200, GREEN), answers(status, PROBLEM, Retry_After="3600"), answers(200, GREEN))
    with scripted(*[answer] * 3) as server:
        done = sightread("classify", str(in_sizes(tmp_path, 3)), "--url", server.url)
    assert done.code == 1
    assert [line.split()[-1] for line in done.out.splitlines()] == [str(tmp_path / "1.png"), str(tmp_path / "3.png")]
    assert done.err.splitlines() == [f"{tmp_path / '2.png'}: This is why.", "2 answered, 1 not"]


@pytest.mark.parametrize(
    "end", [answers(503, PROBLEM, Retry_After="3600"), answers(401, PROBLEM), answers(200, "<html>Welcome</html>")]
)
def test_what_concerns_all_ends_it_and_what_failed_before_is_still_told(tmp_path: Path, end: Answer) -> None:
    answer = in_turn(answers(504, PROBLEM), end)
    with scripted(*[answer] * 2) as server:
        done = sightread("classify", str(in_sizes(tmp_path, 2)), "--url", server.url)
    assert (done.code, done.out) == (1, "")
    failure, why = done.err.splitlines()
    assert failure == f"{tmp_path / '1.png'}: This is why."
    assert why.startswith("sightread classify: ")


def test_interrupted_it_still_tells_what_failed(tmp_path: Path) -> None:
    answer = in_turn(answers(504, PROBLEM), waits)
    with scripted(*[answer] * 2) as server:
        command = [*SIGHTREAD, "classify", str(in_sizes(tmp_path, 2)), "--url", server.url, "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "problem" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
    assert (process.returncode, err) == (130, f"{tmp_path / '1.png'}: This is why.\n")


def test_interrupted_while_it_reads_what_to_ask_it_ends_quietly(tmp_path: Path) -> None:
    pipe = tmp_path / "texts"
    os.mkfifo(pipe)
    command = [*SIGHTREAD, "classify", "--texts", str(pipe)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, pipe.open("wb"):
        # to open it took both sides: the command waits for what is written there
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (130, "")


def test_it_loads_neither_tensorflow_nor_the_gateway() -> None:
    heavy = {"tensorflow", "keras", "serving", "training", "grpc"}
    script = f"import sys, terminal.classify; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"

import csv
from pathlib import Path

import pytest

from training.data.left_out import Bad, record


def test_all_are_listed_in_a_file_and_the_terminal_shows_kinds_and_the_first_ten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [Bad(f"cat/{n}.png", f"The picture has {n:,} pixels.") for n in range(2000)]
    bad += [Bad("dog/1.png", "a copy of 'dog/2.png'"), Bad("dog/3.png", "a copy of 'dog/4.png'")]
    record(bad, tmp_path / "runs", things="files")
    with (tmp_path / "runs" / "left_out.csv").open(newline="", encoding="utf-8") as file:
        assert [tuple(row) for row in csv.reader(file)] == [
            ("where", "reason"),
            *((one.where, one.reason) for one in bad),
        ]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Files left out: 2,002, all listed in ")
    assert said[1:3] == ["    2,000 × The picture has … pixels.", "        2 × a copy of …"]
    assert said[4:] == [f"  cat/{n}.png: The picture has {n} pixels." for n in range(10)]


def test_many_kinds_of_reasons_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record([Bad("x", "reason " + letter) for letter in "abcdefghijklm"], tmp_path, things="rows")
    assert "        3 × other reasons" in capsys.readouterr().out.splitlines()


def test_names_that_are_no_unicode_or_command_a_terminal_are_shown_harmless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record([Bad("\udcff\x1b[2J\n.png", "The “ä” is bad.")], tmp_path, things="files")
    shown = r"\udcff\x1b[2J\n.png"
    assert f"  {shown}: The “ä” is bad." in capsys.readouterr().out.splitlines()
    assert (tmp_path / "left_out.csv").read_text(encoding="utf-8").splitlines()[1] == f"{shown},The “ä” is bad."


def test_without_anything_bad_nothing_is_said_and_an_earlier_list_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record([Bad("x", "y")], tmp_path, things="rows")
    capsys.readouterr()
    record([], tmp_path, things="rows")
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
    record([], tmp_path / "nowhere", things="rows")
    assert not (tmp_path / "nowhere").exists()

from collections.abc import Callable
from pathlib import Path

import pytest

from training.data import table
from training.data.table import BadRow
from training.problems import DataProblem

WriteCsv = Callable[[str], Path]


def _many(rows: int) -> str:
    return "text,label\n" + "".join(f"text number {i},{'yes' if i % 2 else 'no'}\n" for i in range(rows))


def test_labels_are_sorted_by_name_and_a_large_table_is_cut_in_three(write_csv: WriteCsv) -> None:
    data, bad = table.read(write_csv(_many(200)), name="mine", validation=0.1, seed=0)
    assert data.labels == ["no", "yes"]
    assert (len(data.train), len(data.validation), len(data.test)) == (144, 16, 40)
    parts = [set(part.inputs) for part in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == 200
    assert not bad
    assert not data.seen
    assert data.judged_on == "mine"


def test_a_table_too_small_to_cut_is_used_whole_and_says_so(write_csv: WriteCsv) -> None:
    data, _ = table.read(write_csv(_many(8)), name="mine", validation=0.1, seed=0)
    assert len(data.train) == len(data.validation) == len(data.test) == 8
    assert data.seen
    assert data.judged_on == "mine (all 8 examples, the model learned from these same)"


def test_other_columns_quotes_line_breaks_and_a_byte_order_mark_are_read(write_csv: WriteCsv) -> None:
    path = write_csv('\ufeffid,Label,Text\r\n1,a,"x, ""y""\nz"\r\n2,b,w\r\n')
    data, bad = table.read(path, name="mine", validation=0.1, seed=0)
    assert data.train.inputs.tolist() == ['x, "y"\nz', "w"]
    assert data.train.labels.tolist() == [0, 1]
    assert not bad


def test_bad_rows_are_left_out_and_listed_with_the_line_they_start_on(write_csv: WriteCsv) -> None:
    path = write_csv('text,label\n"two\nlines",a\nx,y,z\n<br />,a\n\nw,\nlonely\nv,b\n')
    data, bad = table.read(path, name="mine", validation=0.1, seed=0)
    assert data.train.inputs.tolist() == ["two\nlines", "v"]
    assert bad == [
        BadRow(4, "3 fields where the header has 2: a text with commas needs quotation marks"),
        BadRow(5, "the text has no words"),
        BadRow(7, "the label is empty"),
        BadRow(8, "1 fields where the header has 2"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty: its first line must be the header text,label"),
        ("text,label\n", r"has 0 labels \(no row at all\): give it two"),
        ("text,sentiment\nx,a\n", r"has no column 'label' \(its first line says text, sentiment\)"),
        ("text;label\nx;a\n", "has no column 'text'"),
        ("text,label\nx,a\ny,a\n", r"has 1 labels \('a'\): give it two"),
        ("text,label\nx,a\ny,b\nz,c\n", r"has 3 labels \('a', 'b', 'c'\)"),
        ("text,label\nx\n", r"has 0 labels .*1 rows are bad, the first at line 2: 1 fields"),
        ('text,label\n"x,a\ny,b\n', r"is not CSV \(line 3: unexpected end of data\)"),
    ],
    ids=["empty", "header only", "no label", "semicolons", "one label", "three labels", "only bad rows", "open quote"],
)
def test_a_table_that_cannot_be_learned_from_is_refused(content: str, says: str, write_csv: WriteCsv) -> None:
    with pytest.raises(DataProblem, match=says):
        table.read(write_csv(content), name="mine", validation=0.1, seed=0)


def test_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("text,label\nok,a\ncafé,b\n".encode("latin-1"))
    with pytest.raises(DataProblem, match=r"is not UTF-8 \(line 3\): save it as UTF-8"):
        table.read(tmp_path / "latin.csv", name="mine", validation=0.1, seed=0)


@pytest.mark.parametrize(("place", "says"), [("", "Is a directory"), ("nowhere.csv", "No such file")])
def test_a_folder_or_a_missing_file_is_refused(place: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match=says):
        table.read(tmp_path / place, name="mine", validation=0.1, seed=0)

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.training.made_data import write_sentences
from training.data import Dataset, table
from training.data.left_out import Bad
from training.problems import DataProblem

WriteCsv = Callable[[str], Path]


def read(path: Path, **options: Any) -> tuple[Dataset, list[Bad]]:
    given: dict[str, Any] = {"name": "mine", "validation": 0.1, "seed": 0}
    return table.read(path, **given | options)


def _many(rows: int) -> str:
    return "text,label\n" + "".join(f"text number {i},{'yes' if i % 2 else 'no'}\n" for i in range(rows))


def _write_jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def _write_parquet(path: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def test_labels_are_sorted_by_name_and_a_large_table_is_cut_in_three(write_csv: WriteCsv) -> None:
    data, bad = read(write_csv(_many(200)))
    assert data.labels == ["no", "yes"]
    assert (len(data.train), len(data.validation), len(data.test)) == (144, 16, 40)
    parts = [set(part.inputs) for part in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == 200
    assert not bad
    assert not data.seen
    assert data.judged_on == "mine"


@pytest.mark.parametrize(("few", "many"), [(60, 70), (200, 210), (200, 400)])
def test_a_text_that_was_learned_from_is_not_in_the_test_of_a_table_that_grew(
    few: int, many: int, write_csv: WriteCsv
) -> None:
    before, _ = read(write_csv(_many(few)))
    header, *rows = _many(many).splitlines(keepends=True)
    after, _ = read(write_csv(header + "".join(rows[::-1])))
    assert len(before.test) + len(before.train) + len(before.validation) == few
    assert set(before.train.inputs).isdisjoint(after.test.inputs)
    kept = set(before.test.inputs) & set(after.test.inputs)
    assert len(kept) >= 0.8 * len(before.test)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_texts_of_any_number_of_labels(suffix: str, tmp_path: Path) -> None:
    write_sentences(tmp_path / "made.csv", 120, labels=4)
    write_sentences(tmp_path / f"other{suffix}", 120, labels=4)
    (expected, _), (data, bad) = (read(tmp_path / name) for name in ("made.csv", f"other{suffix}"))
    assert data.labels == ["complaint", "order", "praise", "question"]
    assert bad == []
    for part, wanted in (
        (data.train, expected.train),
        (data.validation, expected.validation),
        (data.test, expected.test),
    ):
        assert part.inputs.tolist() == wanted.inputs.tolist()
        assert part.labels.tolist() == wanted.labels.tolist()


def test_a_table_too_small_to_cut_is_used_whole_and_says_so(write_csv: WriteCsv) -> None:
    data, _ = read(write_csv(_many(8)))
    assert len(data.train) == len(data.validation) == len(data.test) == 8
    assert data.seen
    assert data.judged_on == "mine (all 8 examples, the model learned from these same)"


def test_other_columns_quotes_line_breaks_and_a_byte_order_mark_are_read(write_csv: WriteCsv) -> None:
    path = write_csv('\ufeffid,Label,Text\r\n1,a,"x, ""y""\nz"\r\n2,b,w\r\n3,b,v\r\n')
    data, bad = read(path)
    assert data.train.inputs.tolist() == ['x, "y"\nz', "w", "v"]
    assert data.train.labels.tolist() == [0, 1, 1]
    assert not bad


def test_a_tab_separated_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "texts.tsv").write_text("text\tlabel\nx, y\ta\nz\tb\nv\tb\n")
    assert read(tmp_path / "texts.tsv")[0].train.inputs.tolist() == ["x, y", "z", "v"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_columns_are_found_by_the_names_that_are_given(suffix: str, tmp_path: Path) -> None:
    rows = [{"text": "no", "Review": text, "stars": label} for text, label in (("x", "1"), ("y", "2"), ("z", "2"))]
    path = tmp_path / f"reviews{suffix}"
    match suffix:
        case ".csv":
            path.write_text("text,Review,stars\n" + "".join(",".join(row.values()) + "\n" for row in rows))
        case ".jsonl":
            _write_jsonl(path, *rows)
        case _:
            parquet.write_table(pa.Table.from_pylist(rows), path)
    data, _ = read(path, text_column="review", label_column="stars")
    assert data.train.inputs.tolist() == ["x", "y", "z"]
    assert data.labels == ["1", "2"]


def test_bad_rows_are_left_out_and_listed_with_the_line_they_start_on(write_csv: WriteCsv) -> None:
    path = write_csv('text,label\n"two\nlines",a\nx,y,z\n<br />,a\n\nw,\nlonely\nv,b\nu,b\n ,a\n')
    data, bad = read(path)
    assert data.train.inputs.tolist() == ["two\nlines", "v", "u"]
    assert bad == [
        Bad("line 4", "3 fields where the header has 2: a text with commas needs quotation marks"),
        Bad("line 5", "the text has no words"),
        Bad("line 7", "the label is empty"),
        Bad("line 8", "1 fields where the header has 2"),
        Bad("line 11", "the text is empty"),
    ]


def test_bad_lines_of_jsonl_are_left_out_and_listed(tmp_path: Path) -> None:
    path = _write_jsonl(
        tmp_path / "texts.jsonl",
        {"text": "x", "label": "a"},
        "",
        {"text": None, "label": "a"},
        {"text": "y"},
        {"text": 5, "label": "a"},
        {"text": "y", "label": ["a"]},
        {"text": "y", "label": 0.5},
        ["y", "a"],
        '{"text": "y", "label": "a"',
        '{"text": "\\ud800", "label": "a"}',
        "[" * 100_000,
        {"text": "y", "label": "b"},
        {"TEXT": "z", "Label": "b"},
    )
    data, bad = read(path)
    assert data.train.inputs.tolist() == ["x", "y", "z"]
    assert bad == [
        Bad("line 3", "the text is null"),
        Bad("line 4", "it has no label"),
        Bad("line 5", "the text is a number"),
        Bad("line 6", "the label is a list"),
        Bad("line 7", "the label is a number"),
        Bad("line 8", "it is not a JSON object"),
        Bad("line 9", "it is not JSON"),
        Bad("line 10", "the text is not valid Unicode"),
        Bad("line 11", "it is not JSON"),
    ]


def test_bad_rows_of_parquet_are_left_out_and_listed(tmp_path: Path) -> None:
    texts = pa.array([b"x", None, b"caf\xe9", b"", b"y", b"z"], pa.binary())
    labels = pa.array(["a", "a", "a", "b", None, "b"]).dictionary_encode()
    path = _write_parquet(tmp_path / "texts.parquet", text=texts, label=labels)
    with pytest.raises(DataProblem, match="has 2 examples"):
        read(path)
    path = _write_parquet(
        tmp_path / "texts.parquet",
        text=pa.concat_arrays([texts, pa.array([b"w"])]),
        label=["a", "a", "a", "b", None, "b", "b"],
    )
    data, bad = read(path)
    assert data.train.inputs.tolist() == ["x", "z", "w"]
    assert bad == [
        Bad("row 2", "the text is null"),
        Bad("row 3", "the text is not UTF-8"),
        Bad("row 4", "the text is empty"),
        Bad("row 5", "the label is null"),
    ]


@pytest.mark.parametrize(
    ("labels", "names"),
    [([3, 10, 10], ["10", "3"]), ([True, False, False], ["false", "true"]), ([1.0, 2.0, 2.0], ["1", "2"])],
    ids=["whole numbers", "booleans", "floats that are whole"],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_labels_that_are_no_texts_become_some(labels: list[Any], names: list[str], suffix: str, tmp_path: Path) -> None:
    path, texts = tmp_path / f"texts{suffix}", ["x", "y", "z"]
    if suffix == ".jsonl":
        _write_jsonl(path, *({"text": text, "label": label} for text, label in zip(texts, labels, strict=True)))
    else:
        _write_parquet(path, text=texts, label=labels)
    assert read(path)[0].labels == names


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_every_kind_of_text_that_arrow_has_is_read(kind: pa.DataType, tmp_path: Path) -> None:
    columns = {"text": ["x", "yä", "z"], "label": ["a", "b", "b"]}
    path = tmp_path / "texts.parquet"
    parquet.write_table(pa.table({name: pa.array(values).cast(kind) for name, values in columns.items()}), path)
    assert read(path)[0].train.inputs.tolist() == ["x", "yä", "z"]


def test_a_text_that_is_there_twice_is_read_once(write_csv: WriteCsv) -> None:
    data, bad = read(write_csv("text,label\nGood film,a\nx,b\n good  FILM,a\ny,b\n"))
    assert data.train.inputs.tolist() == ["Good film", "x", "y"]
    assert bad == [Bad("line 4", "a copy of line 2")]


def test_a_text_with_two_labels_is_left_out_and_both_rows_are_listed_in_order(write_csv: WriteCsv) -> None:
    data, bad = read(write_csv("text,label\nw,a\nsame,a\nx,b\n,b\nsame,b\ny,b\n"))
    assert data.train.inputs.tolist() == ["w", "x", "y"]
    assert bad == [
        Bad("line 3", "the same text has the label 'b' too (line 6)"),
        Bad("line 5", "the text is empty"),
        Bad("line 6", "the same text has the label 'a' too (line 3)"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty: its first line must name the columns, as text,label"),
        ("text,label\n", r"has 0 labels \(nothing to learn from\): give it two or more"),
        ("text,sentiment\nx,a\n", r"has no column 'label' \(it has text, sentiment\).* --label-column"),
        ("text;label\nx;a\n", "has no column 'text'"),
        ("text,label,Text,label\nx,a,y,b\n", "has 2 columns 'label'"),
        ("text,label\nx,a\ny,a\n", r"has 1 labels \('a'\): give it two"),
        ("text,label\nx,a\ny,b\n", "has 2 examples: give it at least 3"),
        ("text,label\nx,A\ny,a\nz,b\n", "has the labels 'A' and 'a': give both one name"),
        ("text,label\nx\n", r"has 0 labels .*left out: 1, first line 2: 1 fields"),
        ('text,label\n"x,a\ny,b\n', r"is not CSV \(line 3: unexpected end of data\)"),
        (_many(100) + "z,rare\n", "too few examples of a label: 'rare' has 1, where 'no' has 50"),
        (
            "text,label\n" + "".join(f"text {i},label {i}\n" for i in range(60)),
            "'label 0' has 1, .* and 55 more have too few, where",
        ),
    ],
    ids=[
        "empty",
        "header only",
        "no label",
        "semicolons",
        "two columns",
        "one label",
        "two rows",
        "labels alike",
        "only bad rows",
        "open quote",
        "a rare label",
        "columns swapped",
    ],
)
def test_a_table_that_cannot_be_learned_from_is_refused(content: str, says: str, write_csv: WriteCsv) -> None:
    with pytest.raises(DataProblem, match=says):
        read(write_csv(content))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"text": "x", "label": "a"}\n{"text": "y", "lab', "breaks off in line 2: fetch it anew"),
        (b'{"text": "caf\xe9", "label": "a"}\n', r"is not UTF-8 \(line 1\)"),
        (b"\n" + b" " * (table.LONGEST_FIELD + 1), "line 2 is over 10,000,000 bytes"),
        (b'[{"text": "x", "label": "a"}]\n', "left out: 1, first line 1: it is not a JSON object"),
    ],
    ids=["truncated", "latin-1", "a huge line", "a JSON list"],
)
def test_a_broken_jsonl_file_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_bytes(content)
    with pytest.raises(DataProblem, match=says):
        read(tmp_path / "texts.jsonl")


@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.9], ids=["empty", "three bytes", "half", "nine tenths"])
def test_a_truncated_parquet_file_is_refused(keep: float, tmp_path: Path) -> None:
    write_sentences(tmp_path / "texts.parquet", 50)
    content = (tmp_path / "texts.parquet").read_bytes()
    (tmp_path / "texts.parquet").write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(DataProblem, match="is not a whole Parquet file"):
        read(tmp_path / "texts.parquet")


def test_a_parquet_file_with_damaged_rows_is_refused(tmp_path: Path) -> None:
    write_sentences(tmp_path / "texts.parquet", 200)
    content = bytearray((tmp_path / "texts.parquet").read_bytes())
    content[4:400] = b"\xff" * 396
    (tmp_path / "texts.parquet").write_bytes(content)
    with pytest.raises(DataProblem, match="is not a whole Parquet file"):
        read(tmp_path / "texts.parquet")


def test_a_parquet_column_of_another_type_is_refused_by_name(tmp_path: Path) -> None:
    path = _write_parquet(tmp_path / "texts.parquet", text=[["x"], ["y"]], label=["a", "b"])
    with pytest.raises(DataProblem, match=r"has list<.*> in its column 'text', which is no text"):
        read(path)


def test_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("text,label\nok,a\ncafé,b\n".encode("latin-1"))
    with pytest.raises(DataProblem, match=r"is not UTF-8 \(line 3\): save it as UTF-8"):
        read(tmp_path / "latin.csv")


@pytest.mark.parametrize(
    ("place", "says"),
    [("", "is no file"), ("nowhere.csv", "No such file"), ("texts.xlsx", r"ends in none of \.csv, \.tsv, \.jsonl")],
)
def test_a_folder_a_missing_file_or_another_format_is_refused(place: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "texts.xlsx").touch()
    with pytest.raises(DataProblem, match=says):
        read(tmp_path / place)


def test_the_checksum_is_the_files(write_csv: WriteCsv, tmp_path: Path) -> None:
    path = write_csv(_many(60))
    before = read(path)[0].sha256
    assert read(Path(shutil.copy(path, tmp_path / "copy.csv")))[0].sha256 == before
    assert read(write_csv(_many(60).replace("number 7", "number seven")))[0].sha256 != before

"""The user's own texts: a CSV, JSONL or Parquet file with a column of texts and a column of labels."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.preprocessing.text import LONE_SURROGATE
from training.data import Dataset, Examples, in_parts
from training.data.copies import copies
from training.data.labels import check, tidy
from training.data.left_out import Bad
from training.problems import DataProblem
from training.tokenizer import has_words

LONGEST_FIELD = 10_000_000
"""Characters of a CSV's field, bytes of a JSONL's line; beyond it a quotation mark was surely left open."""
MISSING = object()
"""What a JSON object that lacks a column has there."""
JSON_WORDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bytes: "not UTF-8",
}


@dataclass(frozen=True)
class Row:
    """A row to learn from; its number is that of the line it starts on, or in Parquet its own, counted from 1."""

    number: int
    text: str
    label: str


@dataclass(frozen=True)
class Fault:
    """A row that is none, and why."""

    number: int
    reason: str


Columns = tuple[str, str]
"""What the columns of the text and of the label are called."""


def read(
    path: Path, *, name: str, text_column: str = "text", label_column: str = "label", validation: float, seed: int
) -> tuple[Dataset, list[Bad]]:
    """The texts of a file, and the rows that were left out.

    The file's ending tells its format: `.csv` (RFC 4180, with a header; `.tsv` with tabs), `.jsonl` or `.ndjson` (an
    object a line), or `.parquet`. All are UTF-8. A column is found whatever the case of its name. Labels lose spaces
    at their ends; in JSONL and Parquet they may be whole numbers or booleans too, which become `7` and `true`. They
    are sorted by name.

    A text that is there twice (case and spaces do not count) is read once, see `training.data.copies`. What is left is
    cut into training, validation and test, or where it is too little serves for all three, see
    `training.data.in_parts`.

    Args:
        path: of the file.
        name: what it is called.
        text_column: what the column of the texts is called.
        label_column: what the column of the labels is called.
        validation: share of the training rows to hold out.
        seed: which rows are held out.

    Raises:
        DataProblem: the file is not what its ending says, a column is missing or of another type, or there are too
            few labels or examples of one.
    """
    checksum = _checksum(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DataProblem(f"{path} ends in none of {', '.join(FORMATS)}: save it as one of these.")
    unit, cells = FORMATS[suffix]
    rows: list[Row] = []
    faults: list[Fault] = []
    for row in cells(path, (text_column, label_column)):
        if isinstance(row, Fault):
            faults.append(row)
        else:
            rows.append(row)
    check({row.label for row in rows}, source=path, bad=_bad(faults, unit))
    labels = sorted({row.label for row in rows})
    left_out = copies(
        [_reading(row.text) for row in rows],
        [row.label for row in rows],
        [f"{unit} {row.number}" for row in rows],
        thing="text",
    )
    faults += [Fault(rows[position].number, reason) for position, reason in left_out.items()]
    kept = [row for position, row in enumerate(rows) if position not in left_out]
    position_of = {label: position for position, label in enumerate(labels)}
    everything = Examples(
        np.array([row.text for row in kept], dtype=object),
        np.array([position_of[row.label] for row in kept], dtype=np.int64),
    )
    dataset = in_parts(
        {"train": everything},
        source=path,
        name=name,
        labels=labels,
        validation=validation,
        seed=seed,
        content=_reading,
        sha256=checksum,
    )
    return dataset, _bad(faults, unit)


def _reading(text: str) -> str:
    """What is left of a text where case and spaces do not count."""
    return " ".join(text.casefold().split())


def _bad(faults: list[Fault], unit: str) -> list[Bad]:
    return [Bad(f"{unit} {one.number}", one.reason) for one in sorted(faults, key=lambda fault: fault.number)]


def _checksum(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise DataProblem(f"{path} is no file: give a CSV, JSONL or Parquet file with --data.")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataProblem(f"{path} cannot be read ({error.strerror}): give another file with --data.") from error


def _csv(path: Path, columns: Columns, *, delimiter: str = ",") -> Iterator[Row | Fault]:
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, content.count(b"\n", 0, error.start) + 1) from error
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        header = next(reader, [])
        if not header:
            raise DataProblem(f"{path} is empty: its first line must name the columns, as {delimiter.join(columns)}.")
        text_at, label_at = (_position(header, column, path=path) for column in columns)
        line = reader.line_num + 1
        for fields in reader:
            if len(fields) == len(header):
                yield _row(line, fields[text_at], fields[label_at])
            elif fields:
                mark = "tabs" if delimiter == "\t" else "commas"
                hint = f": a text with {mark} needs quotation marks" if len(fields) > len(header) else ""
                yield Fault(line, f"{len(fields)} fields where the header has {len(header)}{hint}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataProblem(f"{path} is not CSV (line {reader.line_num}: {error}): mend that line.") from error


def _tsv(path: Path, columns: Columns) -> Iterator[Row | Fault]:
    yield from _csv(path, columns, delimiter="\t")


def _jsonl(path: Path, columns: Columns) -> Iterator[Row | Fault]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_FIELD + 1):
            number += 1
            if len(line) > LONGEST_FIELD:
                raise DataProblem(f"{path} is not JSONL (line {number} is over {LONGEST_FIELD:,} bytes): mend it.")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number) from error
            if not text.strip():
                continue
            try:
                found = json.loads(text)
            except (ValueError, RecursionError) as error:
                if not text.endswith("\n"):
                    raise DataProblem(f"{path} breaks off in line {number}: fetch it anew, or mend it.") from error
                yield Fault(number, "it is not JSON")
                continue
            if isinstance(found, dict):
                yield _row(number, *(_member(found, column) for column in columns))
            else:
                yield Fault(number, "it is not a JSON object")


def _member(found: dict[str, Any], column: str) -> Any:
    if column in found:
        return found[column]
    return next((value for key, value in found.items() if _plain(key) == _plain(column)), MISSING)


def _parquet(path: Path, columns: Columns) -> Iterator[Row | Fault]:
    # not for the other formats: they need no 100 MB library
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            positions = [_position(schema.names, column, path=path) for column in columns]
            for position, admitted in zip(positions, (_TEXT_TYPES, _LABEL_TYPES), strict=True):
                kind = schema.field(position).type
                kind = kind.value_type if pa.types.is_dictionary(kind) else kind
                if not any(getattr(pa.types, f"is_{name}")(kind) for name in admitted):
                    raise DataProblem(
                        f"{path} has {schema.field(position).type} in its column {schema.names[position]!r}, which is "
                        f"no {'text' if admitted is _TEXT_TYPES else 'label'}: choose the columns with --text-column "
                        "and --label-column."
                    )
            names = [schema.names[position] for position in positions]
            number = 0
            for batch in file.iter_batches(columns=names):
                for text, label in zip(*(_values(batch.column(name)) for name in names), strict=True):
                    number += 1
                    yield _row(number, text, label)
    except (pa.ArrowException, OSError) as error:
        raise DataProblem(f"{path} is not a whole Parquet file ({_first_line(error)}): fetch it anew.") from error


_TEXT_TYPES = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "null")
"""Of Arrow. Binary, because some writers do not mark their texts as such."""
_LABEL_TYPES = (*_TEXT_TYPES, "integer", "floating", "boolean")


def _values(column: Any) -> list[Any]:
    """A column as Python has it, texts as bytes: Arrow does not look whether they are UTF-8."""
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    for text, raw in (
        (pa.string(), pa.binary()),
        (pa.large_string(), pa.large_binary()),
        (pa.string_view(), pa.binary_view()),
    ):
        if column.type == text:
            column = column.cast(raw)
    values: list[Any] = column.to_pylist()
    return values


FORMATS: dict[str, tuple[str, Callable[[Path, Columns], Iterator[Row | Fault]]]] = {
    ".csv": ("line", _csv),
    ".tsv": ("line", _tsv),
    ".jsonl": ("line", _jsonl),
    ".ndjson": ("line", _jsonl),
    ".parquet": ("row", _parquet),
}
"""A file's ending → what its rows are counted in, and what reads them."""


def _position(header: Sequence[str], wanted: str, *, path: Path) -> int:
    """Where a column stands: the one of just this name, or else the one whose name differs in case or spaces."""
    for found in (
        [position for position, name in enumerate(header) if name == wanted],
        [position for position, name in enumerate(header) if _plain(name) == _plain(wanted)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise DataProblem(f"{path} has {len(found)} columns {wanted!r}: rename all but one.")
    raise DataProblem(
        f"{path} has no column {wanted!r} (it has {', '.join(header)[:80]}): name its columns text and label, or say "
        "what they are called with --text-column and --label-column."
    )


def _plain(name: str) -> str:
    return name.strip().lower()


def _row(number: int, text: Any, label: Any) -> Row | Fault:
    text, label = _decoded(text), _decoded(_label(label))
    if wrong := _wrong("text", text) or _wrong("label", label):
        return Fault(number, wrong)
    if not has_words(text):
        return Fault(number, "the text has no words")
    return Row(number, text.strip(), tidy(label))


def _label(value: Any) -> Any:
    """Numbers and booleans that can be a label as JSON writes them; all else as it is."""
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        # missing whole numbers make a column of floats of many libraries, and NaN of what is missing
        return str(int(value)) if value.is_integer() else None if math.isnan(value) else value
    return str(value) if isinstance(value, int) else value


def _decoded(value: Any) -> Any:
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _wrong(column: str, value: Any) -> str | None:
    if value is MISSING:
        return f"it has no {column}"
    if value is None:
        return f"the {column} is null"
    if not isinstance(value, str):
        return f"the {column} is {JSON_WORDS.get(type(value), type(value).__name__)}"
    if not value.strip():
        return f"the {column} is empty"
    return f"the {column} is not valid Unicode" if LONE_SURROGATE.search(value) else None


def _not_utf8(path: Path, line: int) -> DataProblem:
    return DataProblem(f"{path} is not UTF-8 (line {line}): save it as UTF-8.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".")

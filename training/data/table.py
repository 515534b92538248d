"""The user's own texts: a CSV file with the columns `text` and `label`."""

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data import Dataset, Examples, can_be_cut, cut
from training.problems import DataProblem
from training.tokenizer import has_words

COLUMNS = ("text", "label")
TEST = 0.2
"""Share of the rows that are held out for the test."""
LONGEST_FIELD = 10_000_000
"""Characters; beyond it a quotation mark was surely left open."""


@dataclass(frozen=True)
class BadRow:
    """A row that was left out: the line it starts on, counted from 1, and why."""

    line: int
    reason: str


def read(path: Path, *, name: str, validation: float, seed: int) -> tuple[Dataset, list[BadRow]]:
    """The texts of a CSV file (RFC 4180, UTF-8, with a header), and the rows that are none.

    Labels are sorted by name. The rows are cut into training, validation and test; where that would leave too few of
    a label, all rows serve for all three, and the data set says that it is `seen`.

    Args:
        path: of the file.
        name: what it is called.
        validation: share of the training rows to hold out.
        seed: which rows are held out.

    Raises:
        DataProblem: not a CSV file in UTF-8, a column is missing, nothing in it, or other than two labels.
    """
    content = _content(path)
    rows: list[tuple[str, str]] = []
    bad: list[BadRow] = []
    for row in _rows(path, content.removeprefix(b"\xef\xbb\xbf")):
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            rows.append(row)
    labels = sorted({label for _, label in rows})
    if len(labels) != len(("no", "yes")):
        found = ", ".join(map(repr, labels[:5])) + (", …" if len(labels) > 5 else "")  # noqa: PLR2004 - a short list
        aside = f"; {len(bad)} rows are bad, the first at line {bad[0].line}: {bad[0].reason}" if bad else ""
        raise DataProblem(f"{path} has {len(labels)} labels ({found or 'no row at all'}{aside}): give it two.")
    everything = Examples(
        np.array([text for text, _ in rows], dtype=object),
        np.array([labels.index(label) for _, label in rows], dtype=np.int64),
    )
    checksum = hashlib.sha256(content).hexdigest()
    if not can_be_cut(everything, min(TEST, (1 - TEST) * validation), len(labels)):
        return Dataset(name, labels, everything, everything, everything, seen=True, sha256=checksum), bad
    rest, test = cut(everything, TEST, seed=seed)
    train, held_out = cut(rest, validation, seed=seed)
    return Dataset(name, labels, train, held_out, test, seen=False, sha256=checksum), bad


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataProblem(f"{path} cannot be read ({error.strerror}): give a CSV file with --data.") from error


def _rows(path: Path, content: bytes) -> Iterator[tuple[str, str] | BadRow]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataProblem(f"{path} is not UTF-8 (line {line}): save it as UTF-8.") from error
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        if not header:
            raise DataProblem(f"{path} is empty: its first line must be the header text,label.")
        missing = [column for column in COLUMNS if column not in header]
        if missing:
            raise DataProblem(
                f"{path} has no column {missing[0]!r} (its first line says {', '.join(header)[:80]}): "
                "its first line must be the header text,label."
            )
        where = [header.index(column) for column in COLUMNS]
        line = reader.line_num + 1
        for fields in reader:
            if fields:
                yield _row(fields, where, len(header), line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataProblem(f"{path} is not CSV (line {reader.line_num}: {error}): mend that line.") from error


def _row(fields: list[str], where: list[int], width: int, line: int) -> tuple[str, str] | BadRow:
    if len(fields) != width:
        hint = ": a text with commas needs quotation marks" if len(fields) > width else ""
        return BadRow(line, f"{len(fields)} fields where the header has {width}{hint}")
    text, label = (fields[position].strip() for position in where)
    if not has_words(text):
        return BadRow(line, "the text has no words")
    if not label:
        return BadRow(line, "the label is empty")
    return text, label

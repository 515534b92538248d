"""What was left out of the data: no file and no row goes missing without being named and counted."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.files import write_whole
from training.terminal import say

FILE = "left_out.csv"
SHOWN = 10
"""Reasons, and places, that the terminal shows; the file has all of them."""
PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*\b")
"""What differs between two reasons of one kind: names and numbers."""


@dataclass(frozen=True)
class Bad:
    """A file or a row that was left out.

    Attributes:
        where: its path, or its line or row.
        reason: why.
    """

    where: str
    reason: str


def record(bad: Sequence[Bad], folder: Path, *, things: str) -> None:
    """Write the whole list into a folder, `left_out.csv`, and say what is in it: by reason, and the first ten.

    Without anything bad the list of an earlier run is removed.

    Args:
        bad: in the order in which people should read it.
        folder: of the results.
        things: what they are: "files", "rows".

    Raises:
        OSError: it cannot be written.
    """
    if not bad:
        (folder / FILE).unlink(missing_ok=True)
        return
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["where", "reason"])
    writer.writerows([_printable(one.where), _printable(one.reason)] for one in bad)
    write_whole(folder / FILE, table.getvalue().encode())
    say(f"{things.capitalize()} left out: {len(bad):,}, all listed in {folder / FILE}.")
    kinds = Counter(PARTICULARS.sub("…", one.reason) for one in bad).most_common()
    for kind, count in kinds[:SHOWN]:
        say(f"  {count:7,} × {_printable(kind)}")
    if len(kinds) > SHOWN:
        say(f"  {sum(count for _, count in kinds[SHOWN:]):7,} × other reasons")
    say("The first of them:" if len(bad) > SHOWN else "One by one:")
    for one in bad[:SHOWN]:
        say(f"  {_printable(one.where)}: {_printable(one.reason)}")


def _printable(text: str) -> str:
    """A name as it can be shown: it may hold line breaks, a terminal's commands, or bytes that are no Unicode."""
    return text if text.isprintable() else repr(text)[1:-1]

"""`sightread classify`: pictures and texts from the terminal through a running service."""

import argparse
import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import shtab
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sightread_client import (
    AsyncClient,
    ImageAnswer,
    NotFound,
    NotReady,
    ServiceFault,
    SightreadError,
    TextAnswer,
    Unauthorized,
    Unreachable,
)
from terminal.rendering import Page, answer_block, answer_line, explained_picture, explained_text, plain

DONE, FAILED, WRONG_FLAGS, INTERRUPTED = 0, 1, 2, 130
URL = "http://127.0.0.1:8080"
STDIN = "-"
AT_ONCE = 8
"""Requests: enough for the service to make batches of them."""
LARGEST_FILE = 256 * 1024 * 1024
"""Bytes: no service takes more, and a folder may hold films."""
SEVERAL_LABELS = 3

EPILOG = f"""\
examples:
  sightread classify photo.jpg                  what it shows, with bars
  sightread classify holidays/ --json           a JSON line for each picture below the folder
  curl -s https://… | sightread classify -      a picture from standard input
  sightread classify --text "A warm, funny film." --explain
  sightread classify --texts reviews.txt        a text in each line

environment:
  SIGHTREAD_URL       where the service is ({URL})
  SIGHTREAD_API_KEY   the key that opens it, where it wants one

exit codes: 0 everything has an answer, 1 something has none, 2 wrong flags
"""


@dataclass(frozen=True)
class Item:
    """A picture to be read from a file or standard input, or a text."""

    name: str
    file: Path | None = None
    text: str | None = None

    def picture(self) -> bytes:
        """The encoded picture.

        Raises:
            OSError: it cannot be read.
        """
        if self.file is None:
            return sys.stdin.buffer.read()
        if self.file.stat().st_size > LARGEST_FILE:
            raise OSError(f"it has more than {LARGEST_FILE:,} bytes")
        return self.file.read_bytes()


@dataclass(frozen=True)
class Failure:
    """Why an item has no answer."""

    why: str
    status: int | None = None


Outcome = ImageAnswer | TextAnswer | Failure


class NotAsked(Exception):
    """What is wrong with the command line, or with what it names."""


def main(arguments: Sequence[str]) -> int:
    """Classify; the exit code: 0 all is answered, 1 something is not, 2 wrong flags, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        items = list(_items(options))
        return asyncio.run(_run(_client(options), items, options))
    except NotAsked as error:
        _complain(str(error))
        return WRONG_FLAGS
    except SightreadError as error:
        _complain(_advice(error, options.url))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def parser(made: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """The flags, in a parser of their own or in one that was made for them."""
    made = made or argparse.ArgumentParser(prog="sightread classify")
    made.description = "Ask a running service what pictures show, or what texts say."
    made.epilog = EPILOG
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    what = made.add_argument("pictures", metavar="PICTURE", nargs="*", help="a file, a folder, or - for standard input")
    what.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's way
    made.add_argument(
        "--text", metavar="TEXT", action="append", default=[], help="a text instead; - for all of standard input"
    )
    texts = made.add_argument("--texts", metavar="FILE", help="a file with a text in each line; - for standard input")
    texts.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's way
    made.add_argument("--explain", action="store_true", help="show what each answer rests on")
    made.add_argument("--json", action="store_true", help="one JSON line for each item")
    made.add_argument(
        "--top-k",
        type=_count,
        metavar="N",
        help=f"labels of each answer ({SEVERAL_LABELS} for a single item, 1 for many)",
    )
    version = made.add_mutually_exclusive_group()
    version.add_argument("--version", type=_count, metavar="N", help="the model version that must answer")
    version.add_argument("--version-label", metavar="LABEL", help="the version label that must answer, such as stable")
    made.add_argument(
        "--url", default=os.environ.get("SIGHTREAD_URL") or URL, help="where the service is (%(default)s)"
    )
    made.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="for each answer, retries included (%(default)g)"
    )
    return made


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"it takes a number from 1, not {text!r}")
    return number


def _client(options: argparse.Namespace) -> AsyncClient:
    try:
        return AsyncClient(options.url, api_key=os.environ.get("SIGHTREAD_API_KEY") or None, timeout=options.timeout)
    except ValueError as error:
        raise NotAsked(str(error)) from error


def _items(options: argparse.Namespace) -> Iterator[Item]:
    """What is asked about, in the order of the command line.

    Raises:
        NotAsked: nothing, or both kinds, or what cannot be read.
    """
    texts = [*options.text, *([options.texts] if options.texts else [])]
    if bool(options.pictures) == bool(texts):
        raise NotAsked(
            "give pictures or texts, not both"
            if texts
            else "name a picture, a folder, or - for standard input; or give a text with --text. --help shows examples"
        )
    if [*options.pictures, *texts].count(STDIN) > 1:
        raise NotAsked("standard input can be read only once")
    if STDIN in {*options.pictures, *texts} and (sys.stdin is None or sys.stdin.isatty()):
        what = "closed" if sys.stdin is None else "this terminal"
        raise NotAsked(f"- reads standard input, which is {what}: pipe something in, or name a file")
    for name in options.pictures:
        yield from _pictures(name)
    for text in options.text:
        whole = _read_text(None) if text == STDIN else text
        yield Item(_shortened(whole), text=whole)
    if options.texts:
        lines = _read_text(None if options.texts == STDIN else options.texts).split("\n")
        yield from (Item(_shortened(line), text=line) for line in map(str.strip, lines) if line)


def _pictures(name: str) -> Iterator[Item]:
    """A picture, or all files below a folder but the hidden ones."""
    if name == STDIN:
        yield Item(STDIN)
        return
    if not name:  # to pathlib it is the current folder
        raise NotAsked("'' names no file: is a variable empty?")
    if not Path(name).is_dir():
        yield Item(name, file=Path(name))
        return
    found = False
    for folder, folders, files in os.walk(name):
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        for entry in sorted(files):
            path = Path(folder, entry)
            if not entry.startswith(".") and path.is_file():
                found = True
                yield Item(str(path), file=path)
    if not found:
        raise NotAsked(f"there is no file in {plain(name)}")


def _read_text(name: str | None) -> str:
    try:
        content = sys.stdin.buffer.read() if name is None else Path(name).read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise NotAsked(f"{plain(str(name))} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise NotAsked(f"the text is not UTF-8: byte {error.start} fits nowhere") from error


def _shortened(text: str) -> str:
    short = plain(text[:200]) or '""'
    return short if len(short) <= 60 else short[:59] + "…"  # noqa: PLR2004  # a line of a terminal holds it


async def _run(client: AsyncClient, items: Sequence[Item], options: argparse.Namespace) -> int:
    top_k = options.top_k or (SEVERAL_LABELS if len(items) == 1 else 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a label may hold what the terminal cannot show
    out = Console(highlight=False, markup=False, emoji=False)
    err = Console(highlight=False, markup=False, emoji=False, stderr=True)
    show = partial(_show_json, out) if options.json else partial(_show, out, top_k=top_k)
    failures = []
    try:
        async with client:
            asked = _ask_all(client, items, top_k, options)
            # where answers and progress share a terminal, one console keeps them apart
            with _progress(out if out.is_terminal else err, len(items)) as progress:
                async for item, outcome in asked:
                    if isinstance(outcome, Failure):
                        failures.append((item, outcome))
                    if options.json or not isinstance(outcome, Failure):
                        show(item, outcome)
                    if progress is not None:
                        progress.advance(progress.task_ids[0])
    finally:  # also when it is interrupted, or the service goes away
        for item, failure in failures:
            err.print(f"{plain(item.name)}: {plain(failure.why)}", soft_wrap=True)
    if len(items) > 1:
        err.print(f"{len(items) - len(failures):,} answered, {len(failures):,} not")
    return FAILED if failures else DONE


def _progress(console: Console, items: int) -> Any:
    if items == 1 or not console.is_terminal:
        return nullcontext()
    columns = (BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("·"), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, expand=True)
    progress.add_task("", total=items)
    return progress


async def _ask_all(
    client: AsyncClient, items: Sequence[Item], top_k: int, options: argparse.Namespace
) -> AsyncIterator[tuple[Item, Outcome]]:
    """The outcomes in the items' order; a few are asked for at once.

    Raises:
        SightreadError: what concerns all items alike.
    """
    query: dict[str, Any] = {
        "top_k": top_k,
        "version": options.version,
        "version_label": options.version_label,
        "explain": options.explain,
    }
    waiting: deque[tuple[Item, asyncio.Task[Outcome]]] = deque()
    try:
        for item in items:
            waiting.append((item, asyncio.create_task(_ask(client, item, query))))
            if len(waiting) >= AT_ONCE:
                asked, task = waiting.popleft()
                yield asked, await task
        while waiting:
            asked, task = waiting.popleft()
            yield asked, await task
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)


async def _ask(client: AsyncClient, item: Item, query: Any) -> Outcome:
    try:
        if item.text is not None:
            return await client.classify_text(item.text, **query)
        return await client.classify_image(await asyncio.to_thread(item.picture), **query)
    except OSError as error:
        return Failure(error.strerror or str(error))
    except SightreadError as error:
        if _concerns_all(error):
            raise
        return Failure(error.detail, error.status)


def _concerns_all(error: SightreadError) -> bool:
    """Whether other items would fare the same: the key, the version or the address is wrong, or the service is gone."""
    if isinstance(error, ServiceFault):  # a fault of its own may be one picture's; what is no answer of ours is not
        return error.status is None or error.status < HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, Unauthorized | NotFound | NotReady | Unreachable)


def _show_json(out: Console, item: Item, outcome: Outcome) -> None:
    # a name of another encoding is shown as well as it can be
    line: dict[str, Any] = {"input": (item.text or item.name).encode("utf-8", "replace").decode()}
    if isinstance(outcome, Failure):
        line |= {"problem": {"status": outcome.status, "detail": outcome.why}}
    else:
        line |= {name: value for name, value in asdict(outcome).items() if value not in (None, False)}
    out.print(json.dumps(line, ensure_ascii=False, default=str), soft_wrap=True)


def _show(out: Console, item: Item, outcome: ImageAnswer | TextAnswer, *, top_k: int) -> None:
    page = Page(
        out.width,
        cuts=out.is_terminal,
        colours=out.color_system is not None and not out.no_color,
        unicode=out.encoding.lower().startswith("utf"),
    )
    name = plain(item.name)
    if top_k == 1 and outcome.explanation is None:
        out.print(answer_line(outcome, name, page), soft_wrap=True)
        return
    for line in answer_block(outcome, name, page):
        out.print(line, soft_wrap=True)
    if isinstance(outcome, ImageAnswer):
        reasons = explained_picture(outcome, page)
    else:
        reasons = explained_text(outcome, item.text or "", page)
        if outcome.truncated:
            out.print("  The model did not read the text to its end.")
    for line in reasons:
        out.print(Padding(line, (0, 0, 0, 2), expand=False))
    out.print()


def _advice(error: SightreadError, url: str) -> str:
    match error:
        case Unreachable():
            return f"{error.detail} Start the service with `make serve`, or name another one with --url."
        case Unauthorized():
            return f"{error.detail} Put your key into the environment variable SIGHTREAD_API_KEY."
        case NotReady():
            return f"{error.detail} `sightread doctor --url {url}` tells more."
    return error.detail


def _complain(what: str) -> None:
    print(f"sightread classify: {what}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The pages, as a reader meets them: headings, links, pieces of code, and the commands to type with their answers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
MARKDOWN = MarkdownIt("commonmark").enable("table")
TYPED = {"sh", "python"}
"""Languages that a reader runs."""
SHOWN = {"json", "text"}
"""Languages that show, directly after a command, what it answers."""
HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)")


@dataclass(frozen=True)
class Command:
    """What a page tells its reader to type.

    Attributes:
        text: as it stands there; a Python program whole.
        language: "sh" or "python".
        answer: what the page shows of its output, or None.
    """

    text: str
    language: str
    answer: str | None = None


@dataclass(frozen=True)
class Page:
    """A file in Markdown; `name` is its path in the project."""

    name: str

    @property
    def path(self) -> Path:
        return ROOT / self.name

    @cached_property
    def _tokens(self) -> list[Token]:
        return MARKDOWN.parse(self.path.read_text(encoding="utf-8"))

    @property
    def fences(self) -> list[Token]:
        return [token for token in self._tokens if token.type in {"fence", "code_block"}]

    @cached_property
    def commands(self) -> list[Command]:
        """All of them, in the order of reading."""
        found = []
        for token, after in zip(self._tokens, [*self._tokens[1:], None], strict=True):
            if token.type != "fence" or token.info not in TYPED:
                continue
            answer = after.content if after and after.type == "fence" and after.info in SHOWN else None
            *first, last = [token.content] if token.info == "python" else typed(token.content)
            found += [Command(text, token.info) for text in first] + [Command(last, token.info, answer)]
        return found

    @cached_property
    def code(self) -> list[str]:
        """What stands in code within the text."""
        return [child.content for child in self._inline() if child.type == "code_inline"]

    @cached_property
    def links(self) -> list[str]:
        """Where links lead and pictures come from."""
        return [
            str(child.attrs[name]) for child in self._inline() for name in ("href", "src") if name in child.attrs
        ] + re.findall(r'(?:src|srcset|href)="([^"]+)"', self.path.read_text(encoding="utf-8"))

    @cached_property
    def anchors(self) -> set[str]:
        """What a link may name after a `#`: the headings, as code hosts spell them."""
        headings = [following.content for token, following in pairwise(self._tokens) if token.type == "heading_open"]
        return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    def _inline(self) -> Iterator[Token]:
        return (child for token in self._tokens for child in token.children or [])


def typed(block: str) -> list[str]:
    """The commands of a block: a line each, with the lines that continue it, and what it takes until a word."""
    commands: list[str] = []
    until: str | None = None
    goes_on = False
    for line in block.splitlines():
        if until or goes_on:
            commands[-1] += f"\n{line}"
        elif line.strip() and not line.startswith("#"):
            commands.append(line)
        if until:
            until = None if line == until else until
        elif heredoc := HEREDOC.search(line):
            until = heredoc[1]
        goes_on = not until and line.endswith("\\")
    return commands


PAGES = [
    Page(str(path.relative_to(ROOT)))
    for pattern in ("*.md", "docs/*.md", "k8s/*.md", "client/*.md")
    for path in sorted(ROOT.glob(pattern))
]

"""What the pages say to type does what they say."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.answers import agrees
from tests.documents.elsewhere import elsewhere
from tests.documents.pages import PAGES, SHOWN, TYPED, Page, typed
from tests.documents.reader import SERVES, Reader, reader

FIRST = "README.md"
"""What everybody types; other pages take longer."""
NAMED = {"toml", "yaml"}
"""Languages that are neither typed nor shown as an answer."""
TO_TYPE = [page for page in PAGES if any(elsewhere(command.text) is None for command in page.commands)]


def as_marked(page: Page) -> object:
    marks = [] if page.name == FIRST else [pytest.mark.slow]
    return pytest.param(page, id=page.name, marks=[*marks, pytest.mark.timeout(1800)])


@pytest.mark.parametrize("page", [as_marked(page) for page in TO_TYPE])
def test_who_types_what_a_page_says_gets_what_it_shows(page: Page, request: pytest.FixtureRequest) -> None:
    serves = any(SERVES.match(command.text) for command in page.commands)
    somebody = request.getfixturevalue("newcomer" if serves else "regular")
    for command in page.commands:
        if elsewhere(command.text) is None:
            somebody.type(command)


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Reader]:
    """Somebody with a copy of their own, in which nothing was typed yet."""
    with reader(tmp_path / "sightread") as somebody:
        yield somebody


@pytest.fixture(scope="module")
def regular(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Somebody whose service runs, for pages that ask it only."""
    with reader(tmp_path_factory.mktemp("regular") / "sightread") as somebody:
        somebody.serve()
        yield somebody


@pytest.mark.parametrize(
    "command", sorted({command.text for page in PAGES for command in page.commands if elsewhere(command.text)})
)
def test_what_is_not_typed_here_can_be_typed(command: str) -> None:
    entry = elsewhere(command)
    assert entry is not None
    entry.instead(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_piece_of_code_says_what_it_is(page: Page) -> None:
    assert {fence.info for fence in page.fences} <= TYPED | SHOWN | NAMED


def test_a_command_is_a_line_with_those_that_continue_it() -> None:
    block = "# first\nsay \\\n  this\n\ncat <<'END'\nand that\nEND\nlast # remark\n"
    assert typed(block) == ["say \\\n  this", "cat <<'END'\nand that\nEND", "last # remark"]


@pytest.mark.parametrize(
    ("said", "got", "is_so"),
    [
        ('{"label": "cat", "score": 0.93}', '{"score": 0.9401, "label": "cat"}', True),
        ('{"label": "cat", "score": 0.93}', '{"score": 0.96, "label": "cat"}', False),
        ('{"label": "cat", "version": 2}', '{"label": "cat", "version": 1}', False),
        ('{"label": "cat", "version": 2}', '{"label": "cat"}', False),
        ('{"label": "cat"}', '{"label": "cat", "version": 1}', False),
        ('{"label": "cat", "…": "…"}', '{"label": "cat", "version": 1}', True),
        ('{"label": "cat", "…": "…"}', '{"label": "dog", "version": 1}', False),
        ('{"label": "cat", "…": "…"}', "{}", False),
        ('{"id": "…", "all": [1, "…"]}', '{"id": "7", "all": [1, 2, 3]}', True),
        ('{"id": "…", "all": [1, "…"]}', '{"id": "7", "all": [2, 2, 3]}', False),
        ('[{"at": "/x/…"}]', '[{"at": "/x/7"}]', True),
        ('[{"at": "/x/…"}]', '[{"at": "/y/7"}]', False),
        ("stable is … 2.\n", "before\nstable is version 2.\n", True),
        ("stable is … 2.\n", "stable is version 1.\n", False),
        ("cat  ████▌ 97.9 %", "file\ncat ██▏  61.0 %\n", True),
        ("cat  ████▌ 97.9 %", "file\ndog ██▏  61.0 %\n", False),
        ("cat  ████▌ 97.9 %", "file\ncat ██▏\n", False),
        ('{"label": "cat"}', "no JSON", False),
    ],
)
def test_an_answer_is_compared_with_what_the_page_shows(said: str, got: str, *, is_so: bool) -> None:
    assert agrees(said, got) == is_so

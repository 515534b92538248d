"""The pages tell everything that there is to use, and what they name is there."""

import argparse
import re
import subprocess

import pytest
from starlette.testclient import TestClient

from serving.app import create_app
from serving.metrics import Metrics
from serving.problems import InternalError, Problem
from serving.settings import Settings
from sightread import COMMANDS
from terminal.completion import commands
from tests.documents.pages import PAGES, ROOT, Page

ASKING, OPERATING = Page("docs/asking.md"), Page("docs/operating.md")
SETTING = re.compile(r"^\| `SIGHTREAD_(\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
COMMAND = re.compile(r"^(?:\S+/)?sightread (\w+)", re.MULTILINE)


def code(page: Page) -> str:
    """All that stands in code on a page."""
    return "\n".join([*page.code, *(fence.content for fence in page.fences)])


def test_every_setting_is_documented_with_its_default_and_no_other() -> None:
    documented = {name: (default, purpose) for name, default, purpose in SETTING.findall(OPERATING.path.read_text())}
    real = {
        name.upper(): (f"`{field.default}`" if str(field.default) else "", field.description)
        for name, field in Settings.model_fields.items()
    }
    assert documented == real


def test_every_command_is_shown_and_what_is_called_one_is_one() -> None:
    shown = {name for page in PAGES for name in COMMAND.findall(code(page))}
    assert shown == COMMANDS.keys()


def test_every_verb_of_make_that_is_named_is_there() -> None:
    verbs = {verb for page in PAGES for verb in re.findall(r"^make ([a-z]+)", code(page), re.MULTILINE)}
    subprocess.run(["make", "--dry-run", *verbs], cwd=ROOT, capture_output=True, check=True)


def test_every_flag_that_is_named_is_one() -> None:
    named = {flag for page in PAGES for one in page.code for flag in re.findall(r"^--[\w-]+", one)}
    others = re.findall(r"--[\w-]+", "".join((ROOT / name).read_text() for name in ("Dockerfile", "compose.yaml")))
    assert named <= flags(commands()).union(others)


def flags(parser: argparse.ArgumentParser) -> set[str]:
    """Of a command, and of those below it."""
    found: set[str] = set()
    for action in parser._actions:  # noqa: SLF001  # argparse has no other list of them
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  # as above
            found = found.union(*map(flags, action.choices.values()))
    return found


def test_every_path_of_the_interface_is_told() -> None:
    told = code(ASKING)
    paths = TestClient(create_app(Settings())).get("/openapi.json").json()["paths"]
    assert [path for path in paths if path not in told] == []


def test_every_status_of_a_problem_is_told() -> None:
    told = {int(status) for status in re.findall(r"^\| (\d{3}) \|", ASKING.path.read_text(), re.MULTILINE)}
    assert told == {problem.status for problem in family(Problem)} - {InternalError.status}


def family(problem: type[Problem]) -> set[type[Problem]]:
    return {problem}.union(*map(family, problem.__subclasses__()))


def test_every_metric_is_told() -> None:
    told = code(OPERATING)
    metrics = re.findall(r"^# HELP (\w+?)(?:_total)? ", Metrics().page().decode(), re.MULTILINE)
    assert [name for name in metrics if name not in told] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.links], ids=lambda page: page.name)
def test_no_link_is_dead(page: Page) -> None:
    dead = [link for link in page.links if not link.startswith(("http://", "https://")) and not leads(page, link)]
    assert dead == []


def leads(page: Page, link: str) -> bool:
    """Whether a link within the project leads somewhere."""
    path, _, anchor = link.partition("#")
    target = (page.path.parent / path).resolve() if path else page.path
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or (target.suffix == ".md" and anchor in Page(str(target.relative_to(ROOT))).anchors)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Page) -> None:
    named = [one for one in page.code if FILE.fullmatch(one) and one not in MADE]
    assert [name for name in named if not any((folder / name).exists() for folder in FOLDERS)] == []


FILE = re.compile(r"[\w./-]+\.(py|md|yaml|toml|lock|config)")
MADE = {"models.config"}
"""What a command makes."""
FOLDERS = [*map(ROOT.joinpath, ["", "tests", "serving", "k8s", "k8s/base", "k8s/base/model-server"])]
FOLDERS += ROOT.glob("k8s/components/*/")
"""Where a page may mean: its text says which."""

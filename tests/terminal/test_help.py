"""`sightread` by itself: what it says of its commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from sightread import COMMANDS

SIGHTREAD = [sys.executable, "-m", "sightread"]


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SIGHTREAD, *arguments], check=False, capture_output=True, text=True, env=environment)


def test_the_help_names_every_command_with_an_example() -> None:
    for flag in ("--help", "-h", "help"):
        told = run(flag)
        assert told.returncode == 0
        for name, command in COMMANDS.items():
            assert command.purpose in told.stdout
            assert f"$ sightread {name} {command.example}".rstrip() in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80


def test_a_command_that_there_is_not_is_named() -> None:
    wrong = run("clasify")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "there is no command 'clasify'" in wrong.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command: str) -> None:
    told = run(command, "--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert f"usage: sightread {command}" in told.stdout


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    (tmp_path / "httpx.py").write_text("raise ModuleNotFoundError('No module named httpx', name='httpx')")
    without = run("classify", "--help", environment={"PYTHONPATH": str(tmp_path)})
    assert without.returncode == 1
    assert without.stderr.startswith("sightread classify: httpx is not installed: make brings it")
    assert "pip install '.[client]' ./client" in without.stderr, "what no package index has comes from the folder"

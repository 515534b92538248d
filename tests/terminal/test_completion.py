"""`sightread completion`: what bash offers when somebody presses Tab."""

import subprocess
import sys
from pathlib import Path

import pytest

from sightread import COMMANDS

SIGHTREAD = [sys.executable, "-m", "sightread"]

ASK = """
source "$1"; shift
COMP_WORDS=(sightread "$@")
COMP_CWORD=$#
function_of_sightread=$(complete -p sightread | sed 's/.* -F \\([^ ]*\\).*/\\1/')
"$function_of_sightread" sightread "${COMP_WORDS[-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "sightread"
    file.write_bytes(subprocess.run([*SIGHTREAD, "completion", "bash"], check=True, capture_output=True).stdout)
    return file


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ([""], set(COMMANDS)),
        (["do"], {"doctor"}),
        (["classify", "--exp"], {"--explain"}),
        (["classify", "exam"], {"examples"}),
        (["models", "pro"], {"promote"}),
        (["models", "promote", "cnn", "--label", ""], {"stable", "canary", "shadow"}),
        (["serve", "--max-b"], {"--max-body-bytes", "--max-batch-size"}),
        (["serve", "--log-format", ""], {"auto", "text", "json"}),
        (["serve", "--models", "exam"], {"examples"}),
        (["doctor", "--model-server-k"], {"--model-server-key"}),
        (["train", "cnn", "--recipe", ""], {"accurate", "seed"}),
        (["train", ""], {"cnn", "lstm"}),
        (["evaluate", ""], {"image", "text"}),
        (["completion", "z"], {"zsh"}),
    ],
)
def test_bash_completes(script: Path, typed: list[str], offered: set[str]) -> None:
    command = ["bash", "--norc", "-c", ASK, "bash", str(script), *typed]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) == offered, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_other_shells_have_a_script_that_names_every_command(shell: str) -> None:
    done = subprocess.run([*SIGHTREAD, "completion", shell], check=True, capture_output=True, text=True)
    assert all(name in done.stdout for name in COMMANDS)


def test_its_help_tells_where_the_script_goes() -> None:
    done = subprocess.run([*SIGHTREAD, "completion", "--help"], check=True, capture_output=True, text=True)
    assert "~/.local/share/bash-completion/completions/sightread" in done.stdout
    assert subprocess.run([*SIGHTREAD, "completion", "sh"], check=False, capture_output=True).returncode == 2

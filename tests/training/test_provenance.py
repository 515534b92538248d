import subprocess
from pathlib import Path

import numpy as np
import pytest

from training.config import CnnConfig
from training.data import Dataset, Examples
from training.provenance import commit, provenance


def _git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", root, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "-q")
    for folder in ("training", "serving", "docs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("1\n")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    assert commit(checkout) == _git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("file", ["training/a.py", "serving/new.py"])
def test_changed_or_new_code_is_told(checkout: Path, file: str) -> None:
    (checkout / file).write_text("2\n")
    assert commit(checkout) == _git(checkout, "rev-parse", "HEAD") + "+changes"


def test_changes_elsewhere_do_not_matter(checkout: Path) -> None:
    (checkout / "docs" / "a.py").write_text("2\n")
    assert commit(checkout) == _git(checkout, "rev-parse", "HEAD")


def test_outside_git_there_is_no_commit(tmp_path: Path) -> None:
    assert commit(tmp_path) is None


def test_a_checkout_without_a_commit_has_none(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    assert commit(tmp_path) is None


def test_no_path_of_the_machine_gets_into_it() -> None:
    config = CnnConfig(data=Path("/home/me/data"), models=Path("/srv/models"), output=Path("/home/me/runs"), seed=7)
    nothing = Examples(np.zeros((0, 1)), np.zeros(0, np.int64))
    data = Dataset("CIFAR-10", ["a", "b"], nothing, nothing, nothing, seen=False, sha256="ab")
    made = provenance(config, data, seconds=1.5)
    assert "/" not in made.model_dump_json(exclude={"packages"})
    assert (made.seed, made.data, made.data_sha256, made.training_seconds) == (7, "CIFAR-10", "ab", 1.5)
    assert made.config["epochs"] == 10
    assert set(made.packages) == {"keras", "numpy", "pillow", "tensorflow", "tokenizers"}

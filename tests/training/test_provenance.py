import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from training.config import CnnConfig
from training.data import Dataset, Examples
from training.provenance import commit, machine, processor, provenance


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
    assert "/" not in made.model_dump_json(exclude={"packages", "machine"})
    assert (made.seed, made.data, made.data_sha256, made.training_seconds) == (7, "CIFAR-10", "ab", 1.5)
    assert made.config["epochs"] == config.epochs
    assert set(made.packages) == {"keras", "numpy", "pillow", "tensorflow", "tokenizers"}


def test_the_history_is_kept_as_precisely_as_it_is_known() -> None:
    nothing = Examples(np.zeros((0, 1)), np.zeros(0, np.int64))
    data = Dataset("CIFAR-10", ["a", "b"], nothing, nothing, nothing, seen=False, sha256="ab")
    curve = list(np.array([0.1, 1 / 3], np.float32))
    assert provenance(CnnConfig(), data, seconds=1, history={"loss": curve}).history == {"loss": [0.1, 0.333333]}


def test_the_machine_is_told_by_processor_cores_and_memory() -> None:
    parts = machine().split(", ")
    assert parts[0]
    assert re.fullmatch(r"\d+ cores?", parts[1])
    assert re.fullmatch(r"\d+ GiB", parts[2])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux keeps a process to some cores")
def test_only_the_cores_that_the_process_may_use_are_counted() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert ", 1 core," in machine()
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (
            "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz\nmodel name\t: another\n",
            "Intel Core i7-8650U CPU @ 1.90GHz",
        ),
        ("processor\t: 0\nBogoMIPS\t: 243.75\n", None),
    ],
)
def test_the_processor_is_read_from_linux(content: str, name: str | None, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(content)
    assert processor(tmp_path / "cpuinfo") == name


def test_a_processor_that_no_file_tells_is_none(tmp_path: Path) -> None:
    assert processor(tmp_path / "cpuinfo") is None

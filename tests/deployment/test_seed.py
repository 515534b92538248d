"""The seed Job's own script, run on folders: what it puts into the volume, what it leaves alone, and being killed."""

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deployment.conftest import Manifests

pytestmark = pytest.mark.manifests

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Tree = dict[str, bytes]


def tree(folder: Path) -> Tree:
    """All that lies there: files, and folders without any."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def served(repository: Path) -> dict[str, Tree]:
    """The versions that a model server sees."""
    return {
        f"{version.parent.name}/{version.name}": tree(version)
        for version in repository.glob("*/*")
        if version.name.isdecimal()
    }


def write(version: Path, content: bytes) -> None:
    (version / "variables").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(content)
    (version / "variables/variables.index").write_bytes(content)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    for model in ("cnn", "lstm"):
        for version in ("1", "2"):
            write(folder / model / version, f"{model} {version}".encode() * 1000)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


@pytest.fixture
def seed(render: Callable[[str], Manifests], image: Path, repository: Path) -> Run:
    """The script as the Job runs it, but for where the folders are; `first` goes before it."""
    (job,) = (m for m in render("k8s/overlays/gpu") if m["kind"] == "Job" and m["metadata"]["name"] == "seed-models")
    *shell, script = job["spec"]["template"]["spec"]["containers"][0]["command"]
    script = script.replace("/models", str(image)).replace("/repository", str(repository))

    def run(first: str = "", shell: list[str] = shell) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*shell, first + script], capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("shell", [["bash", "-euc"], ["sh", "-euc"]], ids=lambda shell: shell[0])
def test_an_empty_volume_gets_the_images_models(shell: list[str], seed: Run, image: Path, repository: Path) -> None:
    assert seed(shell=shell).returncode == 0
    assert tree(repository) == tree(image)
    assert seed(shell=shell).returncode == 0
    assert tree(repository) == tree(image)


def test_a_model_with_versions_of_its_own_gets_no_other(seed: Run, image: Path, repository: Path) -> None:
    write(repository / "cnn/1", b"own")
    own = tree(repository / "cnn")
    assert seed().returncode == 0
    assert tree(repository / "cnn") == own
    assert tree(repository / "lstm") == tree(image / "lstm")


def test_an_older_image_s_models_get_no_newer_version(seed: Run, image: Path, repository: Path) -> None:
    shutil.copytree(image, repository, dirs_exist_ok=True)
    before = tree(repository)
    write(image / "cnn/3", b"a later release's")
    assert seed().returncode == 0
    assert tree(repository) == before


def test_what_is_no_version_keeps_no_seed_away(seed: Run, image: Path, repository: Path) -> None:
    write(repository / "cnn/.writing-4a5f", b"a training's")
    write(repository / "cnn/1.part", b"half of one")
    assert seed().returncode == 0
    assert served(repository) == served(image)


def test_a_killed_seed_is_finished_by_the_next_one(seed: Run, image: Path, repository: Path) -> None:
    for commands in range(100):
        shutil.rmtree(repository)
        repository.mkdir()
        # bash does this before each command
        done = seed(f"turn=0; trap '(( turn++ < {commands} )) || kill -KILL $$' DEBUG\n")
        # what is seen is whole
        assert served(repository).items() <= served(image).items()
        assert seed().returncode == 0
        assert tree(repository) == tree(image)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert 20 < commands < 99


def test_half_a_file_is_not_seen_and_copied_anew(seed: Run, image: Path, repository: Path) -> None:
    # in blocks: whoever writes more to a file is killed
    assert seed("ulimit -f 1\n").returncode != 0
    assert tree(repository)
    assert served(repository) == {}
    assert seed().returncode == 0
    assert tree(repository) == tree(image)

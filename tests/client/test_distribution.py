"""The client as a distribution of its own: small, typed, and without what the service is made of."""

import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT / "client", tmp_path_factory.mktemp("wheel"))


def built(project: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_typed_package_and_wants_httpx_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (told,) = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    assert "sightread_client/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"sightread_client"}
    assert [line for line in told.splitlines() if line.startswith("Requires-Dist")] == ["Requires-Dist: httpx<1,>=0.28"]


def test_the_services_wheel_leaves_it_out_so_that_either_can_be_removed(tmp_path: Path) -> None:
    with zipfile.ZipFile(built(ROOT, tmp_path)) as archive:
        tops = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" not in name}
    assert tops == {"sightread.py", "serving", "terminal", "training"}


def test_the_wheel_works_where_there_is_nothing_but_httpx(wheel: Path, tmp_path: Path) -> None:
    for name in _with_requirements("httpx"):
        for file in metadata.files(name) or []:
            if ".." not in file.parts:  # commands lie elsewhere; and certifi is nothing without its certificates
                place = tmp_path / file
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(Path(str(file.locate())).read_bytes())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # -S: no site-packages but ours
    script = (
        f"import sys; sys.path.append({str(tmp_path)!r}); import sightread_client as client; print(client.__file__)"
    )
    script += "; print(client.Client('http://127.0.0.1:1').is_ready())"
    done = subprocess.run([sys.executable, "-ISc", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(tmp_path / "sightread_client" / "__init__.py"), "False"]


def _with_requirements(name: str) -> set[str]:
    """A distribution and all that it needs here."""
    needed = {name}
    for requirement in map(Requirement, metadata.requires(name) or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed |= _with_requirements(requirement.name)
    return needed


def test_importing_it_loads_neither_the_service_nor_tensorflow() -> None:
    script = (
        "import sys, sightread_client; print({'tensorflow', 'serving', 'training', 'grpc', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"

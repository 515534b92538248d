"""The images as they are run: read-only, nobody's root, without capabilities. `make images` builds them before.

The gateway's has no model server in it; the training image has one, the local one, and publishes what that serves.
"""

import json
import os
import shutil
import subprocess
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.settings import Settings
from tests.deployment.conftest import ROOT

pytestmark = pytest.mark.images

CONTAINERS = os.environ.get("CONTAINERS", "podman" if shutil.which("podman") else "docker")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
GATEWAY, TRAINING = (f"sightread-{name}:{VERSION}" for name in ("gateway", "training"))
PORT = Settings.model_fields["port"].default
MEGABYTES = 200
PATIENCE = 240.0
CONFINED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]  # noqa: S108
if CONTAINERS == "podman":
    # as Kubernetes does it: nothing else can be written, and images come from nowhere else
    CONFINED += ["--read-only-tmpfs=false", "--pull=never"]


def engine(*arguments: str) -> str:
    done = subprocess.run([CONTAINERS, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    name = f"sightread-test-{os.getpid()}"
    engine("network", "create", name)
    yield name
    engine("network", "rm", name)


@pytest.fixture(scope="module")
def start(network: str) -> Iterator[Callable[..., str]]:
    """Start a container → its name; it goes at the end."""
    started: list[str] = []

    def run(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
        name = f"{network}-{len(started)}"
        engine("run", "--detach", "--name", name, "--network", network, *CONFINED, *options, image, *command)
        started.append(name)
        return name

    yield run
    for name in started:
        engine("rm", "--force", name)


@pytest.fixture(scope="module")
def model_server(start: Callable[..., str]) -> str:
    """The local model server out of the training image, over the repository's models."""
    command = ["-m", "serving.local_model_server", "--models", "/models", "--address", "0.0.0.0:8500"]
    options = ("--volume", f"{ROOT / 'models'}:/models:ro", "--entrypoint", "python", "--network-alias", "model-server")
    return start(TRAINING, *command, options=options)


@pytest.fixture(scope="module")
def gateway(model_server: str, start: Callable[..., str]) -> tuple[str, str]:
    """A gateway's name, and where it answers."""
    assert model_server
    options = ("--env", "SIGHTREAD_MODEL_SERVER=dns:///model-server:8500", "--publish", f"127.0.0.1::{PORT}")
    name = start(GATEWAY, options=(*options, "--memory", "1536m"))
    url = f"http://{engine('port', name, str(PORT))}"
    until = time.monotonic() + PATIENCE
    while not is_ready(url):
        assert time.monotonic() < until, engine("logs", name)
        time.sleep(0.5)
    return name, url


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def size(image: str) -> int:
    return int(engine("image", "inspect", "--format", "{{.Size}}", image))


def inside(image: str, program: str) -> str:
    return engine("run", "--rm", *CONFINED, "--entrypoint", "python", image, "-c", program)


def test_the_gateway_s_image_is_small() -> None:
    added = size(GATEWAY) - size("python:3.11-slim-bookworm")
    assert added < MEGABYTES * 10**6, f"{added / 10**6:.0f} MB"


def test_of_tensorflow_only_messages_are_in_the_gateway_s_image() -> None:
    program = """
import json, pathlib, tensorflow, tensorflow_serving
folders = [pathlib.Path(path) for package in (tensorflow, tensorflow_serving) for path in package.__path__]
files = {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}
print(json.dumps(sorted(name for name in files if "_pb2" not in name)))
"""
    assert json.loads(inside(GATEWAY, program)) == []


@pytest.mark.parametrize("image", [GATEWAY, TRAINING])
def test_an_image_s_user_is_nobody_and_can_write_to_tmp_only(image: str) -> None:
    program = """
import os, pathlib
pathlib.Path("/tmp/written").write_text("")
for folder in ("/", "/opt/sightread", "/var", "/home"):
    try:
        pathlib.Path(folder, "written").write_text("")
    except OSError:
        continue
    raise SystemExit(folder)
print(os.getuid(), os.getgid())
"""
    assert inside(image, program) == "10001 10001"


def test_a_picture_and_a_text_are_classified_through_the_image(gateway: tuple[str, str]) -> None:
    _, url = gateway
    picture = (ROOT / "examples/airplane.jpg").read_bytes()
    answer = httpx.post(f"{url}/classify-image", content=picture, headers={"Content-Type": "image/jpeg"}, timeout=30)
    assert answer.json()["label"] == "airplane"
    answer = httpx.post(f"{url}/classify-text", json={"text": "A wonderful film, beautifully played."}, timeout=30)
    assert answer.json()["label"] == "positive"


def test_the_health_check_passes(gateway: tuple[str, str]) -> None:
    name, _ = gateway
    if CONTAINERS == "podman":
        engine("healthcheck", "run", name)
    else:
        assert engine("inspect", "--format", "{{.State.Health.Status}}", name) == "healthy"


def test_accepted_requests_are_answered_when_the_container_is_stopped(gateway: tuple[str, str]) -> None:
    name, url = gateway
    picture = (ROOT / "examples/airplane.jpg").read_bytes()
    statuses: list[int] = []
    refused = 0

    def ask() -> None:
        nonlocal refused
        with httpx.Client(timeout=30) as client:
            while True:
                try:
                    statuses.append(client.post(f"{url}/classify-image", content=picture).status_code)
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError):
                    refused += 1
                    return

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    while len(statuses) < 20:
        time.sleep(0.05)
    start = time.monotonic()
    engine("stop", "--time", "30", name)
    seconds = time.monotonic() - start
    for asker in askers:
        asker.join()
    assert set(statuses) == {200}
    assert engine("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    # process 1 heard SIGTERM: nobody had to kill it
    assert seconds < 25


def test_the_training_image_trains_and_publishes(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    tmp_path.chmod(0o777)
    (tmp_path / "models").chmod(0o777)
    engine(
        *("run", "--rm", *CONFINED, "--volume", f"{tmp_path}:/training", "--volume", f"{ROOT}/training/data:/data:ro"),
        *(TRAINING, "train", "lstm", "--data", "/data/three_sentences.csv", "--vocabulary", "100", "--length", "6"),
        *("--name", "toy", "--models", "/training/models", "--output", "/training/runs/toy"),
    )
    assert (tmp_path / "models/toy/1/saved_model.pb").is_file()
    assert (tmp_path / "runs/toy/report.html").is_file()

"""The images as they are run: read-only, nobody's root, without capabilities. `make images` builds them before.

The gateway's has no model server in it; the training image has one, the local one. It serves the models that ship, and
one that the training image publishes into the same repository.
"""

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.settings import Settings
from tests.deployment.conftest import ROOT
from tests.e2e.processes import CERTIFICATES

# the first test waits for all that starts
pytestmark = [pytest.mark.images, pytest.mark.timeout(1200)]

CONTAINERS = os.environ.get("CONTAINERS", "podman" if shutil.which("podman") else "docker")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
GATEWAY, TRAINING = (f"sightread-{name}:{VERSION}" for name in ("gateway", "training"))
BASE = "python:3.11-slim-bookworm"
PORT = Settings.model_fields["port"].default
MEGABYTES = 200
PATIENCE = 600.0
CONFINED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]  # noqa: S108
if CONTAINERS == "podman":
    # as Kubernetes does it: nothing else can be written, and images come from nowhere else
    CONFINED += ["--read-only-tmpfs=false", "--pull=never"]
# where the machine is slow, nothing is refused or cut short for it
PATIENT = ("--env", f"SIGHTREAD_DEADLINE_SECONDS={PATIENCE}", "--env", f"SIGHTREAD_DRAIN_SECONDS={PATIENCE:.0f}")
WHOLE_SERVICE = ("--env", "SIGHTREAD_MODEL_SERVER=dns:///model-server:8500", *PATIENT)
TRAIN = ["train", "lstm", "--data", "/data/three_sentences.csv", "--recipe", "seed", "--vocabulary", "100"]
TRAIN += ["--length", "6", "--models", "/training/models", "--output", "/training/runs"]

Start = Callable[..., str]


def engine(*arguments: str) -> str:
    done = subprocess.run([CONTAINERS, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def inside(image: str, program: str, *options: str) -> str:
    return engine("run", "--rm", *CONFINED, *options, "--entrypoint", "python", image, "-c", program)


def log_of(name: str) -> str:
    # both streams
    return subprocess.run(
        [CONTAINERS, "logs", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout


def inspected(image: str) -> dict[str, Any]:
    (found,) = json.loads(engine("image", "inspect", image))
    return dict(found)


def wait_for(condition: Callable[[], bool], name: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert engine("inspect", "--format", "{{.State.Running}}", name) == "true", log_of(name)
        assert time.monotonic() < until, log_of(name)
        time.sleep(0.5)


def exit_code_when_stopped(name: str) -> int:
    """As Kubernetes stops it: SIGTERM to process 1, and SIGKILL, which is 137, to who does not hear it."""
    engine("stop", "-t", f"{PATIENCE:.0f}", name)
    return int(engine("inspect", "--format", "{{.State.ExitCode}}", name))


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    name = f"sightread-test-{os.getpid()}"
    engine("network", "create", name)
    yield name
    engine("network", "rm", name)


@pytest.fixture(scope="module")
def start(network: str) -> Iterator[Start]:
    """Start a container → its name; it goes at the end."""
    started: list[str] = []

    def run(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
        name = f"{network}-{len(started)}"
        engine("run", "--detach", "--name", name, "--network", network, *CONFINED, *options, image, *command)
        started.append(name)
        return name

    yield run
    for name in started:
        # podman would wait for each
        engine("stop", "-t", "0", name)
        engine("rm", name)


@pytest.fixture(scope="module")
def training_options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """A volume that trainings write, at /training, and data."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "models").mkdir()
    for path in (folder, folder / "models"):
        path.chmod(0o777)
    options = ("--volume", f"{folder}:/training", "--volume", f"{ROOT}/training/data:/data:ro")
    yield options
    # what the image's user wrote, only that user can remove
    program = """
import pathlib, shutil
for path in pathlib.Path("/training").glob("*/*"):
    shutil.rmtree(path, ignore_errors=True)
"""
    inside(TRAINING, program, *options)


@pytest.fixture(scope="module")
def published(training_options: tuple[str, ...]) -> tuple[str, ...]:
    """The volume with the model `toy` in it, which the image has trained."""
    engine("run", "--rm", *CONFINED, *training_options, TRAINING, *TRAIN, "--name", "toy")
    return training_options


@pytest.fixture(scope="module")
def model_server(published: tuple[str, ...], start: Start) -> str:
    """The local model server out of the training image, over the models that ship and the one that was trained."""
    command = ["-m", "serving.local_model_server", "--models", "/training/models", "--address", "0.0.0.0:8500"]
    shipped = [f"{ROOT}/models/{name}:/training/models/{name}:ro" for name in ("cnn", "lstm")]
    options = [word for volume in shipped for word in ("--volume", volume)]
    options += ["--entrypoint", "python", "--network-alias", "model-server"]
    return start(TRAINING, *command, options=(*published, *options))


@pytest.fixture(scope="module")
def start_gateway(model_server: str, start: Start) -> Callable[..., tuple[str, str]]:
    """Start a gateway that is ready → its name, and where it answers."""
    assert model_server

    def run(*options: str) -> tuple[str, str]:
        # the memory that k8s/ gives it
        confined = ("--memory", "1536m", "--publish", f"127.0.0.1::{PORT}")
        name = start(GATEWAY, options=(*WHOLE_SERVICE, *confined, *options))
        url = f"http://{engine('port', name, str(PORT)).splitlines()[0]}"
        wait_for(lambda: is_ready(url), name)
        return name, url

    return run


@pytest.fixture(scope="module")
def gateway(start_gateway: Callable[..., tuple[str, str]]) -> tuple[str, str]:
    return start_gateway()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10, verify=CERTIFICATES).status_code == 200
    except httpx.TransportError:
        return False


def test_the_gateway_s_image_is_small() -> None:
    added = inspected(GATEWAY)["Size"] - inspected(BASE)["Size"]
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
for folder in ("/", "/opt/sightread", "/var", "/var/tmp", "/run", "/home"):
    try:
        pathlib.Path(folder, "written").write_text("")
    except OSError:
        continue
    raise SystemExit(folder)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(os.getuid(), os.getgid(), int(status["CapEff"], 16), int(status["CapBnd"], 16), int(status["NoNewPrivs"]))
"""
    assert inside(image, program) == "10001 10001 0 0 1"


@pytest.mark.parametrize("image", [GATEWAY, TRAINING])
def test_an_image_says_what_it_is(image: str) -> None:
    labels = inspected(image)["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert {"title", "description", "licenses"} <= {label.rpartition(".")[2] for label in labels}
    assert engine("run", "--rm", *CONFINED, image, "--version").endswith(VERSION)


def test_a_picture_and_a_text_are_classified_through_the_image(gateway: tuple[str, str]) -> None:
    _, url = gateway
    picture = (ROOT / "examples/airplane.jpg").read_bytes()
    answer = httpx.post(
        f"{url}/classify-image", content=picture, headers={"Content-Type": "image/jpeg"}, timeout=PATIENCE
    )
    assert answer.json()["label"] == "airplane"
    answer = httpx.post(
        f"{url}/classify-text", json={"text": "A wonderful film, beautifully played."}, timeout=PATIENCE
    )
    assert answer.json()["label"] == "positive"


def test_what_the_training_image_published_is_served(start_gateway: Callable[..., tuple[str, str]]) -> None:
    _, url = start_gateway("--env", "SIGHTREAD_TEXT_MODEL=toy")
    answer = httpx.post(f"{url}/classify-text", json={"text": "what a film"}, timeout=PATIENCE)
    assert answer.json()["model"] == {"name": "toy", "version": 1}


def test_the_training_image_can_evaluate() -> None:
    assert "--data" in engine("run", "--rm", *CONFINED, TRAINING, "evaluate", "--help")


def health(name: str) -> int:
    """What the image's health check says in a container, without waiting for the engine's clock."""
    kind, *command = json.loads(engine("inspect", "--format", "{{json .Config.Healthcheck.Test}}", name))
    assert kind == "CMD"
    return subprocess.run([CONTAINERS, "exec", name, *command], capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    "environment", [[], ["SIGHTREAD_PORT=9000"], ["http_proxy=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9"]]
)
def test_the_health_check_passes_once_the_gateway_answers(start: Start, environment: list[str]) -> None:
    options = [word for variable in environment for word in ("--env", variable)]
    name = start(GATEWAY, options=(*WHOLE_SERVICE, *options))
    # alive, though it is not ready: nobody's models are there
    wait_for(lambda: health(name) == 0, name)


def test_the_health_check_fails_while_nothing_answers(start: Start) -> None:
    name = start(GATEWAY, "-c", "import time; time.sleep(1000)", options=("--entrypoint", "python"))
    assert health(name) == 1


def large_picture() -> bytes:
    """A photograph's size, 3000 × 2250: decoding takes a while, and so there is always work to be stopped in."""
    noise = np.random.default_rng(0).integers(0, 256, (140, 187, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((3000, 2250)).save(file, "JPEG")
    return file.getvalue()


def test_every_accepted_request_is_answered_when_the_container_is_stopped_while_busy(
    start_gateway: Callable[..., tuple[str, str]],
) -> None:
    name, url = start_gateway()
    picture = large_picture()
    statuses: dict[str, int] = {}

    def ask(asker: int) -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE, verify=CERTIFICATES) as client:
            for number in itertools.count():
                request_id = f"{asker}-{number}"
                try:
                    response = client.post("/classify-image", content=picture, headers={"X-Request-ID": request_id})
                except httpx.TransportError:
                    return
                statuses[request_id] = response.status_code

    askers = [threading.Thread(target=ask, args=(asker,)) for asker in range(8)]
    for asker in askers:
        asker.start()
    wait_for(lambda: len(statuses) >= 40, name)
    assert exit_code_when_stopped(name) == 0
    for asker in askers:
        asker.join()
    assert set(statuses.values()) == {200}
    # the gateway's own account: what it took in, somebody got
    records = [json.loads(line) for line in log_of(name).splitlines() if line.startswith("{")]
    accepted = {record["request_id"] for record in records if record.get("path") == "/classify-image"}
    assert accepted == statuses.keys()


def test_a_training_that_is_stopped_goes_on_in_another_container(
    training_options: tuple[str, ...], start: Start
) -> None:
    command = [*TRAIN, "--name", "long", "--epochs", "100000"]
    name = start(TRAINING, *command, options=training_options)
    wait_for(lambda: "Epoch 3/" in log_of(name), name)
    # process 1 of a container ends by no signal that it does not handle
    assert exit_code_when_stopped(name) == 128 + signal.SIGTERM
    name = start(TRAINING, *command, options=training_options)
    wait_for(lambda: "Epoch " in log_of(name), name)
    assert "Epoch 1/" not in log_of(name)

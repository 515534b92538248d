"""Several devices, or several processes on loopback, train one model; run as a script, this file is one process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from training import devices, fitting
from training.checkpoint import FILE, Checkpoint, Progress
from training.config import CnnConfig
from training.export import Session
from training.problems import TrainingProblem
from training.recipes import cnn_accurate

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
EPOCHS, BATCH, EXAMPLES, HELD_OUT = 4, 16, 75, 30
SIDE, LABELS = 8, 3
PATIENCE_SECONDS = 250


def two_devices() -> tf.distribute.Strategy:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def learn(
    folder: Path, *, seed: int = 1, pause: float = 0, mirrored: bool = False, deterministic: bool = False
) -> tuple[keras.Model, Progress]:
    """What a job does, small: → the network on one device, with what was learned."""
    strategy = two_devices() if mirrored else devices.strategy()
    if deterministic:
        devices.make_deterministic()
    keras.utils.set_random_seed(seed)
    network = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(LABELS),
        ]
    )
    chance = np.random.default_rng(0)
    labels = np.arange(EXAMPLES + HELD_OUT) % LABELS
    pictures = (labels[:, None, None, None] * 60 + chance.integers(0, 80, (len(labels), SIDE, SIDE, 3))).astype(
        np.uint8
    )

    def batches(epoch: int) -> Iterator[fitting.Batch]:
        time.sleep(pause)
        order = np.random.default_rng((seed, epoch)).permutation(EXAMPLES)
        for start in range(0, steps * BATCH, BATCH):
            which = order[start : start + BATCH]
            yield pictures[which], labels[which]

    steps = EXAMPLES // BATCH
    progress = fitting.fit(
        network,
        batches,
        lambda: [(pictures[EXAMPLES:], labels[EXAMPLES:])],
        optimizer=lambda: cnn_accurate.optimizer(0.05, EPOCHS * steps),
        strategy=strategy,
        steps=steps,
        label_weights=np.ones(LABELS, np.float32),
        config=CnnConfig(epochs=EPOCHS, seed=seed, smoothing=0.0),
        checkpoint=Checkpoint(folder, {"seed": seed}),
    )
    return network, progress


def _ports(count: int) -> list[int]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def _config(ports: list[int], index: int) -> str:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


@pytest.fixture
def launch() -> Iterator[Any]:
    """Starts a process; ends it with the test."""
    started: list[subprocess.Popen[str]] = []

    def launch(command: list[str], index: int = 0, ports: list[int] | None = None) -> subprocess.Popen[str]:
        environment = os.environ | {
            "TF_CONFIG": _config(ports, index) if ports else "{}",
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
        }
        process = subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def start(launch: Any) -> Any:
    """Starts this file as one process of a job."""

    def start(folder: Path, index: int = 0, ports: list[int] | None = None, **arguments: float) -> Any:
        return launch([__file__, str(folder), str(index), json.dumps(arguments)], index, ports)

    return start


def _ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, said


def _succeeded(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        code, said = _ended(process)
        assert code == 0, said


def _learned(folder: Path, index: int) -> dict[str, Any]:
    with np.load(folder / f"{index}.npz") as file:
        return dict(file)


def _like(learned: dict[str, Any], alone: keras.Model, progress: Progress) -> None:
    assert learned["epochs"] == EPOCHS
    for name, curve in progress.history.items():
        np.testing.assert_allclose(learned[name], curve, rtol=1e-3)
    for number, weight in enumerate(alone.get_weights()):
        np.testing.assert_allclose(learned[f"weight{number}"], weight, atol=1e-4)


def test_workers_of_which_one_died_and_came_back_find_what_one_alone_finds(tmp_path: Path, start: Any) -> None:
    alone, progress = learn(tmp_path / "alone")
    ports = _ports(2)
    chief, other = (start(tmp_path, index, ports, pause=2) for index in range(2))
    checkpoint = tmp_path / FILE
    while not checkpoint.exists():
        assert chief.poll() is None
        time.sleep(0.05)
    other.kill()
    code, said = _ended(chief)
    assert (code, "Another worker is gone" in said) == (1, True), said

    assert not (tmp_path / "0.npz").exists()
    _succeeded([start(tmp_path, index, ports) for index in range(2)])
    first, second = (_learned(tmp_path, index) for index in range(2))
    _like(first, alone, progress)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_two_workers_publish_one_version(tmp_path: Path, cifar_folder: Path, launch: Any) -> None:
    places = ["--data", str(cifar_folder), "--models", str(tmp_path / "models"), "--output", str(tmp_path / "runs")]
    command = ["-m", "training", "cnn", "--recipe", "seed", "--epochs", "2", *places]
    ports = _ports(2)
    _succeeded([launch(command, index, ports) for index in range(2)])
    (version,) = (tmp_path / "models" / "cnn").iterdir()
    with Session(version) as session:
        history = session.contract().provenance.history
    assert history is not None
    assert len(history["val_accuracy"]) == 2


def test_two_devices_of_one_machine_find_what_one_finds(tmp_path: Path, start: Any) -> None:
    _succeeded([start(tmp_path, mirrored=True)])
    _like(_learned(tmp_path, 0), *learn(tmp_path / "alone"))


def test_what_is_deterministic_gives_the_same_bits_in_every_process(tmp_path: Path, start: Any) -> None:
    _succeeded([start(tmp_path / str(number), deterministic=True) for number in range(2)])
    first, second = (_learned(tmp_path / str(number), 0) for number in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_workers_that_were_not_started_alike_say_so(tmp_path: Path, start: Any) -> None:
    ports = _ports(2)
    for process in [start(tmp_path, index, ports, seed=index) for index in range(2)]:
        code, said = _ended(process)
        assert (code, "not started alike" in said) == (1, True), said


def test_a_worker_that_waits_for_the_others_lets_itself_be_stopped(tmp_path: Path, start: Any) -> None:
    ports = _ports(2)
    waiting = start(tmp_path, 0, ports)
    assert waiting.stdout.readline() == f"Waiting for the worker at 127.0.0.1:{ports[1]}\n"
    waiting.send_signal(signal.SIGTERM)
    code, said = _ended(waiting)
    assert (code, said.strip()) == (143, "stopped")


def main(folder: Path, index: int, arguments: dict[str, Any]) -> int:
    def stop(number: int, frame: object) -> None:
        del number, frame
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        network, progress = learn(folder, **arguments)
    except TrainingProblem as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 143
    weights = {f"weight{number}": weight for number, weight in enumerate(network.get_weights())}
    learned: dict[str, Any] = {"epochs": progress.epochs, **progress.history, **weights}
    np.savez(folder / f"{index}.npz", **learned)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])))

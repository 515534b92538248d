"""What the end-to-end tests share: a service that all may ask, and the means to start another."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.processes import Service, gateway, model_server
from tests.e2e.tiny_models import put, write_versions

Start = Callable[..., Service]

# in the background of a shell it is ignored, and so it would be by every program that the tests start
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions to publish, see `tiny_models.write_versions`."""
    folder = tmp_path_factory.mktemp("versions")
    write_versions(folder)
    return folder


@pytest.fixture
def repository(tmp_path: Path, versions: Path) -> Path:
    """A model repository of the test's own, with cnn/1 and lstm/1."""
    folder = tmp_path / "models"
    put(versions / "cnn" / "1", folder / "cnn" / "1")
    put(versions / "lstm" / "1", folder / "lstm" / "1")
    return folder


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Start]:
    """Start `sightread serve` with flags; it is stopped after the test."""
    with ExitStack() as stack:
        yield lambda *flags, **options: stack.enter_context(gateway(tmp_path / "gateway.log", *flags, **options))


@pytest.fixture
def start_model_server(tmp_path: Path) -> Iterator[Start]:
    """Start a local model server on a repository; it is stopped after the test."""
    with ExitStack() as stack:
        yield lambda repository, **options: stack.enter_context(
            model_server(tmp_path / "model-server.log", repository, **options)
        )


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, versions: Path) -> Iterator[Service]:
    """A ready gateway with cnn 1 and 2 and lstm 1, which all tests may ask and none may change.

    The label `stable` is on version 2 and `canary` on version 1.
    """
    folder = tmp_path_factory.mktemp("service")
    repository = folder / "models"
    for version in ("cnn/1", "cnn/2", "lstm/1"):
        put(versions / version, repository / version)
    (repository / "models.config").write_text(
        """model_config_list {
          config { name: "cnn" base_path: "cnn" version_labels { key: "stable" value: 2 }
                   version_labels { key: "canary" value: 1 } }
          config { name: "lstm" base_path: "lstm" }
        }"""
    )
    with (
        model_server(folder / "model-server.log", repository) as server,
        gateway(
            folder / "gateway.log",
            *("--model-server", server.url),
            *("--max-body-bytes", "200000", "--max-items", "8", "--max-pixels", "1000000"),
            *("--max-text-characters", "1000"),
        ) as ready,
    ):
        ready.wait_for(lambda: set(ready.versions()) == {1, 2} and ready.is_ready())
        yield ready

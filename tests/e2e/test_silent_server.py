"""A connection to the model server that dies without a word, as when its node does: it is found out and replaced."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.test_versions import ask

pytestmark = pytest.mark.slow


class Line:
    """A TCP proxy. What is open can fall silent: nobody answers on it, and nobody closes it; new ones work."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._silent: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def fall_silent(self) -> None:
        self._silent.update(self._open)

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(self._target)
                self._open += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if one not in self._silent:
                    other.sendall(data)


@pytest.fixture
def line(repository: Path, start_model_server: Start) -> Iterator[Line]:
    line = Line(start_model_server(repository).url)
    yield line
    line.close()


def test_a_connection_that_falls_silent_is_replaced(line: Line, start_gateway: Start) -> None:
    service = start_gateway("--model-server", line.address, "--deadline-seconds", "1")
    service.wait_for(service.is_ready)
    assert ask(service).status_code == 200
    line.fall_silent()
    assert ask(service).status_code == 504
    service.wait_for(lambda: ask(service).status_code == 200)

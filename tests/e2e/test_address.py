"""A model server whose name has no address for a while, as a headless Service while none of its pods is ready."""

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.test_versions import ask

pytestmark = pytest.mark.slow

HEADER = 12
ADDRESS = 1
"""The type of a question for an IPv4 address."""
ANSWERED, NO_SUCH_NAME = 0x8580, 0x8583
LONG = 12
"""Questions without an answer. A channel that is left alone has asked so often after about five minutes."""


class NameServer:
    """DNS over UDP: every name is at `address`, or nowhere while that is None. Counts the questions in vain."""

    def __init__(self) -> None:
        self.address: str | None = None
        self.asked_in_vain = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _answer(self) -> None:
        while True:
            try:
                asked, client = self._socket.recvfrom(2048)
            except OSError:
                return
            end = asked.index(0, HEADER) + 5
            (kind,) = struct.unpack(">H", asked[end - 4 : end - 2])
            is_known = self.address is not None and kind == ADDRESS
            self.asked_in_vain += kind == ADDRESS and not is_known
            flags = ANSWERED if self.address else NO_SUCH_NAME
            answer = asked[:2] + struct.pack(">5H", flags, 1, is_known, 0, 0) + asked[HEADER:end]
            if is_known:
                answer += struct.pack(">3HIH", 0xC00C, ADDRESS, 1, 5, 4) + socket.inet_aton(self.address or "")
            self._socket.sendto(answer, client)


@pytest.fixture
def names() -> Iterator[NameServer]:
    names = NameServer()
    yield names
    names.close()


def test_a_server_is_found_soon_after_its_name_has_an_address(
    names: NameServer, repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    port = start_model_server(repository).url.rpartition(":")[2]
    service = start_gateway("--model-server", f"dns://127.0.0.1:{names.port}/model-server.test:{port}")
    service.wait_for(lambda: names.asked_in_vain >= LONG)
    assert not service.is_ready()
    names.address = "127.0.0.1"
    service.wait_for(service.is_ready)
    assert ask(service).status_code == 200


def test_a_server_that_comes_back_elsewhere_is_found_soon(
    names: NameServer, repository: Path, start_model_server: Start, start_gateway: Start
) -> None:
    first = start_model_server(repository)
    port = first.url.rpartition(":")[2]
    names.address = "127.0.0.1"
    service = start_gateway("--model-server", f"dns://127.0.0.1:{names.port}/model-server.test:{port}")
    service.wait_for(service.is_ready)
    names.address, names.asked_in_vain = None, 0
    first.stop()
    service.wait_for(lambda: names.asked_in_vain >= LONG)
    assert ask(service).status_code == 503
    start_model_server(repository, address=f"127.0.0.2:{port}")
    names.address = "127.0.0.2"
    service.wait_for(lambda: ask(service).status_code == 200)

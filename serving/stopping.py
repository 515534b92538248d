"""Stopping in order: not ready first, so that nobody new is sent here, and then as the HTTP server stops by itself."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopping:
    """What SIGTERM does.

    The first one makes the service not ready and a moment later stops it: no new connections, what was accepted is
    answered. The second one ends it at once. SIGINT, which a person sends, goes to the HTTP server as it is.

    Args:
        seconds: the moment.
        on_begin: is called when it begins.

    Attributes:
        has_begun: whether the service is about to end.
    """

    def __init__(self, seconds: float, *, on_begin: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_begin = on_begin
        self.has_begun = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take SIGTERM from the HTTP server, whose handlers stand already, for as long as the context lasts."""
        servers = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(servers):
            yield  # nobody can send us signals
            return
        loop = asyncio.get_running_loop()

        def stop(number: int, frame: FrameType | None) -> None:
            if self.has_begun:
                servers(number, frame)
                servers(signal.SIGINT, frame)  # its word for: at once
                return
            self.has_begun = True
            self._on_begin()
            loop.call_soon_threadsafe(loop.call_later, self._seconds, servers, number, frame)

        signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, servers)

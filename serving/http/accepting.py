"""New connections are taken many at a time, and not by a worker process that has many more of them than another.

All workers listen on one socket. An event loop takes a connection in each of its turns; while these are full of work a
crowd waits at the door, where nobody is told that there is no room. But whoever takes all that wait must leave some to
the others.
"""

import asyncio
import fcntl
import functools
import logging
import mmap
import os
import socket
from collections.abc import Callable, MutableSequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import uvloop

logger = logging.getLogger("sightread.connections")

TAKEN_IN_A_TURN = 64
SHARE_MORE, FEW_MORE = 0.25, 1
"""Than another worker has: so many connections one may have without leaving the next to the other. Few more do no harm,
and with many nobody waits long for them to be shared out."""
PATIENCE = 0.002
"""Seconds in which a worker that has fewer connections may take the new one. Then some more are taken, and it may take
again: of a crowd it would be left nothing but what it takes at once."""
NO_ROOM = "no further connection can be taken now (%s): allow more open files, or lower --max-connections"
NO_ROOM_SECONDS = 0.5
"""Until the next attempt."""
MOST_WAITING = 4096
"""More than the system lets wait to be taken."""
BYTES = 8
"""Of one worker's count."""
ABSENT = 2**62
"""Connections of a worker that takes none: more than any has."""
FILE = "open_connections"
"""In the folder that the workers share."""


class OpenConnections:
    """How many connections each worker process has open.

    Args:
        counts: of each; shared with the other processes.
        own: which of them is this process's.
    """

    def __init__(self, counts: MutableSequence[int], own: int) -> None:
        self._counts = counts
        self._own = own
        self.is_ending = False
        """Whether this process will soon take no more: each answer is its connection's last."""
        self.is_closed = False
        """Whether this process takes no more."""
        counts[own] = 0

    def add(self, difference: int) -> None:
        """This process has so many more."""
        self._counts[self._own] += difference

    def another_has_fewer(self) -> bool:
        """Whether another process has so many fewer that the next connection is rather its own."""
        fewest = min(self._counts)
        return self._counts[self._own] > fewest + _more(fewest)

    @property
    def some_more(self) -> int:
        """How many this process takes that others had the time to take."""
        return _more(self._counts[self._own])

    def end(self) -> None:
        """This process will soon take no more."""
        self.is_ending = True

    def close(self) -> None:
        """This process takes no more."""
        self.is_ending = self.is_closed = True
        self._counts[self._own] = ABSENT


def _more(connections: int) -> int:
    return int(SHARE_MORE * connections) + FEW_MORE


def prepare_open_connections(folder: Path, workers: int) -> None:
    """For the folder that so many workers will share: none of them is there yet, and as many more may come."""
    Path(folder, FILE).write_bytes(ABSENT.to_bytes(BYTES, "little") * 2 * workers)


@functools.cache
def open_connections() -> OpenConnections:
    """Of this process, and of its fellow workers where it has any."""
    alone = OpenConnections([0], 0)
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None or not Path(folder, FILE).is_file():
        return alone
    file = os.open(Path(folder, FILE), os.O_RDWR | os.O_CLOEXEC)
    counts = cast("MutableSequence[int]", memoryview(mmap.mmap(file, 0)).cast("q"))
    for own in range(len(counts)):
        try:
            # the system gives it back when this process ends, however it ends, and another takes its place
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, BYTES, own * BYTES)
        except OSError:
            continue
        return OpenConnections(counts, own)
    return alone


class Acceptor:
    """Takes connections from a socket that listens.

    Args:
        loop: whose connections they become.
        listener: the socket; whoever made it closes it.
        protocol: makes what handles one of them.
        open_connections: of this process and its fellows; whoever opens one here counts its end.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        open_connections: OpenConnections,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._protocol = protocol
        self._open_connections = open_connections
        self._opening: set[asyncio.Task[Any]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._listener, self._take)

    def _take(self, due: int = 0) -> None:
        """Take who waits: so many although another process has fewer, and then no more than are rather its own."""
        for taken in range(TAKEN_IN_A_TURN):
            if taken >= due and self._open_connections.another_has_fewer():
                self._pause_for(PATIENCE)
                return
            try:
                self._open(self._listener.accept()[0])
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error(NO_ROOM, error.strerror)  # noqa: TRY400  # it says it all
                self._pause_for(NO_ROOM_SECONDS)
                return

    def _pause_for(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._listen()
        self._take(self._open_connections.some_more)

    def _open(self, connection: socket.socket) -> None:
        self._open_connections.add(1)
        connection.setblocking(False)
        opening = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
        self._opening.add(opening)
        opening.add_done_callback(functools.partial(self._opened, connection))

    def _opened(self, connection: socket.socket, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if opening.cancelled() or opening.exception() is not None:
            self._open_connections.add(-1)
            connection.close()

    def close(self) -> None:
        """Take those that have come, and no more; those that are open stay."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        # the system resets those that still wait when nobody listens any more, and they may have sent a request
        with suppress(OSError):
            for _ in range(MOST_WAITING):
                self._open(self._listener.accept()[0])
        self._open_connections.close()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""


class Loop(uvloop.Loop):
    """An event loop whose servers take connections so; for `uvicorn.Config(loop=…)`."""

    async def create_server(self, protocol_factory: Any, *_: Any, sock: Any, **__: Any) -> Any:  # type: ignore[override]
        """A server for a socket that listens already, without TLS."""
        return Acceptor(self, sock, protocol_factory, open_connections())

"""`sightread serve`: the gateway, and a local model server behind it where no model server is named."""

import errno
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from serving.certificates import Certificates
from serving.http.accepting import prepare_open_connections
from serving.http.api_keys import ApiKeys, ApiKeysError
from serving.http.connections import limited_connection
from serving.launcher import LocalModelServer
from serving.logs import configure_logging
from serving.settings import Settings

logger = logging.getLogger("sightread.workers")

FAILED = 1
USAGE = 2
BACKLOG = 2048
HANGS_SECONDS = 60.0
"""Without an answer: on a busy machine a worker takes long to start."""
END_SECONDS = 10.0
"""For a worker to end, after it has answered what it accepted: it may have spans to send yet."""


class Failure(Exception):
    """Why the service does not start, or did not go on, and the exit code for that."""

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code = code


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; the exit code says how it ended (0: as asked, 1: it failed, 2: wrong settings)."""
    try:
        settings = _settings(sys.argv[1:] if arguments is None else arguments)
        configure_logging(settings.log_format, settings.log_level)
        _check_files(settings)
        _allow_connections()
        return _serve(settings)
    except Failure as error:
        print(f"sightread serve: {error}", file=sys.stderr)  # noqa: T201
        return error.code


def _settings(arguments: Sequence[str]) -> Settings:
    try:
        return CliApp.run(Settings, cli_args=list(arguments))
    except SettingsError as error:
        raise Failure(str(error), USAGE) from error
    except ValidationError as error:
        faults = [
            f"--{'-'.join(map(str, fault['loc'])).replace('_', '-')}: {fault['msg']}".removeprefix("--: ")
            for fault in error.errors()
        ]
        raise Failure("\n".join(faults), USAGE) from error


def _check_files(settings: Settings) -> None:
    """What the settings name is there: best said before anything has started."""
    if not settings.model_server and not settings.models.is_dir():
        raise Failure(
            f"there is no model repository at {settings.models}: train a model (sightread train cnn), name another "
            "folder (--models) or the address of a model server (--model-server host:port)",
            USAGE,
        )
    try:
        if settings.api_keys_file:
            ApiKeys(Path(settings.api_keys_file))
        if certificates := Certificates.of(settings):
            certificates.read()
    except ApiKeysError as error:
        raise Failure(str(error), USAGE) from error
    except OSError as error:
        raise Failure(f"the certificate {error.filename} cannot be read ({error.strerror})", USAGE) from error


def _serve(settings: Settings) -> int:
    # also before and after the server has its own handlers, either signal is a request to stop
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _hang_up_is_terminate()
    server: LocalModelServer | None = None
    try:
        with ExitStack() as stack:
            listener = stack.enter_context(_listen(settings.host, settings.port))
            if not settings.model_server:
                server = stack.enter_context(LocalModelServer(settings.models))
                settings = settings.model_copy(update={"model_server": server.address})
            host, port = listener.getsockname()[:2]
            print(f"Sightread listens on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)  # noqa: T201
            _run(settings, listener, stack)
    except KeyboardInterrupt:
        pass  # how the server hands on the signal that stopped it
    if server is not None and server.ended:
        raise Failure("the local model server ended by itself; its last lines above say why", FAILED)
    return 0


def _allow_connections() -> None:
    """As many open files as we may have: the usual 1,024 are fewer than the connections that we take."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens: the port is ours, and connections wait, before anything else starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            what_to_do = (
                "stop what uses it, or choose another port (--port, SIGHTREAD_PORT)"
                if error.errno == errno.EADDRINUSE
                else "choose another address (--host, SIGHTREAD_HOST) or port (--port, SIGHTREAD_PORT)"
            )
            raise Failure(f"cannot listen on {host}:{port} ({error.strerror}): {what_to_do}", FAILED) from error
        listener.set_inheritable(True)
        yield listener


def _run(settings: Settings, listener: socket.socket, stack: ExitStack) -> None:
    if settings.workers == 1:
        from serving.app import calm_collector, create_app  # noqa: PLC0415  # the parent of workers does without

        app = create_app(settings)
        calm_collector()
        uvicorn.Server(_config(app, settings)).run(sockets=[listener])
        return
    os.environ |= settings.environment()
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sightread-"))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    prepare_open_connections(Path(folder), settings.workers)
    supervisor = _Workers(
        _config("serving.app:create_worker_app", settings),
        sockets=[listener],
        patience=settings.not_ready_seconds + settings.drain_seconds + END_SECONDS,
    )
    _hang_up_is_terminate()  # it took the signal to restart its workers
    supervisor.run()


class _Worker(Process):
    """A worker process that is asked whether it is well without being waited for."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._asked: float | None = None

    def is_alive(self, timeout: float = HANGS_SECONDS) -> bool:
        if not self.process.is_alive():
            return False
        if self._asked is None:
            self._asked = time.monotonic()
            self.parent_conn.send(b"ping")
        elif self.parent_conn.poll():
            self.parent_conn.recv()
            self._asked = None
        return self._asked is None or time.monotonic() - self._asked < timeout


class _Workers(Multiprocess):
    """Worker processes, which finish what they do when we are asked to stop, and end at once when asked again.

    Args:
        config: of each.
        sockets: that they listen on.
        patience: seconds that they get to end.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], *, patience: float) -> None:
        super().__init__(config, sockets)
        self._patience = patience
        self._is_asked_to_stop = False
        # its own handlers would take note of both requests, and act on the first one a moment later
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def run(self) -> None:
        super().run()
        self._ignore_signals()

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self._is_asked_to_stop:
            self._ignore_signals()
            for worker in multiprocessing.active_children():
                worker.kill()
            raise KeyboardInterrupt
        self._is_asked_to_stop = True
        self.signal_queue.append(number)

    def _ignore_signals(self) -> None:
        """What is left to do is to clean up, which takes a moment."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def init_processes(self) -> None:
        for _ in range(self.processes_num):
            self.processes.append(self._started())

    def _started(self) -> _Worker:
        worker = _Worker(self.config, self.sockets)
        worker.start()
        return worker

    def keep_subprocess_alive(self) -> None:
        """Replace those that died or hang. The server's own waits for each to answer, and hears nothing meanwhile."""
        for place, worker in enumerate(self.processes):
            if self.should_exit.is_set() or worker.is_alive():
                continue
            worker.kill()
            worker.join()
            if worker.exitcode == STARTUP_FAILURE:
                logger.error("worker %d could not start, as the next one could not: stopping", worker.pid)
                self.should_exit.set()
            else:
                logger.warning("worker %d died, or did not answer: starting another", worker.pid)
                self.processes[place] = self._started()

    def join_all(self) -> None:
        # the workers have it, too: when they take nobody any more, who comes then hears so at once
        for listener in self.sockets:
            listener.close()
        until = time.monotonic() + self._patience
        for worker in self.processes:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                logger.error("worker %d did not end in time: killing it", worker.pid)
                worker.kill()
                worker.join()


def _hang_up_is_terminate() -> None:
    """Who closes the terminal wants it gone."""
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def _config(app: ASGIApp | str, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=settings.workers,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="on",
        backlog=BACKLOG,
        loop="serving.http.accepting:Loop",
        http=limited_connection(settings),
        ws="none",
        timeout_keep_alive=settings.idle_seconds,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=settings.drain_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())

"""`sightread serve`: the gateway, and a local model server behind it where no model server is named."""

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError
from uvicorn.supervisors import Multiprocess

from serving.launcher import LocalModelServer
from serving.logs import configure_logging
from serving.settings import Settings

FAILED = 1
USAGE = 2
BACKLOG = 2048


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; the exit code says how it ended (0: as asked, 1: it failed, 2: wrong settings)."""
    try:
        settings = CliApp.run(Settings, cli_args=list(sys.argv[1:] if arguments is None else arguments))
    except (ValidationError, SettingsError) as error:
        return _complain(_faults(error), USAGE)
    configure_logging(settings.log_format, settings.log_level)
    if not settings.model_server and not settings.models.is_dir():
        return _complain(
            f"there is no model repository at {settings.models}: train a model (sightread train cnn), name another "
            "folder (--models) or the address of a model server (--model-server host:port)",
            USAGE,
        )
    # also before and after the server has its own handlers, either signal is a request to stop
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server: LocalModelServer | None = None
    try:
        with ExitStack() as stack:
            try:
                listener = stack.enter_context(_listen(settings.host, settings.port))
            except OSError as error:
                return _complain(
                    f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): stop what uses it, or "
                    "choose another port (--port, SIGHTREAD_PORT)",
                    FAILED,
                )
            if not settings.model_server:
                server = stack.enter_context(LocalModelServer(settings.models))
                settings = settings.model_copy(update={"model_server": server.address})
            host, port = listener.getsockname()[:2]
            print(f"Sightread listens on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)  # noqa: T201
            _run(settings, listener, stack)
    except KeyboardInterrupt:
        pass  # how the server hands on the signal that stopped it
    if server is not None and server.ended:
        return _complain("the local model server ended by itself; its last lines above say why", FAILED)
    return 0


def _complain(what: str, code: int) -> int:
    print(f"sightread serve: {what}", file=sys.stderr)  # noqa: T201
    return code


def _faults(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    return "\n".join(
        f"--{'-'.join(map(str, fault['loc'])).replace('_', '-')}: {fault['msg']}" for fault in error.errors()
    )


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens: the port is ours, and connections wait, before anything else starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.set_inheritable(True)
        yield listener


def _run(settings: Settings, listener: socket.socket, stack: ExitStack) -> None:
    if settings.workers == 1:
        from serving.app import create_app  # noqa: PLC0415  # the parent of several workers does without

        uvicorn.Server(_config(create_app(settings), settings)).run(sockets=[listener])
        return
    os.environ |= settings.environment()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="sightread-"))
    Multiprocess(_config("serving.app:create_worker_app", settings), sockets=[listener]).run()


def _config(app: FastAPI | str, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=settings.workers,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=75,  # longer than the idle time of common load balancers
        timeout_graceful_shutdown=settings.drain_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())

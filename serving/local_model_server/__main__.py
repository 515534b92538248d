"""`python -m serving.local_model_server`: flags, start and stop."""

import argparse
import logging
import os
import re
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import NoReturn

import grpc

from serving.bare_package import stand_in

from .config import ConfigError, Configuration

_NOT_FOR_PRODUCTION = "for a laptop, a test or a demo, not for production: run TensorFlow Serving there"
_STOPS = (signal.SIGTERM, signal.SIGINT)
_GRACE_SECONDS = 5
_LARGEST_PORT = 65535
# TensorFlow Serving's default for --grpc_max_threads, but no fewer than a gateway of several workers asks for at once
_THREADS = max(32, 4 * (os.cpu_count() or 1))

log = logging.getLogger("serving.local_model_server")


def _address(text: str) -> str:
    port = re.fullmatch(r"unix:.+|.+:(\d{1,5})", text)
    if port is None or int(port[1] or 0) > _LARGEST_PORT:  # gRPC would take it modulo 65536
        raise argparse.ArgumentTypeError(f"{text!r} is neither host:port nor unix:PATH")
    return text


def rows(text: str) -> int:
    """A flag's number of rows; argparse shows the name of this function where it is none."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("it cannot be negative")
    return number


def seconds(text: str) -> float:
    """A flag's number of seconds."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError("it must be above 0")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.local_model_server",
        description=f"A local model server with TensorFlow Serving's gRPC, {_NOT_FOR_PRODUCTION}.",
    )
    option = parser.add_argument
    option(
        "--address", type=_address, default="127.0.0.1:8500", help="host:port or unix:PATH to listen on (%(default)s)"
    )
    option("--models", type=Path, default=Path("models"), help="the model repository, <model>/<version>/ (%(default)s)")
    option("--config", type=Path, help="a models.config; default: the one in the model repository, if there is one")
    option("--poll-seconds", type=seconds, default=1, help="between looks at the folders and the config (%(default)s)")
    option("--max-batch-size", type=rows, default=0, help="rows that a request may have; 0: any (%(default)s)")
    option("--exit-with-parent", action="store_true", help="exit when standard input ends")
    return parser


def _claim(address: str) -> None:
    """Takes a dead server's socket file away; gRPC would take a living one's, too.

    Raises:
        OSError: the path is taken.
    """
    if not address.startswith("unix:"):
        return
    path = Path(address.removeprefix("unix:").removeprefix("//"))
    if path.exists() and not path.is_socket():
        raise OSError(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError("another server listens there")


def _listen(server: grpc.Server, address: str) -> str:
    """Binds, and returns the address with the port that port 0 became."""
    try:
        _claim(address)
        port = server.add_insecure_port(address)
    except (OSError, RuntimeError) as error:
        _give_up(1, f"cannot listen on {address}: it is in use, or not ours to take; name another --address ({error})")
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def _give_up(code: int, text: str) -> NoReturn:
    sys.stderr.write(f"local model server: {text}\n")
    sys.exit(code)


def _stop_at_end_of_input() -> None:
    # Not sys.stdin: its lock, held by a thread that waits, aborts the interpreter's end.
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(options: argparse.Namespace) -> None:
    configuration = Configuration(options.models, options.config)
    try:
        configuration.read()
    except ConfigError as error:
        _give_up(2, str(error))
    server = grpc.server(
        ThreadPoolExecutor(_THREADS),
        options=(
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ),
        maximum_concurrent_rpcs=_THREADS,
    )
    address = _listen(server, options.address)

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow takes seconds to import, half of them for what runs no model: its public names. What can go wrong
    # without it has gone wrong by now.
    for package in ("tensorflow", "tensorflow.python"):
        stand_in(package)
    from .repository import Repository  # noqa: PLC0415
    from .service import Service  # noqa: PLC0415

    repository = Repository(configuration, options.max_batch_size)
    server.add_generic_rpc_handlers(Service(repository, options.max_batch_size).handlers())
    repository.poll()
    server.start()
    sys.stdout.write(f"listening on {address}\n")  # what starts this program waits for this line
    sys.stdout.flush()
    repository.watch(options.poll_seconds)
    signal.sigwait(_STOPS)
    log.info("stopping")
    server.stop(_GRACE_SECONDS).wait()
    repository.close()


def main() -> NoReturn:
    """Runs the server until SIGTERM, SIGINT or, if asked to, the end of standard input.

    Exit status: 0 after a stop, 1 where the address cannot be had, 2 where flags, folders or the config are wrong.
    """
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    log.warning("the local model server is %s", _NOT_FOR_PRODUCTION)
    # They wait to be waited for, in every thread that starts from here. A handler that sets an event may run in the
    # moment before the wait for that event begins to sleep, and nothing then wakes it up.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    if options.exit_with_parent:
        Thread(target=_stop_at_end_of_input, daemon=True).start()
    _serve(options)
    logging.shutdown()
    os._exit(0)  # an interpreter's ordinary end waits for a version that is still loading, however long that takes


if __name__ == "__main__":
    main()

"""What is compared, each a process of its own, all on the same versions 1 of the two models."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.inputs import Input, Kind
from benchmarks.load import LoadProblem, ask_once
from serving.contract import ImageInput
from training.repository import contract

ROOT = Path(__file__).resolve().parents[1]
VERSIONS: Mapping[Kind, str] = {"image": "cnn/1", "text": "lstm/1"}
PATIENCE_SECONDS = 120.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """One that answers.

    Attributes:
        name: for the table.
        urls: where it takes each kind of input.
        processes: who takes it there, the parent of its workers.
        refuses: whether it refuses what it cannot do; the others let everybody wait.
    """

    name: str
    urls: Mapping[Kind, str]
    processes: Mapping[Kind, int]
    refuses: bool = False


@dataclass(frozen=True)
class Compared:
    """All that runs.

    Attributes:
        servers: who is compared, Sightread first.
        model_server: the address that the gateway and the script ask.
    """

    servers: Sequence[Server]
    model_server: str


@contextmanager
def servers(probes: Mapping[Kind, Input], *, workers: int, mosec: Path | None, logs: Path) -> Iterator[Compared]:
    """Start all of them, wait until each answers, and end them afterwards.

    Args:
        probes: an input of each kind, to ask by.
        workers: processes of the gateway.
        mosec: the Python of an environment with mosec in it; None leaves mosec out.
        logs: folder for what they print, and for what they are told of the models.

    Raises:
        LoadProblem: one does not come up.
    """
    specs = {kind: logs / f"{kind}.json" for kind in VERSIONS}
    for kind, path in specs.items():
        path.write_text(json.dumps(_spec(kind)))
    with ExitStack() as stack:

        def start(name: str, *command: str, **environment: str) -> int:
            return stack.enter_context(_process(name, command, environment, logs))

        ports = _free_ports(6)
        model_server = f"127.0.0.1:{ports[0]}"
        start("model-server", sys.executable, "-m", "serving.local_model_server", "--models", str(ROOT / "models"),
              "--address", model_server)  # fmt: skip
        gateway = start("sightread", sys.executable, "-m", "sightread", "serve", "--port", str(ports[1]),
              "--model-server", model_server, "--workers", str(workers))  # fmt: skip
        peer = "import json, sys; from benchmarks.peers import {0}; {0}.main(*map(json.loads, sys.argv[1:]))"
        script = start("script", sys.executable, "-c", peer.format("script"), str(ports[2]), json.dumps(model_server),
              json.dumps(str(specs["image"])), json.dumps(str(specs["text"])))  # fmt: skip
        constant = start("constant", sys.executable, "-c", peer.format("constant"), str(ports[3]))
        found = [
            Server("Sightread", _endpoints(ports[1], "?version=1"), dict.fromkeys(VERSIONS, gateway), refuses=True),
            Server("FastAPI script", _endpoints(ports[2]), dict.fromkeys(VERSIONS, script)),
            Server("constant answer", _endpoints(ports[3]), dict.fromkeys(VERSIONS, constant)),
        ]
        if mosec is not None:
            urls: dict[Kind, str] = {}
            processes: dict[Kind, int] = {}
            for (kind, spec), port in zip(specs.items(), ports[4:], strict=True):
                program = str(ROOT / "benchmarks" / "peers" / "mosec_server.py")
                processes[kind] = start(f"mosec-{kind}", str(mosec), program, "--port", str(port), SPEC=str(spec))
                urls[kind] = f"http://127.0.0.1:{port}/inference"
            found.insert(1, Server("mosec", urls, processes, refuses=True))
        for server in found:
            for kind, url in server.urls.items():
                _wait_for(server.name, url, probes[kind], logs)
        yield Compared(found, model_server)


def _spec(kind: Kind) -> dict[str, Any]:
    """What a peer has to be told of a model, since it cannot ask."""
    folder = ROOT / "models" / VERSIONS[kind]
    told = contract(folder)
    spec = {"kind": kind, "folder": str(folder), "input": told.input.name, "labels": told.labels}
    if isinstance(told.input, ImageInput):
        return spec | {"size": [told.input.width, told.input.height]}
    return spec | {"tokenizer": json.dumps(told.input.tokenizer), "length": told.input.max_length}


def _endpoints(port: int, query: str = "") -> dict[Kind, str]:
    return {
        "image": f"http://127.0.0.1:{port}/classify-image{query}",
        "text": f"http://127.0.0.1:{port}/classify-text{query}",
    }


def _free_ports(count: int) -> list[int]:
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [server.getsockname()[1] for server in listening]
    for server in listening:
        server.close()
    return ports


@contextmanager
def _process(name: str, command: tuple[str, ...], environment: dict[str, str], logs: Path) -> Iterator[int]:
    with (logs / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=os.environ | environment
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(name: str, url: str, probe: Input, logs: Path) -> None:
    """Until it answers; what it says meanwhile does not matter."""
    until = time.monotonic() + PATIENCE_SECONDS
    said: object = "nothing"
    while time.monotonic() < until:
        try:
            ask_once(url, probe, timeout=5)
        except OSError as error:
            said = error
        else:
            return
        time.sleep(0.2)
    raise LoadProblem(f"{name} does not answer at {url} ({said}): see its log in {logs}.")

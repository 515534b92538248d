"""`sightread doctor`: checks in order what serving needs, and says what to do about each thing that is not so."""

import argparse
import asyncio
import errno
import json
import logging
import os
import platform
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import httpx
from packaging.requirements import Requirement
from pydantic import ValidationError
from pydantic_settings import CliApp, CliSettingsSource, SettingsError
from rich.console import Console
from rich.text import Text

from serving.certificates import Certificates
from serving.launcher import LocalModelServer
from serving.metrics import Metrics
from serving.model_server import ModelServer
from serving.settings import Settings
from serving.versions import Model
from terminal.rendering import plain
from training import repository
from training.problems import RepositoryProblem

DONE, FAILED, WRONG_FLAGS, INTERRUPTED = 0, 1, 2, 130
SAME_MINOR = ("tensorflow", "tensorflow-serving-api")
"""What must be of the model server's minor version: else what is exported does not load."""
ASK_SECONDS = 5.0
REACH_SECONDS = 5.0
"""Until a model server that was named is given up."""
START_SECONDS = 120.0
"""Until one that we started is: it imports TensorFlow first."""
LOAD_SECONDS = 120.0
POLL_SECONDS = 0.2
IMAGE: Literal["image"] = "image"
TEXT: Literal["text"] = "text"
UNSETTLED = {"start", "loading", "proving"}
MARKS = {"ok": ("✓", "+", "green"), "failed": ("✗", "x", "red"), "skipped": ("–", "-", "dim")}

EPILOG = """\
Without --model-server a local model server is started for the proof, as sightread serve does, and ended after it.
exit codes: 0 all is well, 1 something is not, 2 wrong flags
"""


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    state: Literal["ok", "failed", "skipped"]
    says: str
    do: str | None = None


def main(arguments: Sequence[str]) -> int:
    """Check; the exit code: 0 all is well, 1 something is not, 2 wrong flags, 130 interrupted."""
    made = parser()
    try:
        source = CliSettingsSource[Any](Settings, root_parser=made)
        options = made.parse_args(arguments)
        settings = CliApp.run(Settings, cli_args=options, cli_settings_source=source)
    except SettingsError as error:
        _complain(str(error))
        return WRONG_FLAGS
    except ValidationError as error:
        for fault in error.errors():
            _complain(f"--{'-'.join(map(str, fault['loc'])).replace('_', '-')}: {fault['msg']}".replace("--: ", ""))
        return WRONG_FLAGS
    logging.disable()  # what the log would say is in the findings
    try:
        return asyncio.run(_run(settings, options.url or _own_url(settings), as_json=options.json))
    except KeyboardInterrupt:
        return INTERRUPTED


def parser(made: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """The flags beside those of `sightread serve`, in a parser of their own or in one that was made for them."""
    made = made or argparse.ArgumentParser(prog="sightread doctor")
    made.description = "Check what serving needs, and what is served; say what to do about each thing that is amiss."
    made.epilog = EPILOG
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument(
        "--url",
        default=os.environ.get("SIGHTREAD_URL"),
        help="where the gateway is (where --host and --port say that it listens)",
    )
    made.add_argument("--json", action="store_true", help="the findings as JSON")
    return made


def _own_url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  # what listens there answers here
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


async def _run(settings: Settings, url: str, *, as_json: bool) -> int:
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a path may hold what the terminal cannot show
    out = Console(highlight=False, markup=False, emoji=False)
    findings = []
    with out.status("checking") if out.is_terminal and not as_json else nullcontext():
        async for finding in _findings(settings, url):
            findings.append(finding)
            if not as_json:
                _show(out, finding)
    well = all(finding.state != "failed" for finding in findings)
    if as_json:
        document = {"well": well, "checks": [asdict(finding) for finding in findings]}
        out.print(json.dumps(document, indent=2, ensure_ascii=False), soft_wrap=True)
    return DONE if well else FAILED


def _show(out: Console, finding: Finding) -> None:
    mark, ascii_mark, colour = MARKS[finding.state]
    if not out.encoding.lower().startswith("utf"):
        mark = ascii_mark
    out.print(Text.assemble((mark, colour), f" {finding.check:13} {plain(finding.says)}"), soft_wrap=True)
    if finding.do:
        out.print(Text(f"{'':16}{finding.do}", "bold"), soft_wrap=True)


async def _findings(settings: Settings, url: str) -> AsyncIterator[Finding]:
    yield python()
    yield packages(settings)
    for finding in model_repository(settings):
        yield finding
    yield port(settings)
    async for finding in gateway(url):
        yield finding
    async for finding in model_server(settings):
        yield finding


def python() -> Finding:
    """Whether this Python is one that the project is made for."""
    running, wanted = platform.python_version(), metadata.metadata("sightread")["Requires-Python"]
    if Requirement(f"python{wanted}").specifier.contains(running):
        return Finding("Python", "ok", running)
    return Finding("Python", "failed", f"{running} is not {wanted}", "rm -r .venv; make PYTHON=/path/to/python3.11")


def packages(settings: Settings) -> Finding:
    """Whether what must agree does: TensorFlow, its serving API and what pyproject.toml asks for."""
    amiss, versions = [], {}
    for requirement in map(Requirement, metadata.requires("sightread") or []):
        is_pinned = requirement.name in SAME_MINOR
        if requirement.marker and not (is_pinned or requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            versions[requirement.name] = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if not is_pinned or not settings.model_server:  # a gateway by itself has only their messages
                amiss.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(versions[requirement.name], prereleases=True):
            amiss.append(f"{requirement.name} {versions[requirement.name]} is not {requirement.specifier}")
    if amiss:
        return Finding(
            "packages", "failed", "; ".join(amiss), "make; or, in the project's folder: pip install '.[training]'"
        )
    pinned = [f"{name} {versions[name]}" for name in SAME_MINOR if name in versions]
    agreeing = f"; {' and '.join(pinned)} agree" if pinned else "; no TensorFlow, which only a local model server needs"
    return Finding("packages", "ok", f"{len(versions)} fit pyproject.toml{agreeing}")


def model_repository(settings: Settings) -> Iterator[Finding]:
    """Whether the folder holds both models, with contracts that can be read, and a models.config that can."""
    check, models = "models", settings.models
    if not models.is_dir() and settings.model_server:
        yield Finding(check, "skipped", f"there is no folder {models} here: the model server has its own")
        return
    try:
        standing = {name: repository.standing(models, name) for name in repository.models(models)}
    except RepositoryProblem as problem:
        yield Finding(check, "failed", str(problem), "sightread train cnn; or name another folder with --models")
        return
    for kind, name in ((IMAGE, settings.image_model), (TEXT, settings.text_model)):
        if name and name not in standing:
            says = f"{models} has no model {name!r} for {kind}s; it has {', '.join(standing) or 'none'}"
            job = "cnn" if kind == IMAGE else "lstm"
            yield Finding(
                check, "failed", says, f"sightread train {job} --name {name}; or name another: --{kind}-model"
            )
    for name, told in standing.items():
        yield from _versions(models, name, told)


def _versions(models: Path, name: str, standing: repository.Standing) -> Iterator[Finding]:
    check, well = "models", True
    for number in standing.present:
        version = models / name / str(number)
        try:
            repository.contract(version)
        except RepositoryProblem as problem:
            well = False
            yield Finding(check, "failed", str(problem), f"train it anew, and remove {version}")
    for label, number in standing.labels.items():
        if number not in standing.present:
            well = False
            says = f"{repository.CONFIG_FILE} labels version {number} of {name} {label!r}, and there is none"
            yield Finding(check, "failed", says, f"sightread models promote {name} VERSION --models {models}")
    if well:
        says = f"{models / name} holds {_listed(standing.present)}; served: {standing.policy}"
        yield Finding(check, "ok", f"{says}, {_listed(standing.served)}")


def port(settings: Settings) -> Finding:
    """Whether `sightread serve` can listen there, or does already."""
    check, address = "port", f"{settings.host}:{settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((settings.host, settings.port))
            listener.listen()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return Finding(check, "failed", f"{address}: {error.strerror}", "choose another --host or --port")
        if _is_ours(_own_url(settings)):
            return Finding(check, "ok", f"{address} is held by a Sightread gateway")
        return Finding(
            check,
            "failed",
            f"{address} is held by another program",
            f"stop it (ss -ltnp 'sport = :{settings.port}' names it), or choose another one: "
            'make serve FLAGS="--port 9000"',
        )
    return Finding(check, "ok", f"{address} is free")


def _is_ours(url: str) -> bool:
    try:
        response = httpx.get(f"{url}/livez", timeout=ASK_SECONDS)
        return bool(response.json() == {"status": "alive"} and "X-Request-ID" in response.headers)
    except (httpx.HTTPError, ValueError):
        return False


async def gateway(url: str) -> AsyncIterator[Finding]:
    """Whether the gateway answers, and whether each model has a version that takes traffic."""
    check = "gateway"
    try:
        models = await _models_of(url)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        yield Finding(check, "failed", f"nobody answers at {url}", "make serve; or name another address with --url")
        return
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        says = f"what is at {url} is no Sightread gateway ({error or type(error).__name__})"
        yield Finding(check, "failed", says, "name another address with --url")
        return
    yield Finding(check, "ok", f"{url} is alive")
    for name, serving, reason in models:
        if serving is not None:
            yield Finding(check, "ok", f"{name} is ready: version {serving} answers")
        else:
            yield Finding(check, "failed", f"{name} is not ready: {reason}", "mend what is amiss below")


async def _models_of(url: str) -> list[tuple[str, int | None, str | None]]:
    """Of each model of a gateway: its name, the version that answers, and why none does."""
    async with httpx.AsyncClient(base_url=url, timeout=ASK_SECONDS) as client:
        (await client.get("/livez")).raise_for_status()
        ready = (await client.get("/readyz")).json()
    return [(model["name"], model["serving"], model.get("reason")) for model in ready["models"]]


async def model_server(settings: Settings) -> AsyncIterator[Finding]:
    """Whether the model server has the models, and whether their versions prove themselves as they do for a gateway."""
    if not settings.model_server and not settings.models.is_dir():
        yield Finding("golden proof", "skipped", "there is neither a model server nor a folder of models")
        return
    try:
        certificates = Certificates.of(settings)
        if certificates:
            certificates.read()
    except OSError as error:
        says = f"the certificate {error.filename} cannot be read ({error.strerror})"
        yield Finding("model server", "failed", says, "name another file with --model-server-ca, -certificate and -key")
        return
    if settings.model_server:
        async for finding in _proofs(settings, ModelServer(settings.model_server, certificates), lambda: None):
            yield finding
        return
    with tempfile.TemporaryFile("w+") as log, LocalModelServer(settings.models, log=log) as local:

        def ended() -> str | None:
            if not local.ended:
                return None
            log.seek(0)
            return f"the local model server ended: {(log.read().strip().splitlines() or ['it said nothing'])[-1]}"

        # how it tells us that it ended; anybody else means us
        before = signal.signal(signal.SIGTERM, lambda *_: None if local.ended else signal.raise_signal(signal.SIGINT))
        try:
            async for finding in _proofs(settings, ModelServer(local.address), ended):
                yield finding
        finally:
            signal.signal(signal.SIGTERM, before)


async def _proofs(settings: Settings, server: ModelServer, ended: Callable[[], str | None]) -> AsyncIterator[Finding]:
    """What every version on a server comes to; `ended` says why there is no more hope, when there is none."""
    models = [
        Model(name, kind, server=server, settings=settings, metrics=Metrics())
        for name, kind in ((settings.image_model, IMAGE), (settings.text_model, TEXT))
        if name
    ]
    patience = REACH_SECONDS if settings.model_server else START_SECONDS
    async with server.connected():
        for model in models:
            described = await _settled(model, patience, ended)
            if why := ended():
                yield Finding("model server", "failed", why, "mend what it names, then once more: sightread doctor")
                return
            for finding in proof(described, settings):
                yield finding


async def _settled(model: Model, patience: float, ended: Callable[[], str | None]) -> dict[str, Any]:
    """What a model's versions come to, once each is proven, refused or given up."""
    start = time.monotonic()
    while True:
        await model.look()
        described = model.describe()
        states = {version["state"] for version in described["versions"]}
        if states and not states & UNSETTLED:
            return described
        if ended() or time.monotonic() - start > (LOAD_SECONDS if states else patience):
            return described
        await asyncio.sleep(POLL_SECONDS)


def proof(described: dict[str, Any], settings: Settings) -> Iterator[Finding]:
    """What follows from the states of a model's versions, as a gateway describes them."""
    name = described["name"]
    versions = [version for version in described["versions"] if version["state"] != "end" or "reason" in version]
    whose = settings.model_server or "a local one, started for this check,"
    if not versions:
        says = f"{whose} has no versions of {name}: {described.get('reason')}"
        do = "start it, or name it with --model-server" if settings.model_server else f"sightread train {name}"
        yield Finding("model server", "failed", says, do)
        return
    here = {"proven", "refused", "proving"}
    states = ", ".join(
        f"{version['version']} {'available' if version['state'] in here else version['state']}" for version in versions
    )
    yield Finding("model server", "ok", f"{whose} has {name}: {states}")
    for version in versions:
        which = f"{name} {version['version']}"
        if version["state"] == "proven":
            traffic = ", and takes the traffic" if version["version"] == described["serving"] else ""
            yield Finding("golden proof", "ok", f"{which} answers its golden examples as in training{traffic}")
        else:
            says = f"{which} takes no traffic ({version['state']}): {version.get('reason', 'it is not done yet')}"
            yield Finding("golden proof", "failed", says, _remedy(name, version, settings))


def _remedy(name: str, version: dict[str, Any], settings: Settings) -> str:
    """What to do about a version that takes no traffic: only of a refused one it is known that it never will."""
    where = "the version's folder" if settings.model_server else settings.models / name / str(version["version"])
    match version["state"]:
        case "refused":
            return f"train it anew, and remove {where}"
        case "end":  # the model server gave it up: it may be broken, or there was no room for it
            return f"mend what it names; or train it anew, and remove {where}"
    return "ask again: sightread doctor"


def _listed(numbers: Sequence[int]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, numbers[:-1])), *map(str, numbers[-1:])])) or "none"


def _complain(what: str) -> None:
    print(f"sightread doctor: {what}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

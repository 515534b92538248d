"""The model repository: which versions are there, which are wanted, and what state each is in.

States and transitions are those of TensorFlow Serving's manager with its availability-preserving policy: a version
that is no longer aspired is unloaded when an aspired one is AVAILABLE, or when nothing is aspired any more.
"""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Event, Thread

from tensorflow.python.framework import errors
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from .config import ConfigError, Configuration, ModelConfig
from .servable import Servable
from .warmup import warm_up

_LOADERS = 4
_LARGEST_VERSION = 2**63 - 1

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Version:
    """One life of a version, from the poll that found it to its end; a version may come back and live again."""

    number: int
    folder: Path
    state: int = ModelVersionStatus.START
    error: errors.OpError | None = None  # why it could not be loaded
    aspired: bool = True
    gone: bool = False  # its folder was missing at a poll: what is there later is another life
    servable: Servable | None = None
    users: int = 0  # calls that are running on it


@dataclass(eq=False)
class _Model:
    config: ModelConfig
    versions: list[_Version] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


class Repository:
    """The versions of all models, kept as the configuration and the folders say.

    Args:
        configuration: says which models to serve. Where it cannot be read at a poll, the previous answer goes on.
        max_batch_size: rows that a warm-up request may have; 0: any number.
    """

    def __init__(self, configuration: Configuration, max_batch_size: int = 0) -> None:
        self._configuration = configuration
        self._max_batch_size = max_batch_size
        self._configs: tuple[ModelConfig, ...] = ()
        self._models: dict[str, _Model] = {}
        self._changed = Condition()
        self._workers = ThreadPoolExecutor(_LOADERS, "load")
        self._reported: dict[str, str] = {}
        self._closed = Event()

    def watch(self, poll_seconds: float) -> None:
        """Starts to poll, in a thread of its own, until `close`."""

        def poll_until_closed() -> None:
            while not self._closed.wait(poll_seconds):
                self.poll()

        Thread(target=poll_until_closed, name="poll", daemon=True).start()

    def close(self) -> None:
        """Stops polling."""
        self._closed.set()

    @contextmanager
    def servable(
        self, model: str, *, version: int | None = None, label: str | None = None
    ) -> Iterator[tuple[int, Servable]]:
        """The number and the servable of a version; it stays loaded inside the `with` block.

        Args:
            model: its name.
            version: its number; neither number nor label: the newest that is AVAILABLE.
            label: a version label.

        Raises:
            errors.InvalidArgumentError: there is no such label.
            errors.NotFoundError: that version is not AVAILABLE.
        """
        with self._changed:
            found = self._find(model, version, label)
            found.users += 1
        try:
            yield found.number, found.servable  # type: ignore[misc] # AVAILABLE: it has one
        finally:
            with self._changed:
                found.users -= 1
                self._changed.notify_all()

    def states(self, model: str) -> dict[int, tuple[int, errors.OpError | None]]:
        """State, and the error if loading failed, of every version that this process has known, newest first."""
        with self._changed:
            versions = self._models[model].versions if model in self._models else []
            # Two lives of one number: the one that serves counts, else the later one.
            lives = {life.number: life for life in sorted(versions, key=_is_available)}
            return {number: (lives[number].state, lives[number].error) for number in sorted(lives, reverse=True)}

    def poll(self) -> None:
        """Compares the configuration and the folders with what is loaded, and starts what follows from that."""
        try:
            configs = self._configuration.read()
        except ConfigError as error:
            self._report("configuration", f"{error}; the previous configuration goes on")
        else:
            self._report("configuration", None)
            if configs != self._configs:
                log.info("models to serve: %s", ", ".join(config.name for config in configs) or "none")
            self._configs = configs
        found = {config.name: self._look(config) for config in self._configs}
        with self._changed:
            for config in self._configs:
                self._models.setdefault(config.name, _Model(config)).config = config
            for name, model in self._models.items():
                if name not in found:
                    model.config = ModelConfig(name, model.config.folder)
                present = found.get(name, {})
                if present is not None:
                    self._aspire(model, present)

    def _look(self, config: ModelConfig) -> dict[int, Path] | None:
        """The version folders of a model; `None` where they cannot be read now, which is not the same as none."""
        try:
            numbered = [entry for entry in sorted(config.folder.iterdir()) if _is_version(entry.name)]
            versions = {int(entry.name): entry for entry in numbered if entry.is_dir()}
        except OSError as error:
            self._report(config.name, f"cannot read {config.folder} ({error.strerror}); its versions stay as they are")
            return None
        problem = None
        if not versions:
            problem = f"no versions in {config.folder}: put each into a folder named by its number, such as 1"
        elif len(versions) < len(numbered):
            ignored = ", ".join(entry.name for entry in numbered if entry not in versions.values())
            problem = f"{config.folder}: ignored, for a version is a folder and each number stands once: {ignored}"
        self._report(config.name, problem)
        return versions

    def _report(self, subject: str, problem: str | None) -> None:
        """Logs a problem when it appears, not at every poll."""
        if problem is None:
            self._reported.pop(subject, None)
        elif self._reported.get(subject) != problem:
            self._reported[subject] = problem
            log.error("%s: %s", subject, problem)

    # What follows runs with the lock held, or says that it does not.

    def _find(self, name: str, number: int | None, label: str | None) -> _Version:
        model = self._models.get(name)
        if label is not None:
            if model is None or label not in model.labels:
                raise errors.InvalidArgumentError(None, None, f"Unrecognized servable version label: {label}")
            number = model.labels[label]
        available = [life for life in (model.versions if model else []) if _is_available(life)]
        fitting = [life for life in available if number is None or life.number == number]
        if not fitting:
            asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise errors.NotFoundError(None, None, f"Servable not found for request: {asked}")
        return max(fitting, key=lambda life: life.number)

    def _aspire(self, model: _Model, present: Mapping[int, Path]) -> None:
        wanted = model.config.aspired(present)
        for life in model.versions:
            life.gone = life.gone or present.get(life.number) != life.folder
            # One that failed stays aspired, and so is not tried again, until it has been gone or unwanted once.
            alive = life.aspired or life.state <= ModelVersionStatus.AVAILABLE
            life.aspired = life.number in wanted and alive and not life.gone
        for number in sorted(wanted - {life.number for life in model.versions if life.aspired}, reverse=True):
            ended = [life for life in model.versions if life.number == number and life.state == ModelVersionStatus.END]
            new = _Version(number, present[number])
            model.versions = [life for life in model.versions if life not in ended] + [new]
            self._workers.submit(self._load, model, new)
        self._advance(model)

    def _advance(self, model: _Model) -> None:
        """Moves labels, then unloads what has been replaced."""
        available = {life.number for life in model.versions if _is_available(life)}
        for label in model.labels.keys() - model.config.labels.keys():
            del model.labels[label]
        for label, number in model.config.labels.items():
            # A label moves when it loses nothing by it: TensorFlow Serving refuses to move it to what is not AVAILABLE.
            if number in available or model.labels.get(label) not in available:
                model.labels[label] = number
        aspired = [life for life in model.versions if life.aspired]
        replaced = sorted(
            (life for life in model.versions if _is_available(life) and not life.aspired),
            key=lambda life: life.number,
        )
        if aspired and not any(map(_is_available, aspired)):
            replaced = replaced[:-1]  # the newest of them serves until an aspired one does
        for life in replaced:
            self._enter(model, life, ModelVersionStatus.UNLOADING)
            self._workers.submit(self._unload, model, life)

    def _enter(self, model: _Model, life: _Version, state: int) -> None:
        life.state = state
        self._changed.notify_all()
        log.info("model %s version %d: %s", model.config.name, life.number, ModelVersionStatus.State.Name(state))

    def _load(self, model: _Model, life: _Version) -> None:
        """Runs in a worker, without the lock."""
        with self._changed:
            self._enter(model, life, ModelVersionStatus.LOADING if life.aspired else ModelVersionStatus.END)
            if not life.aspired:
                return
        try:
            servable = self._warmed(model, life)
        except errors.OpError as error:
            log.error(  # noqa: TRY400 # what is wrong is in the folder, not in the code that a traceback shows
                "model %s version %d cannot be loaded: %s; once it is whole, take %s away and put it there again "
                "(copy it beside, then rename it)",
                model.config.name,
                life.number,
                " ".join(error.message.split()),
                life.folder,
            )
            servable, life.error = None, error
        with self._changed:
            life.servable = servable
            self._enter(model, life, ModelVersionStatus.AVAILABLE if servable else ModelVersionStatus.END)
            self._advance(model)

    def _warmed(self, model: _Model, life: _Version) -> Servable:
        """Runs in a worker, without the lock."""
        servable = Servable(life.folder)
        try:
            requests = warm_up(servable, life.folder, self._max_batch_size)
        except errors.OpError:
            servable.close()
            raise
        log.info("model %s version %d: %d warm-up requests answered", model.config.name, life.number, requests)
        return servable

    def _unload(self, model: _Model, life: _Version) -> None:
        """Runs in a worker, without the lock."""
        with self._changed:
            self._changed.wait_for(lambda: not life.users)
            servable, life.servable = life.servable, None
        if servable is not None:
            servable.close()
        with self._changed:
            self._enter(model, life, ModelVersionStatus.END)


def _is_available(life: _Version) -> bool:
    return life.state == int(ModelVersionStatus.AVAILABLE)


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and int(name) <= _LARGEST_VERSION

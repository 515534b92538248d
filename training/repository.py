"""The model repository: the versions in it, and `models.config`, which tells servers what to do with them.

`<repository>/<name>/<version>` is TensorFlow Serving's own layout, and `<repository>/models.config` its own format: a
text-proto `ModelServerConfig`, which TensorFlow Serving and the local model server read again and again.

The life of a version:

1. Without a `models.config` the two latest versions are served, and the latest that proved itself answers.
2. `promote` puts the label `stable` on a version. From then on the gateway answers with that one, and a newly published
   version is loaded and proven, but takes no traffic before it is promoted. What was stable before is labelled
   `previous`. `canary` and `shadow` are labels for a share of the traffic, and for whoever asks.
3. `rollback` moves `stable` back to `previous`, or, where there is none, to the next lower version. Rolled back twice
   is two steps back, not the bad version again.
4. `prune` removes what has no label and is not among the newest.

The policy of a labelled model is `all`: what lies in the repository is served, and `prune` decides what lies there. So
no number of bad versions can push the good one out, as they would with `latest`. And not `specific`: TensorFlow Serving
checks a moved label before it looks at the policy, and drops the whole config when the version is not loaded; a config
that both adds a version and moves a label to it would be refused at every poll, for ever. With `all` the version gets
loaded whatever the labels say, and the label follows at a later poll. (A label's very first config needs
`--allow_version_labels_for_unavailable_models` there.)

No TensorFlow here: a look at the repository takes no time.
"""

import fcntl
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from pydantic import ValidationError
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.contract import CONTRACT, SIGNATURE, Contract
from serving.tensorflow_serving_protocol import DT_STRING, bare_tensorflow
from training.files import write_whole
from training.problems import RepositoryProblem

with bare_tensorflow():
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

CONFIG_FILE = "models.config"
LOCK_FILE = ".models.config.lock"
PRUNED = ".pruned-"
STABLE, CANARY, SHADOW, PREVIOUS = "stable", "canary", "shadow", "previous"
BASE_PATH = PurePosixPath("/models")
"""Where the repository lies in TensorFlow Serving's image. The local model server looks beside `models.config`."""
PLATFORM = "tensorflow"
UNLABELLED = 2
"""Latest versions that are served of a model without labels: the old one is needed until the new one is proven."""


@dataclass(frozen=True)
class Standing:
    """What servers are told of one model.

    Attributes:
        present: the versions that lie in the repository, lowest first.
        served: those of them that servers load.
        labels: version labels and the versions that they stand for.
        policy: in words.
        traffic: the version that answers when a request names none, if it proves itself; None where none is served.
    """

    present: list[int]
    served: list[int]
    labels: dict[str, int]
    policy: str

    @property
    def traffic(self) -> int | None:
        if self.labels.get(STABLE) in self.served:
            return self.labels[STABLE]
        return max(self.served, default=None)


def models(repository: Path) -> list[str]:
    """The names of the models that have versions.

    Raises:
        RepositoryProblem: the repository is not there.
    """
    try:
        folders = sorted(entry.name for entry in repository.iterdir() if entry.is_dir())
    except OSError as error:
        raise RepositoryProblem(
            f"{repository} is no model repository ({error.strerror}): name the folder that holds <model>/<version>/ "
            "with --models."
        ) from error
    return [name for name in folders if not name.startswith(".") and versions(repository, name)]


def versions(repository: Path, name: str) -> list[int]:
    """The versions of a model that lie in the repository, lowest first."""
    try:
        numbered = [entry for entry in (repository / name).iterdir() if entry.name.isascii() and entry.name.isdecimal()]
    except OSError:
        return []
    return sorted(int(entry.name) for entry in numbered if entry.is_dir() and str(int(entry.name)) == entry.name)


def contract(version: Path) -> Contract:
    """What a version says of itself, read from its graph without running it.

    Args:
        version: a SavedModel's folder.

    Raises:
        RepositoryProblem: it is no SavedModel, or none with a contract.
    """
    try:
        saved = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    except OSError as error:
        raise RepositoryProblem(f"{version} holds no SavedModel ({error.strerror}).") from error
    except DecodeError as error:
        raise RepositoryProblem(f"{version / 'saved_model.pb'} is no SavedModel, or half of one.") from error
    said = [text for graph in saved.meta_graphs if SIGNATURE in graph.signature_def for text in _constants(graph)]
    # the contract signature answers a constant; the other strings are names of variables
    contracts = [text for text in said if text.startswith(b"{") and b'"schema"' in text]
    if len(contracts) != 1:
        raise RepositoryProblem(f"{version} holds no contract: it was not published by this project.")
    try:
        return Contract.model_validate_json(contracts[0])
    except ValidationError as error:
        raise RepositoryProblem(f"The {CONTRACT} in {version} is not one of schema 1.") from error


def _constants(graph: Any) -> Iterator[bytes]:
    """Every string that stands in a graph or in one of its functions."""
    for nodes in (graph.graph_def.node, *(function.node_def for function in graph.graph_def.library.function)):
        for node in nodes:
            if node.op == "Const" and node.attr["dtype"].type == DT_STRING:
                yield from node.attr["value"].tensor.string_val


def megabytes(version: Path) -> float:
    """What a version's files take, in 10⁶ bytes."""
    return float(sum(file.stat().st_size for file in version.rglob("*") if file.is_file())) / 1e6


def standing(repository: Path, name: str) -> Standing:
    """What servers are told of a model, as of now.

    Raises:
        RepositoryProblem: `models.config` cannot be read.
    """
    config = _read(repository)
    entry = ModelServerConfig().model_config_list.config.add(name=name) if config is None else _entry(config, name)
    return _standing(entry, versions(repository, name))


def in_service(repository: Path, name: str) -> Path | None:
    """The folder of the version that has the traffic: the one labelled `stable`, else the highest one served.

    Raises:
        RepositoryProblem: `models.config` cannot be read.
    """
    number = standing(repository, name).traffic
    return None if number is None else repository / name / str(number)


def promote(
    repository: Path,
    name: str,
    version: int | None = None,
    *,
    label: str = STABLE,
    base_path: PurePosixPath = BASE_PATH,
) -> int:
    """Put a label on a version.

    Args:
        repository: whose `models.config` is changed, or made: then with an entry for every model that is there.
        name: of the model.
        version: its number; None: the highest.
        label: `stable`, `canary` or `shadow`.
        base_path: what TensorFlow Serving calls the repository, for entries that are made.

    Returns:
        the version.

    Raises:
        RepositoryProblem: there is no such version, or `models.config` cannot be read or written, or serves so little
            of the model that the label has to wait; the text says for what.
    """
    present = _present(repository, name)
    number = present[-1] if version is None else version
    if number not in present:
        raise RepositoryProblem(f"{name} has no version {number}: it has {_listed(present)}.")
    with _changed(repository, base_path) as config:
        entry = _entry(config, name) or _add(config, name, base_path)
        before = _standing(entry, present).traffic
        moved = _label(entry, label, number, present)
        if moved and label == STABLE and before not in {None, number}:
            entry.version_labels[PREVIOUS] = before
    if not moved:
        raise _not_yet(name, label, number)
    return number


def rollback(repository: Path, name: str, *, base_path: PurePosixPath = BASE_PATH) -> tuple[int, int]:
    """Move `stable` back, to the version labelled `previous`, or else to the next lower one.

    Args:
        repository: as for `promote`.
        name: of the model.
        base_path: as for `promote`.

    Returns:
        the version that had the traffic, and the one that gets it.

    Raises:
        RepositoryProblem: there is nothing to go back to; or as for `promote`.
    """
    present = _present(repository, name)
    with _changed(repository, base_path) as config:
        entry = _entry(config, name) or _add(config, name, base_path)
        now = _standing(entry, present).traffic
        lower = [number for number in present if now is not None and number < now]
        target = entry.version_labels.get(PREVIOUS) or max(lower, default=None)
        if now is None or target not in present:
            raise RepositoryProblem(
                f"{name} has nothing to go back to from version {now}: it has {_listed(present)}; "
                f"name one with: sightread models promote {name} VERSION."
            )
        moved = _label(entry, STABLE, target, present)
        if moved:
            entry.version_labels.pop(PREVIOUS, None)
    if not moved:
        raise _not_yet(name, STABLE, target)
    return now, target


def announce(repository: Path, name: str) -> None:
    """Have a newly published model served: where there is a `models.config`, only what stands in it is.

    A model that has an entry keeps it as it is.

    Raises:
        RepositoryProblem: `models.config` cannot be read or written.
    """
    if not (repository / CONFIG_FILE).exists():
        return
    with _changed(repository, BASE_PATH) as config:
        if _entry(config, name) is None:
            _add(config, name, BASE_PATH)


def prunable(repository: Path, name: str, *, keep: int) -> list[int]:
    """The versions that nobody would miss: without a label, not among the newest, and not served by name.

    Args:
        repository: the model repository.
        name: of the model.
        keep: how many of the newest stay.

    Raises:
        RepositoryProblem: there is no such model, or `models.config` cannot be read.
    """
    present = _present(repository, name)
    config = _read(repository)
    entry = None if config is None else _entry(config, name)
    kept = set(present[-keep:] if keep else [])
    if entry is not None:
        kept.update(entry.version_labels.values(), entry.model_version_policy.specific.versions)
    traffic = _standing(entry, present).traffic
    return [number for number in present if number not in kept and number != traffic]


def prune(repository: Path, name: str, *, keep: int) -> list[int]:
    """Remove what is `prunable`. A version is renamed first: no server sees one that is half gone.

    Returns:
        the versions that were removed.

    Raises:
        RepositoryProblem: as for `prunable`.
        OSError: something cannot be removed.
    """
    home = repository / name
    with _locked(repository):
        going = prunable(repository, name, keep=keep)
        for number in going:
            (home / str(number)).rename(home / f"{PRUNED}{number}-{uuid.uuid4().hex}")
    for folder in home.glob(f"{PRUNED}*"):  # those that a killed one left, too
        shutil.rmtree(folder)
    return going


def _present(repository: Path, name: str) -> list[int]:
    known = models(repository)
    if name not in known:
        raise RepositoryProblem(f"{repository} has no model {name!r}: it has {_listed(known)}.")
    return versions(repository, name)


def _standing(entry: Any, present: list[int]) -> Standing:
    if entry is None:
        return Standing(present, [], {}, "not in models.config: not served")
    policy = entry.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            served, words = present, "all"
        case "specific":
            served = [number for number in present if number in policy.specific.versions]
            words = f"only {_listed(sorted(policy.specific.versions))}"
        case choice:
            # without a policy TensorFlow Serving keeps one, and the local model server two
            latest = max(1, policy.latest.num_versions) if choice else UNLABELLED
            served, words = present[-latest:], f"the latest {latest}"
    return Standing(present, served, dict(entry.version_labels), words)


def _label(entry: Any, label: str, version: int, present: list[int]) -> bool:
    """Set a label, and a policy that serves whatever has one. False: the policy only, the label has to wait."""
    before = entry.version_labels.get(label)
    served = _standing(entry, present).served
    entry.model_version_policy.all.SetInParent()
    if before not in {None, version} and version not in served:
        return False
    entry.version_labels[label] = version
    return True


def _not_yet(name: str, label: str, version: int) -> RepositoryProblem:
    return RepositoryProblem(
        f"{CONFIG_FILE} did not serve version {version} of {name}; now it does. A label moves only to what is loaded: "
        f"once it is, say it again: sightread models promote {name} {version} --label {label}."
    )


def _listed(things: Collection[object]) -> str:
    return ", ".join(map(str, things)) or "none"


def _entry(config: Any, name: str) -> Any | None:
    return next((entry for entry in config.model_config_list.config if entry.name == name), None)


def _add(config: Any, name: str, base_path: PurePosixPath) -> Any:
    """An entry for a model, beside where the others lie."""
    others = [PurePosixPath(entry.base_path).parent for entry in config.model_config_list.config if entry.base_path]
    place = (others[0] if others else base_path) / name
    entry = config.model_config_list.config.add(name=name, base_path=str(place), model_platform=PLATFORM)
    entry.model_version_policy.latest.num_versions = UNLABELLED
    return entry


def _read(repository: Path) -> Any | None:
    """`models.config`, None where there is none."""
    file = repository / CONFIG_FILE
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), ModelServerConfig())
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise RepositoryProblem(f"{repository} is not a folder: name the model repository with --models.") from error
    except OSError as error:
        raise RepositoryProblem(f"{file} cannot be read ({error.strerror}).") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise RepositoryProblem(f"{file} is no ModelServerConfig ({error}): mend it, or take it away.") from error


@contextmanager
def _changed(repository: Path, base_path: PurePosixPath) -> Iterator[Any]:
    """`models.config`, to be changed; written back unless something was raised. One at a time."""
    with _locked(repository):
        config = _read(repository)
        if config is None:
            # with a config servers serve what stands in it, and nothing else: nobody's model may go off with it
            config = ModelServerConfig()
            for name in models(repository):
                _add(config, name, base_path)
        yield config
        file = repository / CONFIG_FILE
        try:
            write_whole(file.resolve(), text_format.MessageToString(config).encode())
        except OSError as error:
            raise RepositoryProblem(f"{file} cannot be written ({error.strerror}): make it so.") from error


@contextmanager
def _locked(repository: Path) -> Iterator[None]:
    """Nobody else changes the repository meanwhile. A file of its own: network file systems lock no folders."""
    try:
        file = (repository / LOCK_FILE).open("a")
    except OSError as error:
        raise RepositoryProblem(f"{repository} cannot be written ({error.strerror}): make it so.") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""Export: a trained model and its contract become a version in the model repository, or nothing does.

The SavedModel is written into a hidden folder beside its place, loaded back as TensorFlow Serving loads it, asked its
own golden examples through the gateway's preprocessing and its warm-up requests, flushed to disk, and only then renamed
into `<repository>/<name>/<version>`. A model server that polls the repository never sees half a version, nor one that
would fail its proof.
"""

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import CONTRACT, REQUEST, SIGNATURE, Contract, ImageInput, TextInput
from serving.preprocessing import Preprocessor, preprocessor_for
from training.explanation import Explain
from training.problems import GoldenDisagreement, RepositoryProblem
from training.warmup import read_warmup, write_warmup

SERVING = "serving_default"
WRITING = ".writing-"
ABANDONED_SECONDS = 24 * 3600.0
"""A hidden folder this old was left by a publisher that was killed: nobody writes for a day."""
SAME_MACHINE = 4
"""The contract's tolerance allows for another machine's kernels; on this one answers must be this many times closer."""

Array = NDArray[Any]


class Session:
    """A SavedModel, loaded by the loader that TensorFlow Serving uses (a graph and a session; nothing of Keras).

    `tf.saved_model.load` would also accept a SavedModel whose variables TensorFlow Serving cannot find.

    Raises:
        OSError: there is no SavedModel, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            with self._session.graph.as_default():
                meta = tf.compat.v1.saved_model.load(self._session, [tf.saved_model.SERVING], str(path))
        except BaseException:
            self._session.close()
            raise
        self.signatures: dict[str, tuple[dict[str, str], dict[str, str]]] = {
            name: (
                {key: info.name for key, info in signature.inputs.items()},
                {key: info.name for key, info in signature.outputs.items()},
            )
            for name, signature in meta.signature_def.items()
            if signature.method_name == tf.compat.v1.saved_model.signature_constants.PREDICT_METHOD_NAME
        }
        """Signature → (input name → tensor name, output name → tensor name)."""

    def call(self, signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One inference.

        Args:
            signature: a key of `signatures`.
            inputs: input name → array, each as the signature wants it.

        Returns:
            output name → array.
        """
        feeds, fetches = self.signatures[signature]
        answer: dict[str, Array] = self._session.run(fetches, {feeds[name]: value for name, value in inputs.items()})
        return answer

    def contract(self) -> Contract:
        """What the SavedModel says of itself."""
        answer = self.call(SIGNATURE, {REQUEST: np.array([b""], dtype=object)})
        return Contract.model_validate_json(answer[CONTRACT][0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.close()


Inspect = Callable[[Path, Session], list[str]]
"""A written copy, and it loaded → the reasons for which it is only published by force; raises what forbids that."""


def proven(copy: Path, session: Session) -> list[str]:
    """The least that is asked of a written copy: its golden examples.

    Raises:
        GoldenDisagreement: they come out otherwise than its contract says.
    """
    del copy
    prove(session)
    return []


def publish(
    model: keras.Model,
    contract: Contract,
    *,
    repository: Path,
    name: str,
    explain: Explain | None = None,
    inspect: Inspect = proven,
) -> Path:
    """Write `model` with its `contract` as the next version of `name`.

    Args:
        model: maps what stands on the wire (uint8 [n, height, width, channels], or int32 [n, length]) to calibrated
            probabilities (float32 [n, labels]). Not compiled: an optimizer's variables have no place in a SavedModel.
        contract: with golden examples whose probabilities came from this model, see `training.golden`.
        repository: TensorFlow Serving's layout, `<repository>/<name>/<version>`; made when missing.
        name: of the model.
        explain: answers the signature that the contract calls `explain`, see `training.explanation`.
        inspect: looks at the written copy before it gets its number; at its golden examples, see `prove`, or at more,
            see `training.gate`.

    Returns:
        The version's folder.

    Raises:
        GoldenDisagreement: the copy on disk answers otherwise than the contract says. Nothing was published.
        RepositoryProblem: the repository cannot be written.
        ValueError: the contract promises an explanation that there is none of, or hides one.
    """
    if (contract.explain is None) != (explain is None):
        raise ValueError(
            f"The contract's explain is {contract.explain!r}, publish() was given {'no' if explain is None else 'an'} "
            "explanation: give it both or neither."
        )
    check_repository(repository, name)
    home = repository / name
    try:
        with _hidden_folder(home) as copy:
            _write(copy, model, contract, explain, name)
            if forced := _inspected(copy, inspect):
                shutil.rmtree(copy)
                copy.mkdir()
                _write(copy, model, _with_forced(contract, forced), explain, name)
                _inspected(copy, proven)
            _flush(copy)
            return give_next_number(copy)
    except OSError as error:
        raise RepositoryProblem(
            f"{home} cannot be written ({error.strerror or error}): free it, or choose another one with --models."
        ) from error


def _inspected(copy: Path, inspect: Inspect) -> list[str]:
    with Session(copy) as session:
        rehearse(session, copy)
        return inspect(copy, session)


def _with_forced(contract: Contract, reasons: list[str]) -> Contract:
    return contract.model_copy(update={"provenance": contract.provenance.model_copy(update={"forced": reasons})})


def check_repository(repository: Path, name: str) -> None:
    """Whether `publish` would find a place to write, asked without writing: best before hours of training.

    Raises:
        RepositoryProblem: the place is no folder, or not writable, or the name is not one a model can have.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise RepositoryProblem(f"{name!r} cannot name a model: use letters, digits, '_', '-' and '.'.")
    home = (repository / name).absolute()
    nearest = next(place for place in (home, *home.parents) if place.exists())
    if not nearest.is_dir():
        raise RepositoryProblem(f"{nearest} is not a folder: choose another repository with --models.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RepositoryProblem(f"{nearest} is not writable: make it so, or choose another repository with --models.")


def prove(session: Session) -> None:
    """Ask the golden examples, raw, through the gateway's preprocessing: each alone, then all in one batch.

    What they are comes from the copy's own contract, as it does for the gateway.

    Raises:
        GoldenDisagreement: other labels, or a probability further off than a quarter of the contract's tolerance.
        pydantic.ValidationError: what the copy says of itself is no contract.
    """
    contract = session.contract()
    preprocessor = preprocessor_for(contract.input)
    rows = [preprocessor.prepare(example.raw) for example in contract.golden.examples]
    expected = np.array([example.probabilities for example in contract.golden.examples])
    tolerance = contract.golden.tolerance / SAME_MACHINE
    alone = np.concatenate([_ask(session, contract, preprocessor, [row]) for row in rows])
    together = _ask(session, contract, preprocessor, rows)
    for how, answered in (("alone", alone), ("in a batch", together)):
        _compare(how, answered, expected, contract.labels, tolerance)


def rehearse(session: Session, copy: Path) -> None:
    """Answer the copy's warm-up requests: a model server does not serve a version that fails at one.

    Raises:
        tf.errors.OpError: a request fails.
    """
    for request in read_warmup(copy):
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        session.call(request.model_spec.signature_name, inputs)


def _ask(session: Session, contract: Contract, preprocessor: Preprocessor, rows: Sequence[Array]) -> Array:
    batch = preprocessor.collate(rows)
    return session.call(SERVING, {contract.input.name: batch})[contract.output.name]


def _compare(how: str, answered: Array, expected: Array, labels: Sequence[str], tolerance: float) -> None:
    if answered.shape != expected.shape:
        raise GoldenDisagreement(
            f"Not published: the SavedModel answers {list(answered.shape)}, the golden examples are "
            f"{list(expected.shape)}. Give publish() a model that answers one probability for each label."
        )
    for number, (got, want) in enumerate(zip(answered, expected, strict=True)):
        worst = float(np.abs(got - want).max())
        # written so that a NaN fails
        if not worst <= tolerance or got.argmax() != want.argmax():
            raise GoldenDisagreement(
                f"Not published: golden example {number}, asked {how}, came out as "
                f"{labels[got.argmax()]} {got.max():.4f} where training got {labels[want.argmax()]} {want.max():.4f} "
                f"(largest difference {worst:.4f}, {tolerance:.4f} allowed). "
                "The exported graph and the trained model are not the same."
            )


def _write(folder: Path, model: keras.Model, contract: Contract, explain: Explain | None, name: str) -> None:
    # without track(model), which would store every variable twice: the ones an endpoint uses are stored anyway
    archive = keras.export.ExportArchive()
    archive.add_endpoint(
        SERVING,
        lambda tensor: {contract.output.name: model(tensor, training=False)},
        input_signature=[_wire(contract.input)],
    )
    archive.add_endpoint(
        SIGNATURE,
        _saying(contract.to_json()),
        input_signature=[tf.TensorSpec([None], tf.string, name=REQUEST)],
    )
    if explain is not None:
        archive.add_endpoint(contract.explain, explain, input_signature=[_wire(contract.input)])
    try:
        archive.write_out(str(folder), verbose=False)
        write_warmup(folder, contract, name=name, signature=SERVING)
    except tf.errors.OpError as error:  # TensorFlow's own file system says so when the disk is full
        raise OSError(errno.EIO, error.message) from error


def _wire(spec: ImageInput | TextInput) -> tf.TensorSpec:
    if isinstance(spec, ImageInput):
        return tf.TensorSpec([None, spec.height, spec.width, spec.channels], tf.uint8, name=spec.name)
    return tf.TensorSpec([None, None], tf.int32, name=spec.name)


def _saying(text: str) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The contract signature: one answer for each request, so that server-side batching can cut it apart again."""
    return lambda request: {CONTRACT: tf.fill(tf.shape(request), text)}


@contextmanager
def _hidden_folder(home: Path) -> Iterator[Path]:
    """A new folder beside the versions that no model server looks at; gone afterwards, unless it got a number."""
    home.mkdir(parents=True, exist_ok=True)
    for abandoned in home.glob(f"{WRITING}*"):
        with suppress(FileNotFoundError):  # its publisher has just finished
            if time.time() - abandoned.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(abandoned, ignore_errors=True)
    # not tempfile.mkdtemp: its 0700 would lock out a model server that runs as another user
    folder = home / f"{WRITING}{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Have files and folders on the disk before a name points to them."""
    for where, _, files in os.walk(folder, topdown=False):
        for file in files:
            _fsync(Path(where, file))
        _fsync(Path(where))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_next_number(folder: Path) -> Path:
    """Rename a finished folder to the number after its siblings' highest, in one step that nobody sees halfway.

    Returns:
        where it lies now.

    Raises:
        OSError: it cannot be renamed.
    """
    home = folder.parent
    version = 1 + max((int(path.name) for path in home.iterdir() if path.name.isdecimal()), default=0)
    while True:
        try:
            place = folder.rename(home / str(version))
        except OSError:
            if not (home / str(version)).exists():
                raise
            version += 1  # another publisher was faster
        else:
            _fsync(home)
            _fsync(home.parent)
            return place

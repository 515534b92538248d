"""Where a run is: all that it needs to go on after it was killed, in one file that is whole or not there."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.files import write_whole
from training.problems import CheckpointProblem

FILE = "checkpoint.npz"
WATCHED = "val_accuracy"
META = "meta"

Weights = list[NDArray[Any]]


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epochs: that are done.
        seconds: that they took, in every process that worked on them.
        history: Keras's, one number for each epoch.
        best: the weights of the epoch that did best on held-out data; none before the first.
    """

    epochs: int = 0
    seconds: float = 0.0
    history: dict[str, list[float]] = field(default_factory=dict)
    best: Weights = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The first of those that did best, counted from 1; 0 before the first."""
        watched = self.history.get(WATCHED, [])
        return 1 + int(np.argmax(watched)) if watched else 0


@dataclass(frozen=True)
class Checkpoint:
    """The file of one run.

    Attributes:
        folder: that it lies in.
        run: what makes the run what it is: its configuration and its data's checksum. Another run's file is refused.
    """

    folder: Path
    run: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def save(self, network: keras.Model, progress: Progress) -> None:
        """Put everything into the file, in place of what it held.

        Raises:
            OSError: it cannot be written.
        """
        meta = {"run": dict(self.run), **{k: v for k, v in vars(progress).items() if k != "best"}}
        arrays: dict[str, Any] = {META: np.frombuffer(json.dumps(meta).encode(), np.uint8)}
        for part, values in (("state", _state(network)), ("best", progress.best)):
            arrays |= {f"{part}.{number}": np.asarray(value) for number, value in enumerate(values)}
        content = BytesIO()
        np.savez(content, **arrays)
        write_whole(self.path, content.getvalue())

    def restore(self, network: keras.Model) -> Progress:
        """Put the network and its optimizer where the file says; a new start where there is none.

        Raises:
            CheckpointProblem: the file is of another run, or it cannot be read.
        """
        read = self._read()
        if read is None:
            return Progress()
        meta, arrays = read
        state = _state(network)
        if [array.shape for array in arrays["state"]] != [tuple(variable.shape) for variable in state]:
            raise CheckpointProblem(f"{self.path} is of another network: start anew with --restart.")
        for variable, value in zip(state, arrays["state"], strict=True):
            variable.assign(value)
        return Progress(meta["epochs"], meta["seconds"], meta["history"], arrays["best"])

    def remove(self) -> None:
        """The run is done with."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Any], dict[str, Weights]] | None:
        try:
            with np.load(self.path) as file:
                meta = json.loads(file[META].tobytes())
                arrays: dict[str, Weights] = {"state": [], "best": []}
                for part, values in arrays.items():
                    while (name := f"{part}.{len(values)}") in file:
                        values.append(file[name])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointProblem(f"{self.path} cannot be read ({error}): start anew with --restart.") from error
        self._compare(meta["run"])
        return meta, arrays

    def _compare(self, other: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(dict(self.run)))
        differing = [name for name in {**other, **now} if other.get(name) != now.get(name)]
        if differing:
            what = ", ".join(f"{name} was {other.get(name)}, is {now.get(name)}" for name in differing)
            raise CheckpointProblem(
                f"{self.path} is of an unfinished run that is another one ({what}): "
                "finish that one with its own flags, choose another folder with --output, or start anew with --restart."
            )


def _state(network: keras.Model) -> list[Any]:
    """All that changes while learning: weights, averages, the generators of dropout, the optimizer's memory."""
    return [*network.variables, *network.optimizer.variables]

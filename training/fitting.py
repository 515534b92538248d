"""Fitting a network, for both jobs: each epoch is written down, so that a killed run goes on after its last one."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training import devices
from training.checkpoint import Checkpoint, Progress
from training.config import Config
from training.problems import DivergedProblem

Batch = tuple[NDArray[Any], NDArray[np.int64]]
"""Inputs [n, …] and the positions of their labels [n]."""

STEPS_WANTED = 40
"""An epoch of few examples takes smaller batches, to make so many steps …"""
SMALLEST_BATCH = 32
"""… but none smaller than this."""
PROGRESS_BAR, ONE_LINE_AN_EPOCH = 1, 2
"""Keras's words for them are these numbers."""


def batch_size(config: Config, examples: int) -> int:
    """Examples that a step learns from: as configured, fewer where there would be hardly a step."""
    return min(config.batch_size, examples, max(SMALLEST_BATCH, examples // STEPS_WANTED))


def fit(
    network: keras.Model,
    batches: Callable[[int], Iterable[Batch]],
    held_out: Callable[[], Iterable[Batch]],
    *,
    optimizer: Callable[[], keras.optimizers.Optimizer],
    strategy: tf.distribute.Strategy,
    steps: int,
    label_weights: NDArray[np.float32],
    config: Config,
    checkpoint: Checkpoint,
) -> Progress:
    """Learn, from where the checkpoint is, and end with the weights of the epoch that did best on held-out data.

    Args:
        network: inputs → logits [n, labels].
        batches: epoch, counted from 0 → its batches. The same ones whenever it is asked.
        held_out: batches to judge each epoch by.
        optimizer: → a new one.
        strategy: how the work is spread.
        steps: batches of an epoch.
        label_weights: what an example of each label weighs where `config.balance` is set, [labels]. The network's
            logits are those of unweighted examples all the same: what the weights do to the odds (Elkan: The
            Foundations of Cost-Sensitive Learning, 2001, theorem 2) is added to them before the loss.
        config: of the job.
        checkpoint: written after every epoch.

    Raises:
        CheckpointProblem: it is of another run, or it cannot be read.
        DivergedProblem: the loss is no number any more.
        OSError: the checkpoint cannot be written.
    """
    if not config.balance:
        label_weights = np.ones_like(label_weights)
    odds = np.log(label_weights)

    def loss(answers: Any, logits: Any) -> Any:
        return keras.losses.categorical_crossentropy(
            answers, logits + odds, from_logits=True, label_smoothing=config.smoothing
        )

    learner = devices.spread(network, strategy, devices.policy(config.precision))
    with strategy.scope():
        learner.compile(
            optimizer=optimizer(),
            loss=loss,
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
            jit_compile=False,  # XLA takes twice the time on a CPU, and would compile anew for every length of text
        )
        learner.optimizer.build(learner.trainable_variables)
        progress = checkpoint.restore(learner)
    devices.check_agreement(strategy, json.dumps([checkpoint.run, progress.epochs]))
    if progress.epochs < config.epochs and not _patience_lost(progress, config.patience):
        judged = list(held_out())
        feed = partial(_feed, network, label_weights, strategy)
        chief = devices.is_chief(strategy)
        keeper = _Keeper(checkpoint if chief else None, progress, config.patience)
        board = keras.callbacks.TensorBoard(checkpoint.folder / "logs", write_graph=False)
        devices.fit(
            learner,
            strategy,
            lambda epoch: feed(batches(epoch)),
            lambda: feed(judged),
            steps=steps,
            held_out_steps=len(judged),
            epochs=range(progress.epochs, config.epochs),
            callbacks=[keeper, board] if chief else [keeper],
            verbose=PROGRESS_BAR if sys.stdout.isatty() else ONE_LINE_AN_EPOCH,
        )
    network.set_weights(progress.best)
    return progress


def _patience_lost(progress: Progress, patience: int | None) -> bool:
    return patience is not None and progress.epochs - progress.best_epoch >= patience


class _Keeper(keras.callbacks.Callback):  # type: ignore[misc] # Keras ships no types
    """Writes every epoch down, keeps the best one's weights, and stops when there was none for too long."""

    def __init__(self, checkpoint: Checkpoint | None, progress: Progress, patience: int | None) -> None:
        super().__init__()
        self._checkpoint, self._progress, self._patience = checkpoint, progress, patience
        self._began = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        del epoch, logs
        self._began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if logs:
            _check_finite({"loss": logs["loss"]}, f"at step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # before anything is kept: the checkpoint stays at the last epoch whose numbers are some
        _check_finite(logs or {}, f"after epoch {epoch + 1}")
        progress = self._progress
        progress.epochs = epoch + 1
        progress.seconds += time.monotonic() - self._began
        for name, value in (logs or {}).items():
            progress.history.setdefault(name, []).append(float(value))
        if progress.best_epoch == progress.epochs:
            progress.best = self.model.get_weights()
        if self._checkpoint is not None:
            self._checkpoint.save(self.model, progress)
        if _patience_lost(progress, self._patience):
            self.model.stop_training = True


def _check_finite(logs: dict[str, float], moment: str) -> None:
    """Whether all that Keras measured, by its names, are numbers."""
    for name, value in logs.items():
        if not math.isfinite(value):
            raise DivergedProblem(
                f"The {name} is {value} {moment}: the network has diverged; "
                "start anew with --restart and a lower --learning-rate."
            )


def _feed(
    network: keras.Model,
    label_weights: NDArray[np.float32],
    strategy: tf.distribute.Strategy,
    batches: Iterable[Batch],
) -> tf.data.Dataset:
    """This process's shares of the batches: inputs, right answers one-hot [n, labels], and weights [n]."""
    inputs, outputs = network.inputs[0], network.outputs[0]
    signature = (
        tf.TensorSpec(inputs.shape, inputs.dtype),
        tf.TensorSpec(outputs.shape, tf.float32),
        tf.TensorSpec([None], tf.float32),
    )

    answers = np.eye(len(label_weights), dtype=np.float32)

    def each() -> Iterator[tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]]:
        for examples, labels in batches:
            for share in devices.shares(strategy, len(labels)):
                yield examples[share], answers[labels[share]], label_weights[labels[share]]

    return tf.data.Dataset.from_generator(each, output_signature=signature).prefetch(2)

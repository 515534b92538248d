"""What a job computes on: one CPU or GPU, several GPUs, or several workers that train one model together.

Keras 3.15's own `fit` does not work with several workers (keras-team/keras#20585: it takes the mean of a batch that is
a tuple, and of a metric along an axis that it has not), and it cuts every worker's batches once more. `fit` here is the
loop that does, for any number of devices: the steps are Keras's, and so are the callbacks.
"""

import os
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
from annotated_types import Ge
from keras import layers
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from training.problems import DevicesProblem
from training.terminal import say

Precision = Literal["auto", "float32"]
HIGHEST_PORT = 65_535

EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
GONE = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnavailableError,
)
"""What TensorFlow raises within a quarter of a minute when another worker died, hangs or came back as a new process."""
BFLOAT16_FROM = (8, 0)
"""NVIDIA's compute capability."""
LOOK_SECONDS, CONNECT_SECONDS = 0.5, 5.0


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) <= HIGHEST_PORT):
        raise ValueError("is no host:port")
    return text


Address = Annotated[str, AfterValidator(_address)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Cluster(_Part):
    chief: list[Address] = []
    worker: list[Address] = []


class _Task(_Part):
    type: Literal["chief", "worker"]
    index: Annotated[int, Ge(0)]


class _Workers(BaseModel):
    """TF_CONFIG; what schedulers add to it is left alone."""

    cluster: _Cluster
    task: _Task

    @property
    def own_address(self) -> str:
        addresses: list[str] = getattr(self.cluster, self.task.type)
        return addresses[self.task.index]


def strategy() -> tf.distribute.Strategy:
    """How the work is spread: over the workers of TF_CONFIG, or over this machine's GPUs, or not at all.

    To be called before TensorFlow does anything else. Waits until all workers are there.

    Raises:
        DevicesProblem: TF_CONFIG is wrong, or the workers cannot be joined.
    """
    if not os.environ.get("TF_CONFIG", "").strip():
        # TensorFlow stumbles over an empty one
        os.environ.pop("TF_CONFIG", None)
    if workers := _workers(os.environ.get("TF_CONFIG", "{}")):
        _wait_for(workers)
        return _joined()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def place(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """This process's number among the workers, counted from 0, and how many there are."""
    resolver = strategy.cluster_resolver
    if resolver is None or not (cluster := resolver.cluster_spec().as_dict()):
        return 0, 1
    chiefs = len(cluster.get("chief", []))
    before = chiefs if resolver.task_type == "worker" else 0
    return before + resolver.task_id, chiefs + len(cluster.get("worker", []))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes, reports and publishes; the others only help it to learn."""
    return place(strategy)[0] == 0


def check_agreement(strategy: tf.distribute.Strategy, run: str) -> None:
    """Whether all workers are about to do the same.

    Args:
        strategy: of the job.
        run: what makes it what it is, and how far it has come.

    Raises:
        DevicesProblem: they are not; without this they would wait for each other, or learn nonsense.
    """
    mine = zlib.crc32(run.encode())
    with strategy.scope():
        everybodys = strategy.gather(strategy.run(lambda: tf.constant([mine], tf.int64)), axis=0)
    if set(np.asarray(everybodys).tolist()) != {mine}:
        raise DevicesProblem(
            "The workers were not started alike: give all of them the same flags and the same data, "
            "and one --output that they share, where the checkpoint lies."
        )


def policy(wanted: Precision) -> str:
    """Keras's dtype policy: mixed bfloat16 where every GPU here is made for it, otherwise float32.

    Not float16 on older ones: it overflows at 65,504, and its gradients would have to be scaled.
    """
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    capability = min((detail.get("compute_capability", (0, 0)) for detail in details), default=(0, 0))
    return "mixed_bfloat16" if wanted == "auto" and capability >= BFLOAT16_FROM else "float32"


def make_deterministic() -> None:
    """Let only operations run that give the same bits every time; the seeds are set apart from this."""
    tf.config.experimental.enable_op_determinism()


def spread(network: keras.Model, strategy: tf.distribute.Strategy, policy: str) -> keras.Model:
    """The network that learns: a copy on every device of the job, or the network itself where there is one, in float32.

    The network that is passed stays as it is, in float32 and on one device: give it the copy's weights at the end, and
    what is exported knows nothing of how it was made.
    """
    alone = strategy.num_replicas_in_sync == 1
    if alone and policy == "float32":
        return network

    def copied(part: keras.Operation) -> keras.Operation:
        config = part.get_config()
        if isinstance(part, layers.Layer):
            config = _under(policy, config)
        if isinstance(part, layers.BatchNormalization):
            # as one device would see the batch: with its share alone, the model would depend on how many there are
            config["synchronized"] = not alone
        return type(part).from_config(config)

    with strategy.scope():
        copy = keras.models.clone_model(network, clone_function=copied, recursive=True)
        copy.set_weights(network.get_weights())
    return copy


def _under(policy: str, config: dict[str, Any]) -> dict[str, Any]:
    """A layer's configuration, and that of the layers inside it, with another dtype policy."""
    config = {name: _under(policy, value) if isinstance(value, dict) else value for name, value in config.items()}
    return config | {"dtype": policy} if "dtype" in config else config


def shares(strategy: tf.distribute.Strategy, rows: int) -> list[NDArray[np.int64]]:
    """Which rows of a batch this process's devices take, one share for each of them; together all workers take all.

    No share is empty: of fewer rows than devices, some are taken twice.
    """
    devices = strategy.num_replicas_in_sync
    number, workers = place(strategy)
    here = devices // workers
    taken = np.resize(np.arange(rows), max(rows, devices))
    return [taken[number * here + device :: devices] for device in range(here)]


def fit(
    network: keras.Model,
    strategy: tf.distribute.Strategy,
    train: Callable[[int], tf.data.Dataset],
    held_out: Callable[[], tf.data.Dataset],
    *,
    steps: int,
    held_out_steps: int,
    epochs: range,
    callbacks: list[keras.callbacks.Callback],
    verbose: int,
) -> None:
    """Keras's `fit`, on any number of devices.

    The loss and the metrics of an epoch are those of all devices; those of a step, only of the first one here.

    Args:
        network: `spread`, and compiled in the scope of the strategy with an optimizer that is built.
        strategy: how the work is spread.
        train: epoch → for each of its batches, the `shares` of this process, one after the other.
        held_out: the same of the examples to judge each epoch by.
        steps: batches of an epoch, in all workers the same number.
        held_out_steps: batches that judge.
        epochs: to go through; they are numbered as here.
        callbacks: Keras's. All workers must come to the same decisions.
        verbose: Keras's; only the chief says anything.

    Raises:
        DevicesProblem: another worker is gone.
    """
    log: Any = keras.callbacks.CallbackList(
        callbacks,
        add_history=False,
        add_progbar=verbose > 0 and is_chief(strategy),
        model=network,
        verbose=verbose,
        epochs=epochs.stop,
        steps=steps,
    )

    def spreading(part: tf.data.Dataset) -> Any:
        return iter(strategy.distribute_datasets_from_function(lambda _: part))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator] # TensorFlow ships no types
    def learn(batches: Any) -> Any:
        return strategy.run(network.train_step, args=(next(batches),))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator] # TensorFlow ships no types
    def judge(batches: Any) -> None:
        strategy.run(network.test_step, args=(next(batches),))

    @tf.function  # type: ignore[untyped-decorator] # TensorFlow ships no types
    def measured() -> Any:
        return network.get_metrics_result()

    def numbers(results: Any) -> dict[str, float]:
        return {name: float(strategy.experimental_local_results(value)[0]) for name, value in results.items()}

    network.stop_training = False
    with strategy.scope(), _worker_may_be_gone(strategy):
        # the metrics' variables: on several devices they cannot be made inside a tf.function
        strategy.run(network.test_step, args=(next(spreading(held_out())),))
        log.on_train_begin()
        logs: dict[str, float] = {}
        for epoch in epochs:
            log.on_epoch_begin(epoch)
            network.reset_metrics()
            batches = spreading(train(epoch))
            for step in range(steps):
                log.on_train_batch_begin(step)
                log.on_train_batch_end(step, numbers(learn(batches)))
            logs = numbers(measured())
            network.reset_metrics()
            batches = spreading(held_out())
            for _ in range(held_out_steps):
                judge(batches)
            logs |= {f"val_{name}": value for name, value in numbers(measured()).items()}
            log.on_epoch_end(epoch, logs)
            if network.stop_training:
                break
        log.on_train_end(logs)


def _workers(text: str) -> _Workers | None:
    """TF_CONFIG, None where it names nobody."""
    if text.strip() == "{}":
        return None
    try:
        workers = _Workers.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise DevicesProblem(f"{where}: {first['msg']} in TF_CONFIG, which should look like {EXAMPLE}") from error
    try:
        _ = workers.own_address
    except IndexError:
        me = f"{workers.task.type} {workers.task.index}"
        raise DevicesProblem(f"There is no {me} in TF_CONFIG, which should look like {EXAMPLE}") from None
    return workers


def _wait_for(workers: _Workers) -> None:
    """Until every worker listens. TensorFlow waits too, but where no signal is heard: Ctrl-C would be for nothing."""
    port = _port(workers.own_address)
    try:
        listening = socket.create_server(("", port))
    except OSError as error:
        raise DevicesProblem(f"Port {port}, this worker's in TF_CONFIG, cannot be listened on: {error}.") from error
    with listening:
        for address in (*workers.cluster.chief, *workers.cluster.worker):
            if not _listens(address):
                say(f"Waiting for the worker at {address}")
            while not _listens(address):
                time.sleep(LOOK_SECONDS)


def _listens(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        socket.create_connection((host, _port(address)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _joined() -> tf.distribute.Strategy:
    """The strategy of all workers."""
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        raise DevicesProblem(f"The workers of TF_CONFIG cannot be joined: {error}") from error
    _take_sigterm_back()
    return strategy


def _take_sigterm_back() -> None:
    # with several workers, TensorFlow takes SIGTERM for a preemption notice, and does nothing about it
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _worker_may_be_gone(strategy: tf.distribute.Strategy) -> Iterator[None]:
    try:
        yield
    except GONE as error:
        if place(strategy)[1] == 1:
            raise
        raise DevicesProblem(
            "Another worker is gone, and this one cannot go on alone: start all of them again with the same command, "
            "and they go on after the last whole epoch."
        ) from error

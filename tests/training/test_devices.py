import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training import devices
from training.config import LstmConfig
from training.data import Examples
from training.problems import DevicesProblem
from training.recipes import cnn_accurate, lstm_accurate

HERE = tf.distribute.get_strategy()


def _cluster(job: str, index: int, cluster: dict[str, list[str]]) -> Any:
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type=job, task_id=index
    )
    return SimpleNamespace(cluster_resolver=resolver, num_replicas_in_sync=2 * sum(map(len, cluster.values())))


@pytest.mark.parametrize("config", ["", "{}"])
def test_without_workers_and_gpus_this_process_is_alone_and_the_chief(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    strategy = devices.strategy()
    assert strategy.num_replicas_in_sync == 1
    assert devices.place(strategy) == (0, 1)
    assert devices.is_chief(strategy)
    devices.check_agreement(strategy, "anything")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "Invalid JSON"),
        ("[]", "should be"),
        ('{"cluster": {"worker": ["a:1"]}}', "task: Field required"),
        (
            {"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}},
            "cluster.worker.0: .*is no host:port",
        ),
        ({"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}, "cluster.ps: Extra"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}, "task.type: Input should be"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}, "There is no worker 1"),
        ({"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}, "There is no chief 0"),
        ({"cluster": {"worker": ["a:70000"]}, "task": {"type": "worker", "index": 0}}, "is no host:port"),
    ],
)
def test_a_wrong_tf_config_is_explained(config: Any, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(DevicesProblem, match=says):
        devices.strategy()


def test_workers_are_counted_after_the_chief() -> None:
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    assert [devices.place(_cluster(*who, cluster)) for who in [("chief", 0), ("worker", 0), ("worker", 1)]] == [
        (0, 3),
        (1, 3),
        (2, 3),
    ]
    assert not devices.is_chief(_cluster("worker", 0, cluster))
    assert devices.is_chief(_cluster("worker", 0, {"worker": ["b:1", "c:1"]}))


@pytest.mark.parametrize("rows", [4, 13, 16])
def test_all_devices_together_take_every_row_once(rows: int) -> None:
    workers = [_cluster("worker", index, {"worker": ["a:1", "b:1"]}) for index in range(2)]
    taken = [share for worker in workers for share in devices.shares(worker, rows)]
    assert len(taken) == 4
    assert sorted(np.concatenate(taken)) == list(range(rows))
    assert {len(share) for share in taken} <= {rows // 4, -(-rows // 4)}


def test_no_device_stays_without_a_row() -> None:
    workers = [_cluster("worker", index, {"worker": ["a:1", "b:1"]}) for index in range(2)]
    assert [share.tolist() for worker in workers for share in devices.shares(worker, 3)] == [[0], [1], [2], [0]]


def test_a_lone_device_takes_the_batch_as_it_stands() -> None:
    (share,) = devices.shares(HERE, 5)
    assert share.tolist() == [0, 1, 2, 3, 4]


def test_without_a_gpu_everything_is_float32() -> None:
    assert devices.policy("auto") == "float32"
    network = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    assert devices.spread(network, HERE, "float32") is network


def _cnn() -> tuple[keras.Model, Any]:
    pictures = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype(np.uint8)
    return cnn_accurate.build(pictures, 10), pictures


def _lstm() -> tuple[keras.Model, Any]:
    ids = np.random.default_rng(0).integers(1, 50, (8, 5)).astype(np.int32)
    ids[::2, 3:] = 0
    texts = Examples(ids, np.arange(len(ids)) % 3)
    return lstm_accurate.build(LstmConfig(vocabulary=50, units=4, embedding=4), texts, 3), ids


@pytest.mark.parametrize("build", [_cnn, _lstm])
def test_a_copy_in_mixed_precision_answers_alike_and_leaves_the_network_in_float32(build: Any) -> None:
    keras.utils.set_random_seed(0)
    network, inputs = build()
    copy = devices.spread(network, HERE, "mixed_bfloat16")
    computed_in = {layer.compute_dtype for layer in copy._flatten_layers() if layer.trainable_weights}  # noqa: SLF001
    assert "bfloat16" in computed_in
    assert {weight.dtype for weight in copy.weights} == {"float32"}
    answers = np.asarray(network(inputs))
    np.testing.assert_allclose(keras.ops.cast(copy(inputs), "float32"), answers, atol=0.05 * np.abs(answers).max())
    copy.set_weights([weight + 1 for weight in copy.get_weights()])
    np.testing.assert_array_equal(network(inputs), answers)
    network.set_weights(copy.get_weights())
    assert network(inputs).dtype == "float32"
    assert {layer.compute_dtype for layer in network._flatten_layers()} == {"float32"}  # noqa: SLF001


def test_fit_learns_and_tensorboards_steps_go_on_where_a_run_goes_on(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    network.compile(
        optimizer=keras.optimizers.SGD(keras.optimizers.schedules.PolynomialDecay(0.5, 100)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    network.optimizer.build(network.trainable_variables)
    inputs = np.eye(2, dtype=np.float32)[np.arange(8) % 2]

    def feed() -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((inputs, inputs.argmax(axis=1))).batch(4)

    for epochs in (range(2), range(2, 5)):
        board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
        devices.fit(
            network,
            HERE,
            lambda _: feed(),
            feed,
            steps=2,
            held_out_steps=2,
            epochs=epochs,
            callbacks=[board],
            verbose=0,
        )
    log = EventAccumulator(str(tmp_path / "validation"))
    log.Reload()
    losses = log.Tensors("epoch_loss")
    assert [event.step for event in losses] == [0, 1, 2, 3, 4]
    values = [float(tf.make_ndarray(event.tensor_proto)) for event in losses]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(network.evaluate(feed(), verbose=0)[0], rel=1e-4)

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training import cnn
from training.config import CnnConfig
from training.data import cifar10
from training.export import SERVING, Session
from training.probabilities import calibrated
from training.problems import DataProblem
from training.recipes import cnn_seed


@pytest.fixture(scope="module")
def done(cifar_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    config = CnnConfig(
        data=cifar_folder,
        dataset_name="tiny pictures",
        models=folder / "models",
        output=folder / "runs",
        epochs=3,
        batch_size=16,
        validation=0.2,
    )
    cnn.run(config)
    return folder


def test_the_seeds_network_is_the_one_that_was_asked_for() -> None:
    network = cnn_seed.build(np.zeros((1, 32, 32, 3), np.uint8), 10)
    kinds = [type(layer) for layer in network.layers]
    assert kinds == [
        layers.Rescaling,
        layers.Conv2D,
        layers.MaxPooling2D,
        layers.Conv2D,
        layers.MaxPooling2D,
        layers.Conv2D,
        layers.Flatten,
        layers.Dense,
        layers.Dense,
    ]
    assert network.count_params() == 122_570
    assert [layer.filters for layer in network.layers if isinstance(layer, layers.Conv2D)] == [32, 64, 64]


@pytest.mark.slow
def test_the_job_publishes_a_version_that_knows_its_data(done: Path) -> None:
    with Session(done / "models" / "cnn" / "1") as session:
        contract = session.contract()
    assert contract.kind == "image"
    assert contract.labels[3] == "cat"
    assert (contract.evaluation.dataset, contract.evaluation.examples) == ("tiny pictures", 40)
    assert contract.reference.label_frequencies == pytest.approx([0.1] * 10)
    assert sum(contract.reference.brightness_histogram or []) == pytest.approx(1)
    assert sum(contract.reference.confidence_histogram) == pytest.approx(1)
    assert contract.provenance.config["batch_size"] == 16
    assert 12 <= len(contract.golden.examples) <= 16


@pytest.mark.slow
def test_the_run_leaves_a_report_beside_and_no_checkpoint(done: Path) -> None:
    # a folder of mistakes is there where mistakes were made
    assert {path.name for path in (done / "runs").iterdir()} - {"mistakes"} == {
        "card.json",
        "confusion.png",
        "evaluation.json",
        "history.json",
        "history.png",
        "logs",
        "reliability.png",
        "report.html",
    }
    history = json.loads((done / "runs" / "history.json").read_text())
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ["accuracy", "loss", "val_accuracy", "val_loss"], 3
    )
    with Session(done / "models" / "cnn" / "1") as session:
        contract = session.contract()
    assert json.loads((done / "runs" / "evaluation.json").read_text()) == contract.evaluation.model_dump()
    assert contract.provenance.history is not None
    assert contract.provenance.history["val_accuracy"] == pytest.approx(history["val_accuracy"], rel=1e-4)


@pytest.mark.slow
def test_the_epochs_can_be_watched_in_tensorboard(done: Path) -> None:
    accumulator = EventAccumulator(str(done / "runs" / "logs" / "validation"))
    accumulator.Reload()
    assert [event.step for event in accumulator.Tensors("epoch_accuracy")] == [0, 1, 2]


@pytest.mark.slow
def test_the_exported_weights_are_stored_once_and_without_an_optimizers(done: Path) -> None:
    variables = done / "models" / "cnn" / "1" / "variables" / "variables.data-00000-of-00001"
    assert 951_504 * 4 <= variables.stat().st_size < 951_504 * 4 * 1.1


@pytest.mark.slow
def test_the_contracts_accuracy_is_what_the_exported_graph_reaches(done: Path, cifar_folder: Path) -> None:
    test = cifar10.read(cifar_folder, name="", validation=0.2, seed=1).test
    with Session(done / "models" / "cnn" / "1") as session:
        answers = session.call(SERVING, {"image": test.inputs})["probabilities"]
        evaluation = session.contract().evaluation
    assert (answers.argmax(axis=1) == test.labels).mean() == pytest.approx(evaluation.accuracy)


def test_a_higher_temperature_leaves_the_label_and_lowers_the_confidence() -> None:
    keras.utils.set_random_seed(0)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    network = cnn_seed.build(pictures, 10)
    one, three = (
        keras.ops.convert_to_numpy(calibrated(network, name="image", temperature=temperature)(pictures))
        for temperature in (1.0, 3.0)
    )
    assert one.argmax(axis=1).tolist() == three.argmax(axis=1).tolist()
    assert (three.max(axis=1) < one.max(axis=1)).all()
    np.testing.assert_allclose(np.log(one[:, 0] / one[:, 1]), 3 * np.log(three[:, 0] / three[:, 1]), rtol=1e-4)


def test_cifar_10_cannot_be_asked_for_in_another_size(cifar_folder: Path) -> None:
    with pytest.raises(DataProblem, match="leave --size out"):
        cnn.read(CnnConfig(data=cifar_folder, size=64))

"""A small CNN on CIFAR-10, in order: data, model, fit, calibrate, evaluate, export."""

import time

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from serving.contract import Contract, ImageInput, Output, Reference
from training import evaluation, golden, history
from training.config import CnnConfig
from training.data import Dataset, cifar10
from training.export import check_repository, publish
from training.files import check_folder, write_whole
from training.provenance import provenance
from training.terminal import heading, say, summary

GOLDEN_PICTURES = 10
"""Test pictures among the golden examples; five odd ones join them."""
WARMUP_STEPS = 500
"""Steps in which the learning rate rises from zero: at full rate the first ones kill many of the ReLUs for good."""


def run(config: CnnConfig) -> None:
    """The whole job, from the pictures to a version in the model repository.

    Raises:
        TrainingProblem: a foreseeable failure; nothing was published.
    """
    check_repository(config.models, config.name)
    check_folder(config.results)
    keras.utils.set_random_seed(config.seed)

    heading("Data")
    name = config.dataset_name or "CIFAR-10"
    data = cifar10.read(config.data, name=name, validation=config.validation, seed=config.seed)
    say(data.described("pictures"))

    heading("Model")
    network = build(data.train.inputs.shape[1:], len(data.labels))
    say(f"{network.count_params():,} parameters")

    heading("Fit")
    started = time.monotonic()
    curves = fit(network, data, config)
    seconds = time.monotonic() - started
    history.save(curves, config.results, title=f"{config.name}: {name}")

    heading("Calibrate")
    held_out = logits(network, data.validation.inputs)
    temperature = evaluation.fit_temperature(held_out, data.validation.labels)
    say(f"temperature {temperature:.3f}")

    heading("Evaluate")
    tested = logits(network, data.test.inputs)
    probabilities = evaluation.softmax(tested, temperature)
    verdict = evaluation.evaluate(probabilities, data.test.labels, labels=data.labels, dataset=data.judged_on)
    write_whole(config.results / "evaluation.json", verdict.model_dump_json(indent=2).encode())
    for label in verdict.per_label:
        say(f"{label.label:12} precision {label.precision:.2f}  recall {label.recall:.2f}")

    heading("Export")
    height, width, channels = data.train.inputs.shape[1:]
    spec = ImageInput(name="image", height=height, width=width, channels=channels, fit="cover", filter="bicubic")
    model = calibrated(network, temperature)
    chosen = data.test.inputs[golden.choose(probabilities, data.test.labels, GOLDEN_PICTURES)]
    contract = Contract(
        kind="image",
        labels=data.labels,
        input=spec,
        output=Output(name="probabilities"),
        golden=golden.golden(model, spec, [golden.png(picture) for picture in chosen], golden.odd_pictures(chosen)),
        calibration=evaluation.calibration(temperature, tested, data.test.labels),
        evaluation=verdict,
        reference=Reference(
            label_frequencies=data.label_frequencies,
            confidence_histogram=evaluation.shares(evaluation.softmax(held_out, temperature).max(axis=1)),
            brightness_histogram=evaluation.shares(data.train.inputs.mean(axis=(1, 2, 3)) / 255),
        ),
        provenance=provenance(config, data, seconds=seconds),
    )
    summary(contract, publish(model, contract, repository=config.models, name=config.name), config.results)


def build(shape: tuple[int, int, int], labels: int) -> keras.Model:
    """Pixels, uint8 [n, height, width, channels] → logits, float32 [n, labels]."""
    return keras.Sequential(
        [
            keras.Input(shape, dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(labels),
        ]
    )


def fit(network: keras.Model, data: Dataset, config: CnnConfig) -> dict[str, list[float]]:
    """Learn, and keep the epoch that did best on the held-out pictures.

    Returns:
        accuracy and loss of each epoch, see `training.history`.
    """
    steps = config.epochs * -(-len(data.train) // config.batch_size)
    warmup = min(WARMUP_STEPS, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=config.learning_rate, warmup_steps=warmup
    )
    network.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # XLA takes twice the time on a CPU
    )
    best = keras.callbacks.EarlyStopping(
        monitor="val_accuracy", mode="max", patience=config.epochs, restore_best_weights=True
    )
    fitted = network.fit(
        data.train.inputs,
        data.train.labels,
        batch_size=config.batch_size,
        epochs=config.epochs,
        validation_data=(data.validation.inputs, data.validation.labels),
        callbacks=[best],
    )
    curves: dict[str, list[float]] = fitted.history
    return curves


def logits(network: keras.Model, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels, uint8 [n, height, width, channels] → logits, float32 [n, labels]."""
    answers: NDArray[np.float32] = network.predict(pictures, batch_size=500, verbose=0)
    return answers


def calibrated(network: keras.Model, temperature: float) -> keras.Model:
    """What is served: pixels, uint8 → probabilities, float32 [n, labels]."""
    pixels = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    return keras.Model(pixels, keras.ops.softmax(network(pixels) / temperature))

"""A CNN on pictures, in order: data, model, fit, calibrate, evaluate, export."""

from collections.abc import Iterator
from types import ModuleType

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import EXPLAIN, Contract, ImageInput, Output, Reference
from training import augmentation, devices, evaluation, fitting, golden, history
from training.checkpoint import Checkpoint, Progress
from training.config import CnnConfig
from training.data import Dataset, cifar10, left_out, pictures
from training.explanation import after_first_layer, explain_image
from training.export import check_repository
from training.files import check_folder
from training.finish import finish
from training.probabilities import calibrated
from training.problems import DataProblem
from training.provenance import provenance
from training.recipes import cnn_accurate, cnn_seed
from training.terminal import heading, say

RECIPES: dict[str, ModuleType] = {"accurate": cnn_accurate, "seed": cnn_seed}
GOLDEN_PICTURES = 10
"""Test pictures among the golden examples; five odd ones join them."""
PREDICTED_AT_ONCE = 500
COMPARED = 100
"""Held-out pictures that the exported graph has to answer as the network does."""


def run(config: CnnConfig) -> None:
    """The whole job, from the pictures to a version in the model repository.

    Raises:
        TrainingProblem: a foreseeable failure; nothing was published.
    """
    strategy = devices.strategy()
    check_repository(config.models, config.name)
    check_folder(config.results)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        devices.make_deterministic()

    heading("Data")
    data = read(config)
    say(data.described("pictures"))

    heading("Model")
    network = RECIPES[config.recipe].build(data.train.inputs, len(data.labels))
    say(f"{network.count_params():,} parameters")

    heading("Fit")
    checkpoint = Checkpoint(config.results, {**config.recipe_of_model(), "data": data.sha256})
    if config.restart:
        checkpoint.remove()
    progress = fit(network, data, strategy, config, checkpoint)
    if not devices.is_chief(strategy):
        return
    history.save(progress.history, config.results, title=f"{config.name}: {data.name}")
    if config.flip and config.mirror:
        network = with_mirror_image(network)

    heading("Calibrate")
    held_out = logits(network, data.validation.inputs)
    # what was learned by heart says nothing of how sure to be
    temperature = 1.0 if data.seen else evaluation.cautious_temperature(held_out, data.validation.labels)
    say(f"temperature {temperature:.3f}")

    heading("Evaluate")
    tested = logits(network, data.test.inputs)
    probabilities = evaluation.softmax(tested, temperature)
    verdict = evaluation.evaluate(probabilities, data.test.labels, labels=data.labels, dataset=data.judged_on)
    for label in verdict.per_label:
        say(f"{label.label:12} precision {label.precision:.2f}  recall {label.recall:.2f}")

    heading("Export")
    height, width, channels = data.train.inputs.shape[1:]
    spec = ImageInput(name="image", height=height, width=width, channels=channels, fit="cover", filter="bicubic")
    model = calibrated(network, name=spec.name, temperature=temperature)
    chosen = data.test.inputs[golden.choose(probabilities, data.test.labels, GOLDEN_PICTURES)]
    contract = Contract(
        kind="image",
        labels=data.labels,
        input=spec,
        output=Output(name="probabilities"),
        explain=EXPLAIN,
        golden=golden.golden(model, spec, [golden.png(picture) for picture in chosen], golden.odd_pictures(chosen)),
        calibration=evaluation.calibration(temperature, tested, data.test.labels),
        evaluation=verdict,
        reference=Reference(
            label_frequencies=data.label_frequencies,
            confidence_histogram=evaluation.shares(evaluation.softmax(held_out, temperature).max(axis=1)),
            brightness_histogram=evaluation.shares(data.train.inputs.mean(axis=(1, 2, 3)) / 255),
        ),
        provenance=provenance(config, data, seconds=progress.seconds, history=progress.history),
    )
    mean_colour = data.train.inputs.mean(axis=(0, 1, 2))
    finish(
        model,
        contract,
        explain=explain_image(network, temperature=temperature, empty=mean_colour.tolist()),
        data=data,
        probabilities=probabilities,
        parity=data.validation.inputs[:COMPARED],
        config=config,
        checkpoint=checkpoint,
    )


def read(config: CnnConfig) -> Dataset:
    """CIFAR-10, or the user's own pictures.

    Raises:
        DataProblem: they are not there, or not what they should be.
    """
    if config.data is None or cifar10.is_here(config.data):
        if config.size not in {None, cifar10.SIDE}:
            raise DataProblem(f"CIFAR-10's pictures have {cifar10.SIDE} pixels a side: leave --size out.")
        name = config.dataset_name or "CIFAR-10"
        return cifar10.read(config.data, name=name, validation=config.validation, seed=config.seed)
    if config.recipe == "seed" and config.size is not None and config.size < cnn_seed.SMALLEST_SIDE:
        raise DataProblem(
            f"--recipe seed sees nothing in pictures of {config.size} pixels a side: give --size "
            f"{cnn_seed.SMALLEST_SIDE} or more, or leave --recipe out."
        )
    data, bad = pictures.read(
        config.data,
        name=config.dataset_name or config.data.resolve().name,
        height=config.size,
        width=config.size,
        validation=config.validation,
        seed=config.seed,
    )
    left_out.record(bad, config.results, things="files")
    return data


def fit(
    network: keras.Model, data: Dataset, strategy: tf.distribute.Strategy, config: CnnConfig, checkpoint: Checkpoint
) -> Progress:
    """Learn, every picture once an epoch: mirrored in every other one, moved and partly hidden by chance."""
    train = data.train
    size = fitting.batch_size(config, len(train))
    # what is left over after the last whole batch is another part in every epoch
    steps = len(train) // size
    shorter = min(train.inputs.shape[1:3])
    shift, cutout = round(config.shift * shorter), round(config.cutout * shorter)
    mirrored_first = np.random.default_rng(config.seed).random(len(train)) < 1 / 2

    def batches(epoch: int) -> Iterator[fitting.Batch]:
        chance = np.random.default_rng((config.seed, epoch))
        order = chance.permutation(len(train))
        for which in order[: steps * size].reshape(steps, size):
            seen = augmentation.moved(train.inputs[which], shift, chance)
            if config.flip:
                seen = augmentation.mirrored(seen, mirrored_first[which] ^ bool(epoch % 2))
            yield augmentation.cut_out(seen, cutout, chance), train.labels[which]

    def held_out() -> Iterator[fitting.Batch]:
        for start in range(0, len(data.validation), PREDICTED_AT_ONCE):
            part = slice(start, start + PREDICTED_AT_ONCE)
            yield data.validation.inputs[part], data.validation.labels[part]

    return fitting.fit(
        network,
        batches,
        held_out,
        optimizer=lambda: RECIPES[config.recipe].optimizer(config.learning_rate, config.epochs * steps),
        strategy=strategy,
        steps=steps,
        label_weights=data.label_weights,
        config=config,
        checkpoint=checkpoint,
    )


def with_mirror_image(network: keras.Model) -> keras.Model:
    """A network that answers with the mean of what the given one says of a picture and of its mirror image.

    It looks at both in one pass, as a batch of two, which costs twice the multiply-adds.

    Args:
        network: pixels, uint8 [n, height, width, channels] → logits, float32 [n, labels]. Its first layer makes floats
            of the pixels.
    """
    first, rest = after_first_layer(network)
    pixels = keras.Input(network.input_shape[1:], dtype="uint8")
    picture = first.from_config(first.get_config())(pixels)
    both = rest(keras.ops.concatenate([picture, keras.ops.flip(picture, axis=2)]))
    labels = network.output_shape[-1]
    return keras.Model(pixels, keras.ops.mean(keras.ops.reshape(both, (2, -1, labels)), axis=0))


def logits(network: keras.Model, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels, uint8 [n, height, width, channels] → logits, float32 [n, labels]."""
    answers: NDArray[np.float32] = network.predict(pictures, batch_size=PREDICTED_AT_ONCE, verbose=0)
    return answers

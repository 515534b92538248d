"""An LSTM on texts, in order: data, tokenizer, model, fit, calibrate, evaluate, export."""

from collections.abc import Iterator
from types import ModuleType

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import EXPLAIN, Contract, Output, Reference, TextInput
from serving.preprocessing import TextPreprocessor
from serving.problems import Unprocessable
from training import devices, evaluation, fitting, golden, history
from training.checkpoint import Checkpoint, Progress
from training.config import LstmConfig
from training.data import Dataset, Examples, imdb, left_out, table
from training.explanation import explain_text
from training.export import check_repository
from training.files import check_folder
from training.finish import finish
from training.probabilities import calibrated
from training.problems import DataProblem
from training.provenance import provenance
from training.recipes import lstm_accurate, lstm_seed
from training.terminal import heading, say
from training.tokenizer import PAD_ID, UNKNOWN_ID, train_tokenizer

RECIPES: dict[str, ModuleType] = {"accurate": lstm_accurate, "seed": lstm_seed}
GOLDEN_TEXTS = 8
"""Test texts among the golden examples; six odd ones join them."""
SHORT = 400
"""Characters: golden texts travel with the contract."""
BATCHES_SORTED = 50
"""Batches whose texts are sorted by length together: fewer would pad more, all would show the same batches again."""

PREDICTED_AT_ONCE = 250
COMPARED = 100
"""Held-out texts that the exported graph has to answer as the network does."""

Positions = NDArray[np.int64]


def run(config: LstmConfig) -> None:
    """The whole job, from the texts to a version in the model repository.

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
    say(data.described("texts"))

    heading("Tokenizer")
    spec = TextInput(
        name="ids",
        max_length=config.length,
        pad_id=PAD_ID,
        tokenizer=train_tokenizer(data.train.inputs, vocabulary=config.vocabulary),
    )
    preprocessor = TextPreprocessor(spec)
    train, held_out, test = (encode(preprocessor, part) for part in (data.train, data.validation, data.test))
    # of held-out texts: the training texts chose the words, so they know more of them than others will
    unknown = float((np.concatenate(held_out.inputs) == UNKNOWN_ID).mean())
    say(f"{len(spec.tokenizer['model']['vocab']):,} ids; {unknown:.1%} of the words are unknown")

    heading("Model")
    network = RECIPES[config.recipe].build(config, train, len(data.labels))
    say(f"{network.count_params():,} parameters")

    heading("Fit")
    checkpoint = Checkpoint(config.results, {**config.recipe_of_model(), "data": data.sha256})
    if config.restart:
        checkpoint.remove()
    progress = fit(
        network,
        preprocessor,
        train,
        held_out,
        label_weights=data.label_weights,
        strategy=strategy,
        config=config,
        checkpoint=checkpoint,
    )
    if not devices.is_chief(strategy):
        return
    history.save(progress.history, config.results, title=f"{config.name}: {data.name}")

    heading("Calibrate")
    guessed = logits(network, preprocessor, held_out)
    # what was learned by heart says nothing of how sure to be
    temperature = 1.0 if data.seen else evaluation.cautious_temperature(guessed, held_out.labels)
    say(f"temperature {temperature:.3f}")

    heading("Evaluate")
    tested = logits(network, preprocessor, test)
    probabilities = evaluation.softmax(tested, temperature)
    verdict = evaluation.evaluate(probabilities, test.labels, labels=data.labels, dataset=data.judged_on)
    for label in verdict.per_label:
        say(f"{label.label:12} precision {label.precision:.2f}  recall {label.recall:.2f}")

    heading("Export")
    model = calibrated(network, name=spec.name, temperature=temperature)
    chosen = golden_texts(data.test, probabilities)
    contract = Contract(
        kind="text",
        labels=data.labels,
        input=spec,
        output=Output(name="probabilities"),
        explain=EXPLAIN,
        golden=golden.golden(model, spec, chosen, golden.odd_texts(chosen, config.length, preprocessor)),
        calibration=evaluation.calibration(temperature, tested, test.labels),
        evaluation=verdict,
        reference=Reference(
            label_frequencies=data.label_frequencies,
            confidence_histogram=evaluation.shares(evaluation.softmax(guessed, temperature).max(axis=1)),
            token_unknown_rate=unknown,
        ),
        provenance=provenance(config, data, seconds=progress.seconds, history=progress.history),
    )
    reader, judge = network.get_layer("reader"), network.get_layer("judge")
    finish(
        model,
        contract,
        explain=explain_text(reader, judge, temperature=temperature),
        data=data,
        probabilities=probabilities,
        parity=preprocessor.collate(list(held_out.inputs[:COMPARED])),
        config=config,
        checkpoint=checkpoint,
    )


def read(config: LstmConfig) -> Dataset:
    """IMDB, or the user's own table.

    Raises:
        DataProblem: it is not there, or not what it should be.
    """
    if config.data is None or config.data.is_dir():
        name = config.dataset_name or "IMDB"
        return imdb.read(config.data, name=name, validation=config.validation, seed=config.seed)
    data, bad = table.read(
        config.data,
        name=config.dataset_name or config.data.name,
        text_column=config.text_column,
        label_column=config.label_column,
        validation=config.validation,
        seed=config.seed,
    )
    left_out.record(bad, config.results, things="rows")
    return data


def encode(preprocessor: TextPreprocessor, examples: Examples) -> Examples:
    """Texts → their ids, object [n] of int32 [1 ≤ words ≤ length], as the gateway will make them.

    Raises:
        DataProblem: a text has no words in it.
    """
    rows = np.empty(len(examples), dtype=object)
    for position, text in enumerate(examples.inputs):
        try:
            rows[position] = preprocessor.prepare(text)
        except Unprocessable as problem:
            raise DataProblem(f"{problem.detail} It is {text[:40]!r}: take it out of the data.") from problem
    return Examples(rows, examples.labels)


def fit(
    network: keras.Model,
    preprocessor: TextPreprocessor,
    train: Examples,
    held_out: Examples,
    *,
    label_weights: NDArray[np.float32],
    strategy: tf.distribute.Strategy,
    config: LstmConfig,
    checkpoint: Checkpoint,
) -> Progress:
    """Learn, every text once an epoch, in batches of about one length."""
    size = fitting.batch_size(config, len(train))

    def batch(examples: Examples, which: Positions) -> fitting.Batch:
        return preprocessor.collate(list(examples.inputs[which])), examples.labels[which]

    def batches(epoch: int) -> Iterator[fitting.Batch]:
        chance = np.random.default_rng((config.seed, epoch))
        return (batch(train, which) for which in shuffled(train, size, chance))

    steps = -(-len(train) // size)
    return fitting.fit(
        network,
        batches,
        lambda: (batch(held_out, which) for which in by_length(held_out, PREDICTED_AT_ONCE)),
        optimizer=lambda: RECIPES[config.recipe].optimizer(config.learning_rate, config.epochs * steps),
        strategy=strategy,
        steps=steps,
        label_weights=label_weights,
        config=config,
        checkpoint=checkpoint,
    )


def by_length(examples: Examples, size: int) -> list[Positions]:
    """All examples, shortest first, in batches: an LSTM's step costs the same for a word as for padding."""
    ordered = np.argsort([len(row) for row in examples.inputs], kind="stable")
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def shuffled(examples: Examples, size: int, chance: np.random.Generator) -> list[Positions]:
    """All examples by chance, in batches of about one length, these by chance too."""
    order = chance.permutation(len(examples))
    stretch = size * BATCHES_SORTED
    batches = [
        part[batch]
        for part in (order[start : start + stretch] for start in range(0, len(order), stretch))
        for batch in by_length(examples.take(part), size)
    ]
    return [batches[position] for position in chance.permutation(len(batches))]


def logits(network: keras.Model, preprocessor: TextPreprocessor, examples: Examples) -> NDArray[np.float32]:
    """Ids → logits, float32 [n, labels]."""
    answers = np.zeros((len(examples), network.output_shape[-1]), dtype=np.float32)
    for batch in by_length(examples, PREDICTED_AT_ONCE):
        answers[batch] = network.predict_on_batch(preprocessor.collate(list(examples.inputs[batch])))
    return answers


def golden_texts(examples: Examples, probabilities: NDArray[np.floating]) -> list[str]:
    """Test texts for the contract, short ones where there are enough."""
    short = np.flatnonzero([len(text) <= SHORT for text in examples.inputs])
    among = short if len(short) >= GOLDEN_TEXTS else np.arange(len(examples))
    return [
        examples.inputs[among[position]]
        for position in golden.choose(probabilities[among], examples.labels[among], GOLDEN_TEXTS)
    ]

"""An LSTM on texts with two labels, in order: data, tokenizer, model, fit, calibrate, evaluate, export."""

import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import Contract, Output, Reference, TextInput
from serving.preprocessing import TextPreprocessor
from serving.problems import Unprocessable
from training import evaluation, golden, history
from training.config import LstmConfig
from training.data import Dataset, Examples, imdb, table
from training.export import check_repository, publish
from training.files import check_folder, write_whole
from training.problems import DataProblem
from training.provenance import provenance
from training.terminal import heading, say, summary
from training.tokenizer import PAD_ID, UNKNOWN_ID, train_tokenizer

GOLDEN_TEXTS = 8
"""Test texts among the golden examples; six odd ones join them."""
SHORT = 400
"""Characters: golden texts travel with the contract."""
BAD_ROWS_SHOWN = 10
BATCHES_SORTED = 50
"""Batches whose texts are sorted by length together: fewer would pad more, all would show the same batches again."""

Ids = NDArray[np.int32]
Positions = NDArray[np.int64]


def run(config: LstmConfig) -> None:
    """The whole job, from the texts to a version in the model repository.

    Raises:
        TrainingProblem: a foreseeable failure; nothing was published.
    """
    check_repository(config.models, config.name)
    check_folder(config.results)
    keras.utils.set_random_seed(config.seed)

    heading("Data")
    data = read(config)
    if data.seen:
        say(f"{data.name}: {len(data.train)} texts are too few to hold any out.")
        say("The model learns from all of them and is judged on the same: its accuracy says nothing of other texts.")
    else:
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
    network = build(config)
    say(f"{network.count_params():,} parameters")

    heading("Fit")
    started = time.monotonic()
    curves = fit(network, preprocessor, train, held_out, config)
    seconds = time.monotonic() - started
    history.save(curves, config.results, title=f"{config.name}: {data.name}")

    heading("Calibrate")
    guessed = logits(network, preprocessor, held_out)
    # what was learned by heart says nothing of how sure to be
    temperature = 1.0 if data.seen else evaluation.fit_temperature(guessed, held_out.labels)
    say(f"temperature {temperature:.3f}")

    heading("Evaluate")
    tested = logits(network, preprocessor, test)
    probabilities = evaluation.softmax(tested, temperature)
    verdict = evaluation.evaluate(probabilities, test.labels, labels=data.labels, dataset=data.judged_on)
    write_whole(config.results / "evaluation.json", verdict.model_dump_json(indent=2).encode())
    for label in verdict.per_label:
        say(f"{label.label:12} precision {label.precision:.2f}  recall {label.recall:.2f}")

    heading("Export")
    model = calibrated(network, temperature)
    chosen = golden_texts(data.test, probabilities)
    contract = Contract(
        kind="text",
        labels=data.labels,
        input=spec,
        output=Output(name="probabilities"),
        golden=golden.golden(model, spec, chosen, golden.odd_texts(chosen, config.length)),
        calibration=evaluation.calibration(temperature, tested, test.labels),
        evaluation=verdict,
        reference=Reference(
            label_frequencies=data.label_frequencies,
            confidence_histogram=evaluation.shares(evaluation.softmax(guessed, temperature).max(axis=1)),
            token_unknown_rate=unknown,
        ),
        provenance=provenance(config, data, seconds=seconds),
    )
    summary(contract, publish(model, contract, repository=config.models, name=config.name), config.results)


def read(config: LstmConfig) -> Dataset:
    """IMDB, or the user's own table.

    Raises:
        DataProblem: it is not there, or not what it should be.
    """
    if config.data is None or config.data.is_dir():
        return imdb.read(
            config.data, name=config.dataset_name or "IMDB", validation=config.validation, seed=config.seed
        )
    name = config.dataset_name or config.data.name
    data, bad = table.read(config.data, name=name, validation=config.validation, seed=config.seed)
    if bad:
        say(f"{len(bad):,} bad rows are left out:")
        for row in bad[:BAD_ROWS_SHOWN]:
            say(f"  line {row.line}: {row.reason}")
        if len(bad) > BAD_ROWS_SHOWN:
            say("  …")
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


def build(config: LstmConfig) -> keras.Model:
    """Ids, int32 [n, words] → logit of the second label, float32 [n, 1]. Padding is masked: it changes nothing."""
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(config.vocabulary, config.embedding, mask_zero=True),
            layers.SpatialDropout1D(config.dropout),
            # cuDNN's kernel would tie the SavedModel to a GPU
            layers.LSTM(config.units, use_cudnn=False),
            layers.Dropout(config.dropout),
            layers.Dense(1),
        ]
    )


def fit(
    network: keras.Model, preprocessor: TextPreprocessor, train: Examples, held_out: Examples, config: LstmConfig
) -> dict[str, list[float]]:
    """Learn, and keep the epoch that did best on the held-out texts.

    Returns:
        accuracy and loss of each epoch, see `training.history`.
    """
    size = config.batch_size
    steps = config.epochs * -(-len(train) // size)
    network.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(config.learning_rate, steps), clipnorm=1.0
        ),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
        jit_compile=False,  # XLA would compile anew for every length
    )
    chance = np.random.default_rng(config.seed)
    best = keras.callbacks.EarlyStopping(
        monitor="val_accuracy", mode="max", patience=config.epochs, restore_best_weights=True
    )
    fitted = network.fit(
        feed(lambda: shuffled(train, size, chance), preprocessor, train, size),
        validation_data=feed(lambda: by_length(held_out, size), preprocessor, held_out, size),
        epochs=config.epochs,
        shuffle=False,  # `shuffled` does
        callbacks=[best],
    )
    curves: dict[str, list[float]] = fitted.history
    return curves


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


def feed(
    batches: Callable[[], list[Positions]], preprocessor: TextPreprocessor, examples: Examples, size: int
) -> tf.data.Dataset:
    """Batches for Keras: ids, int32 [n, longest of the batch], and labels, float32 [n, 1], new ones every epoch."""

    def epoch() -> Iterator[tuple[Ids, NDArray[np.float32]]]:
        for batch in batches():
            part = examples.take(batch)
            yield preprocessor.collate(list(part.inputs)), part.labels.astype(np.float32)[:, None]

    signature = (tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, 1], tf.float32))
    endless = tf.data.Dataset.from_generator(epoch, output_signature=signature)
    return endless.apply(tf.data.experimental.assert_cardinality(-(-len(examples) // size))).prefetch(2)


def logits(network: keras.Model, preprocessor: TextPreprocessor, examples: Examples) -> NDArray[np.float32]:
    """Ids → logits of both labels, float32 [n, 2]; the first label's are 0, so that softmax is the sigmoid."""
    answers = np.zeros((len(examples), 2), dtype=np.float32)
    for batch in by_length(examples, 250):
        ids = preprocessor.collate(list(examples.inputs[batch]))
        answers[batch, 1] = network.predict_on_batch(ids)[:, 0]
    return answers


def golden_texts(examples: Examples, probabilities: NDArray[np.floating]) -> list[str]:
    """Test texts for the contract, short ones where there are enough."""
    short = np.flatnonzero([len(text) <= SHORT for text in examples.inputs])
    among = short if len(short) >= GOLDEN_TEXTS else np.arange(len(examples))
    return [
        examples.inputs[among[position]]
        for position in golden.choose(probabilities[among], examples.labels[among], GOLDEN_TEXTS)
    ]


def calibrated(network: keras.Model, temperature: float) -> keras.Model:
    """What is served: ids, int32 [n, words] → probabilities of both labels, float32 [n, 2]."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    logit = network(ids) / temperature
    return keras.Model(ids, keras.ops.softmax(keras.ops.concatenate([keras.ops.zeros_like(logit), logit], axis=-1)))

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serving.contract import ATTRIBUTION, EXPLAIN, SCORE, TextInput
from serving.preprocessing import TextPreprocessor
from training import lstm
from training.config import LstmConfig
from training.data import Examples
from training.export import SERVING, Session
from training.problems import DataProblem
from training.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    rows = [f"{'good' if i % 2 else 'bad'} film number {i},{'up' if i % 2 else 'down'}\n" for i in range(240)]
    (folder / "films.csv").write_text("text,label\n" + "".join(rows) + "no label,\n")
    config = LstmConfig(
        data=folder / "films.csv",
        models=folder / "models",
        output=folder / "runs",
        epochs=3,
        batch_size=16,
        learning_rate=1e-2,
        validation=0.1,
        vocabulary=50,
        length=10,
        embedding=8,
        units=8,
    )
    lstm.run(config)
    return folder


@pytest.mark.slow
def test_the_job_learns_and_publishes_what_a_table_says(done: Path) -> None:
    with Session(done / "models" / "lstm" / "1") as session:
        contract = session.contract()
    assert contract.kind == "text"
    assert contract.labels == ["down", "up"]
    assert isinstance(contract.input, TextInput)
    assert contract.input.max_length == 10
    assert (contract.evaluation.dataset, contract.evaluation.examples) == ("films.csv", 48)
    assert contract.evaluation.accuracy > 0.9
    assert 0 < (contract.reference.token_unknown_rate or 0) < 1
    assert 12 <= len(contract.golden.examples) <= 16


@pytest.mark.slow
def test_the_run_leaves_a_report_beside_and_says_what_was_left_out(done: Path) -> None:
    assert {"report.html", "card.json", "left_out.csv"} <= {path.name for path in (done / "runs").iterdir()}
    assert "the label is empty" in (done / "runs" / "left_out.csv").read_text()


@pytest.mark.slow
def test_answers_can_be_explained_and_the_first_user_does_not_wait(done: Path) -> None:
    version = done / "models" / "lstm" / "1"
    ids = np.array([[5, 6, 7, 0]], dtype=np.int32)
    with Session(version) as session:
        assert session.contract().explain == EXPLAIN
        answer = session.call(EXPLAIN, {"ids": ids})
    assert answer[ATTRIBUTION].shape == (1, 4)
    assert answer[ATTRIBUTION][0, 3] == 0
    assert answer[ATTRIBUTION].sum() == pytest.approx(answer[SCORE][0], rel=0.05, abs=0.02)
    assert (version / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0


@pytest.mark.slow
def test_the_answer_does_not_depend_on_padding(done: Path) -> None:
    ids = np.array([[5, 6, 7]], dtype=np.int32)
    padded = np.array([[5, 6, 7] + [0] * 40, [8] * 43], dtype=np.int32)
    with Session(done / "models" / "lstm" / "1") as session:
        alone = session.call(SERVING, {"ids": ids})["probabilities"]
        batch = session.call(SERVING, {"ids": padded})["probabilities"]
    np.testing.assert_allclose(batch[0], alone[0], atol=1e-6)
    np.testing.assert_allclose(batch.sum(axis=1), 1, rtol=1e-5)


def test_texts_are_encoded_as_one_batch_of_the_tokenizer_would(imdb_folder: Path) -> None:
    texts = lstm.read(LstmConfig(data=imdb_folder)).train
    tokenizer = train_tokenizer(texts.inputs, vocabulary=30)
    preprocessor = TextPreprocessor(TextInput(name="ids", max_length=5, pad_id=0, tokenizer=tokenizer))
    encoded = lstm.encode(preprocessor, texts)
    assert [row.tolist() for row in encoded.inputs] == [preprocessor.prepare(text).tolist() for text in texts.inputs]
    assert {len(row) for row in encoded.inputs} == {5}


def test_a_text_without_words_is_named() -> None:
    tokenizer = train_tokenizer(["a"], vocabulary=30)
    preprocessor = TextPreprocessor(TextInput(name="ids", max_length=5, pad_id=0, tokenizer=tokenizer))
    with pytest.raises(DataProblem, match=r"'<br />': take it out"):
        lstm.encode(preprocessor, Examples(np.array(["<br />"], dtype=object), np.array([0])))


@pytest.fixture
def many() -> Examples:
    chance = np.random.default_rng(0)
    rows = np.empty(1000, dtype=object)
    rows[:] = [np.ones(length, np.int32) for length in chance.integers(1, 400, 1000)]
    return Examples(rows, chance.integers(0, 2, 1000))


@pytest.mark.parametrize("batches", [lstm.by_length, lambda e, n: lstm.shuffled(e, n, np.random.default_rng(1))])
def test_batches_hold_every_example_once_and_texts_of_like_length(
    many: Examples, batches: Callable[[Examples, int], list[lstm.Positions]]
) -> None:
    made = batches(many, 32)
    assert sorted(np.concatenate(made).tolist()) == list(range(1000))
    padded = sum(len(batch) * max(len(row) for row in many.inputs[batch]) for batch in made)
    assert padded < 1.1 * sum(len(row) for row in many.inputs)


def test_every_epoch_has_other_batches_and_the_seed_repeats_them(many: Examples) -> None:
    chance = np.random.default_rng(1)
    first, second = (lstm.shuffled(many, 32, chance) for _ in range(2))
    again = lstm.shuffled(many, 32, np.random.default_rng(1))
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]


def test_golden_texts_are_short_where_there_are_enough_short_ones() -> None:
    texts = np.array(["short"] * 20 + ["long " * 200] * 20, dtype=object)
    probabilities = np.tile([[0.9, 0.1], [0.2, 0.8]], (20, 1))
    examples = Examples(texts, np.tile([0, 1], 20))
    assert lstm.golden_texts(examples, probabilities) == ["short"] * 8

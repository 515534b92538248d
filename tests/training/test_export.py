import os
import resource
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from serving.contract import ATTRIBUTION, EXPLAIN, LABEL, SCORE, Contract, Golden
from training import golden
from training.explanation import Explain
from training.export import SERVING, Session, check_repository, give_next_number, publish
from training.problems import GoldenDisagreement, RepositoryProblem
from training.warmup import read_warmup

Version = tuple[keras.Model, Contract]


@pytest.fixture(scope="module")
def published(version: Version, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, contract = version
    return publish(model, contract, repository=tmp_path_factory.mktemp("models"), name="cnn")


def test_the_first_version_is_number_one(published: Path) -> None:
    assert published.name == "1"
    assert (published / "saved_model.pb").is_file()


def test_nothing_but_versions_lies_in_the_models_folder_afterwards(published: Path) -> None:
    assert [path.name for path in published.parent.iterdir()] == ["1"]


def test_the_signatures_have_the_names_that_the_contract_says(published: Path) -> None:
    with Session(published) as session:
        names = {name: (set(inputs), set(outputs)) for name, (inputs, outputs) in session.signatures.items()}
    assert names == {SERVING: ({"image"}, {"probabilities"}), "contract": ({"request"}, {"contract"})}


def test_the_contract_signature_answers_the_same_json_for_every_row(published: Path, version: Version) -> None:
    with Session(published) as session:
        answer = session.call("contract", {"request": np.array([b"", b"x", b"y"], dtype=object)})["contract"]
    assert answer.tolist() == [version[1].to_json().encode()] * 3


def test_a_version_says_of_itself_what_it_was_published_with(published: Path, version: Version) -> None:
    with Session(published) as session:
        assert session.contract() == version[1]


def test_the_graph_takes_uint8_batches_of_any_size_and_answers_distributions(published: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    with Session(published) as session:
        answer = session.call(SERVING, {"image": pictures})["probabilities"]
    assert answer.shape == (5, 3)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)


def test_any_user_may_read_what_was_published(published: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(published.stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE((published / "saved_model.pb").stat().st_mode) == 0o666 & ~mask


def test_the_next_version_follows_the_highest_number(version: Version, tmp_path: Path) -> None:
    for name in ("2", "10", "backup"):
        (tmp_path / "cnn" / name).mkdir(parents=True)
    model, contract = version
    assert publish(model, contract, repository=tmp_path, name="cnn").name == "11"


def test_what_was_published_by_force_says_why(version: Version, tmp_path: Path) -> None:
    model, contract = version

    def inspect(copy: Path, session: Session) -> list[str]:
        assert (copy / "saved_model.pb").is_file()
        assert session.contract().provenance.forced is None
        return ["too large"]

    with Session(publish(model, contract, repository=tmp_path, name="cnn", inspect=inspect)) as session:
        assert session.contract().provenance.forced == ["too large"]


def test_publishers_that_finish_at_once_get_different_numbers(tmp_path: Path) -> None:
    folders = [tmp_path / f".writing-{number}" for number in range(16)]
    for folder in folders:
        folder.mkdir()
        (folder / "saved_model.pb").write_text(folder.name)
    with ThreadPoolExecutor(len(folders)) as pool:
        places = list(pool.map(give_next_number, folders))
    assert sorted(int(place.name) for place in places) == list(range(1, 17))
    assert {(place / "saved_model.pb").read_text() for place in places} == {folder.name for folder in folders}


def brightness(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
    """Stands for an explanation."""
    shares = tf.reduce_mean(tf.cast(pixels, tf.float32), axis=-1)
    total = tf.reduce_sum(shares, axis=[1, 2])
    return {ATTRIBUTION: shares, LABEL: tf.zeros_like(total, tf.int64), SCORE: total}


def test_an_explanation_is_a_signature_that_takes_what_the_model_takes(version: Version, tmp_path: Path) -> None:
    model, contract = version
    contract = contract.model_copy(update={"explain": EXPLAIN})
    pictures = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    with Session(publish(model, contract, repository=tmp_path, name="cnn", explain=brightness)) as session:
        assert session.contract().explain == EXPLAIN
        answer = session.call(EXPLAIN, {"image": pictures})
    np.testing.assert_allclose(answer[ATTRIBUTION], pictures.mean(axis=-1), rtol=1e-5)


@pytest.mark.parametrize(("promised", "given"), [(EXPLAIN, None), (None, brightness)])
def test_an_explanation_that_the_contract_does_not_agree_with_is_refused(
    promised: str | None, given: Explain | None, version: Version, tmp_path: Path
) -> None:
    model, contract = version
    contract = contract.model_copy(update={"explain": promised})
    with pytest.raises(ValueError, match="give it both or neither"):
        publish(model, contract, repository=tmp_path, name="cnn", explain=given)
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_fails_at_a_warm_up_request_is_not_published(version: Version, tmp_path: Path) -> None:
    def broken(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.assert_less(pixels, tf.zeros_like(pixels), "out of order")]):
            return brightness(tf.identity(pixels))

    model, contract = version
    contract = contract.model_copy(update={"explain": EXPLAIN})
    with pytest.raises(tf.errors.InvalidArgumentError, match="out of order"):
        publish(model, contract, repository=tmp_path, name="cnn", explain=broken)
    assert list((tmp_path / "cnn").iterdir()) == []


def test_a_version_brings_its_warm_up_requests(published: Path) -> None:
    assert {request.model_spec.signature_name for request in read_warmup(published)} == {SERVING, "contract"}
    assert {request.model_spec.name for request in read_warmup(published)} == {"cnn"}


def _with_other_answers(contract: Contract) -> Contract:
    examples = list(contract.golden.examples)
    row = examples[3].probabilities
    best, other = int(np.argmax(row)), int(np.argmin(row))
    moved = [p + 0.01 * ((i == other) - (i == best)) for i, p in enumerate(row)]
    examples[3] = examples[3].model_copy(update={"probabilities": moved})
    return contract.model_copy(update={"golden": Golden(examples=examples)})


def test_a_model_that_answers_golden_examples_otherwise_is_refused_and_leaves_nothing(
    version: Version, tmp_path: Path
) -> None:
    model, contract = version
    with pytest.raises(GoldenDisagreement, match=r"golden example 3, asked alone.*0\.0100, 0\.0050 allowed"):
        publish(model, _with_other_answers(contract), repository=tmp_path, name="cnn")
    assert list((tmp_path / "cnn").iterdir()) == []


def test_a_model_that_answers_nan_is_refused(version: Version, tmp_path: Path) -> None:
    _, contract = version
    pixels = keras.Input((8, 8, 3), dtype="uint8")
    nan = keras.ops.mean(keras.ops.cast(pixels, "float32"), axis=(1, 2))[:, :3] * float("nan")
    with pytest.raises(GoldenDisagreement):
        publish(keras.Model(pixels, nan), contract, repository=tmp_path, name="cnn")


def test_a_model_with_another_number_of_labels_is_refused(version: Version, tmp_path: Path) -> None:
    _, contract = version
    pixels = keras.Input((8, 8, 3), dtype="uint8")
    two = keras.ops.softmax(keras.ops.mean(keras.ops.cast(pixels, "float32"), axis=(1, 2))[:, :2])
    with pytest.raises(GoldenDisagreement, match=r"answers \[11, 2\]"):
        publish(keras.Model(pixels, two), contract, repository=tmp_path, name="cnn")


def test_a_repository_that_is_a_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(RepositoryProblem, match="not a folder"):
        check_repository(tmp_path / "models", "cnn")


def test_a_disk_that_fills_up_at_the_warm_up_requests_is_told(version: Version, tmp_path: Path) -> None:
    side = 512  # of one colour: small as PNG, three quarters of a megabyte as a request
    pixels = keras.Input((side, side, 3), dtype="uint8", name="image")
    mean = keras.ops.mean(keras.ops.cast(pixels, "float32"), axis=(1, 2)) / 255
    model = keras.Model(pixels, keras.ops.softmax(mean))
    spec = version[1].input.model_copy(update={"height": side, "width": side})
    flat = [np.full((side, side, 3), (30 * number, 90, 0), np.uint8) for number in range(9)]
    examples = golden.golden(model, spec, [golden.png(picture) for picture in flat], [])
    contract = version[1].model_copy(update={"input": spec, "golden": examples})
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, unlimited[1]))
    try:
        with pytest.raises(RepositoryProblem, match=r"cannot be written .*: free it, or choose another one"):
            publish(model, contract, repository=tmp_path, name="cnn")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert list((tmp_path / "cnn").iterdir()) == []
    assert publish(model, contract, repository=tmp_path, name="cnn").name == "1"


@pytest.mark.parametrize("name", ["", "../cnn", "a/b", ".hidden", "two words"])
def test_a_name_that_would_be_another_place_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryProblem, match="cannot name a model"):
        check_repository(tmp_path, name)


def test_checking_a_repository_writes_nothing(tmp_path: Path) -> None:
    check_repository(tmp_path / "new" / "models", "cnn")
    assert list(tmp_path.iterdir()) == []


def test_hidden_folders_of_killed_publishers_are_removed_after_a_day_and_others_left_alone(
    version: Version, tmp_path: Path
) -> None:
    abandoned, busy = tmp_path / "cnn" / ".writing-old", tmp_path / "cnn" / ".writing-new"
    for folder in (abandoned, busy):
        folder.mkdir(parents=True)
    os.utime(abandoned, (time.time() - 90_000,) * 2)
    model, contract = version
    publish(model, contract, repository=tmp_path, name="cnn")
    assert {path.name for path in (tmp_path / "cnn").iterdir()} == {".writing-new", "1"}


PUBLISHER = """
import sys, time
from pathlib import Path
import keras
from serving.contract import Contract
from training import export

def hang(session):
    print("written", flush=True)
    time.sleep(60)

export.prove = hang
pixels = keras.Input((8, 8, 3), dtype="uint8")
contract = Contract.model_validate_json(sys.stdin.read())
export.publish(keras.Model(pixels, keras.layers.Flatten()(pixels)), contract, repository=Path(sys.argv[1]), name="cnn")
"""


def test_a_publisher_killed_while_writing_leaves_no_version(version: Version, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PUBLISHER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(version[1].to_json().encode())
        process.stdin.close()
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert [path.name[:9] for path in (tmp_path / "cnn").iterdir()] == [".writing-"]

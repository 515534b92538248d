import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from serving.contract import Contract
from training import golden
from training.data import Examples
from training.export import SERVING, Session, publish
from training.gate import Budget, Judgement, Refused, answers, enforce, judge

SIDE = 8
LABELS = ["dark", "middling", "light"]
GOOD = ([-9.0, 0.0, 9.0], [4.0, 0.0, -5.0])
BLIND = ([-9.0, 0.0, 0.0], [4.0, 0.0, -5.0])
"""Calls what is light middling: two thirds of TEST come out right."""
ROOT = Path(__file__).resolve().parents[2]

_levels = np.repeat([40, 127, 215], 20)
TEST = Examples(
    np.broadcast_to(_levels[:, None, None, None], (60, SIDE, SIDE, 3)).astype(np.uint8),
    np.repeat([0, 1, 2], 20).astype(np.int64),
)


def brightness_model(slopes: list[float], biases: list[float]) -> keras.Model:
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
    brightness = keras.ops.mean(keras.ops.cast(pixels, "float32"), axis=(1, 2, 3))[:, None] / 255
    dense = keras.layers.Dense(3)
    model = keras.Model(pixels, keras.ops.softmax(dense(brightness)))
    dense.set_weights([np.array([slopes]), np.array(biases)])
    return model


@dataclass
class Written:
    """A SavedModel on disk, and the Keras model and the contract that it came from."""

    folder: Path
    model: keras.Model
    contract: Contract

    def judged(self, *, incumbent: Path | None = None, budget: Budget | None = None, **changed: Any) -> Judgement:
        inputs = TEST.inputs[::3]
        probabilities = keras.ops.convert_to_numpy(self.model(inputs))
        with Session(self.folder) as session:
            return judge(
                self.folder,
                session,
                changed.get("contract", self.contract),
                parity=changed.get("parity", (inputs, probabilities)),
                test=TEST,
                incumbent=incumbent,
                budget=budget or Budget(),
            )


@pytest.fixture(scope="module")
def write(version: tuple[keras.Model, Contract], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Writes a version with weights, and with changes to its contract."""
    _, base = version

    def written(
        weights: tuple[list[float], list[float]],
        *,
        accuracy: float = 1.0,
        data: str = "a",
        labels: list[str] | None = None,
    ) -> Written:
        model = brightness_model(*weights)
        pictures = TEST.inputs[::7]
        examples = golden.golden(
            model, base.input, [golden.png(picture) for picture in pictures], golden.odd_pictures(pictures)
        )
        contract = base.model_copy(
            update={
                "golden": examples,
                "labels": labels or LABELS,
                "evaluation": base.evaluation.model_copy(update={"accuracy": accuracy, "examples": 10_000}),
                "provenance": base.provenance.model_copy(update={"data": f"data {data}", "data_sha256": data}),
            }
        )
        folder = publish(model, contract, repository=tmp_path_factory.mktemp("models"), name="cnn")
        return Written(folder, model, contract)

    return written


@pytest.fixture(scope="module")
def good(write: Any) -> Written:
    written: Written = write(GOOD, accuracy=0.94)
    return written


@pytest.fixture(scope="module")
def blind(write: Any) -> Written:
    written: Written = write(BLIND, accuracy=0.93)
    return written


def reasons(judgement: Judgement) -> list[str]:
    return [refusal.check for refusal in judgement.refusals]


def test_a_candidate_that_is_no_worse_passes_and_its_figures_are_told(good: Written, blind: Written) -> None:
    judgement = good.judged(incumbent=blind.folder, budget=Budget(megabytes=1))
    assert judgement.refusals == []
    accuracy, parity, proof, size = judgement.findings
    assert "94.00% against version 1's 93.00%" in accuracy
    assert "on 20 held-out inputs" in parity
    assert "came out right" in proof
    assert "MB" in size
    assert enforce(judgement, force=False) == []


def test_a_candidate_that_is_worse_on_the_same_data_is_refused_with_the_figures(good: Written, blind: Written) -> None:
    (refusal,) = blind.judged(incumbent=good.folder).refusals
    assert refusal.check == "accuracy"
    assert "93.00% against version 1's 94.00%" in refusal.reason
    assert "1.00 points worse, and --margin 0.005 allows 0.50" in refusal.reason
    assert "±0.50 points" in refusal.reason


def test_the_margin_is_what_a_candidate_may_lack(good: Written, blind: Written) -> None:
    assert reasons(blind.judged(incumbent=good.folder, budget=Budget(margin=0.01))) == []
    assert reasons(blind.judged(incumbent=good.folder, budget=Budget(margin=0.0099))) == ["accuracy"]


def test_a_version_that_learned_from_other_data_is_asked_the_candidates_test_set(
    good: Written, blind: Written, write: Any
) -> None:
    other = write(GOOD, accuracy=0.1, data="b")
    (refusal,) = blind.judged(incumbent=other.folder).refusals
    assert "66.67% against version 1's 100.00%" in refusal.reason
    assert "33.33 points worse" in refusal.reason
    assert "learned from other data (data b), and its figure flatters if" in refusal.reason
    assert reasons(good.judged(incumbent=other.folder)) == []


def test_labels_in_another_order_are_the_same_labels(good: Written, blind: Written, write: Any) -> None:
    turned = write(tuple(row[::-1] for row in GOOD), data="b", labels=LABELS[::-1])
    assert "100.00% against version 1's 100.00%" in good.judged(incumbent=turned.folder).findings[0]
    assert reasons(blind.judged(incumbent=turned.folder)) == ["accuracy"]


def texture_version(side: int, base: Contract, folder: Path) -> tuple[Path, Contract]:
    """Tells rough pictures from smooth ones by what neighbouring pixels differ by, at a size."""
    pixels = keras.Input((side, side, 3), dtype="uint8", name="image")
    grey = keras.ops.mean(keras.ops.cast(pixels, "float32"), axis=3)
    steps = keras.ops.mean(keras.ops.abs(grey[:, :, 1:] - grey[:, :, :-1]), axis=(1, 2))[:, None]
    model = keras.Model(pixels, keras.ops.softmax(keras.ops.concatenate([steps - 30, 30 - steps], axis=1) / 10))
    spec = base.input.model_copy(update={"height": side, "width": side})
    examples = golden.golden(model, spec, [golden.png(picture) for picture in rough_and_smooth(side, 8)], [])
    provenance = base.provenance.model_copy(update={"data_sha256": str(side)})
    contract = base.model_copy(
        update={"labels": ["rough", "smooth"], "input": spec, "golden": examples, "provenance": provenance}
    )
    return publish(model, contract, repository=folder / str(side), name="cnn"), contract


def rough_and_smooth(side: int, count: int) -> np.ndarray:
    """Chessboards and plain pictures in turn, uint8 [n, side, side, 3]."""
    chess = np.indices((side, side)).sum(axis=0) % 2 * 2 - 1
    pictures = [80 + 5 * number + (40 * chess if number % 2 == 0 else 0 * chess) for number in range(count)]
    return np.stack(pictures)[..., None].repeat(3, axis=3).astype(np.uint8)


def test_versions_of_other_sizes_are_asked_about_the_pictures_as_they_lie_on_the_disk(
    version: tuple[keras.Model, Contract], tmp_path: Path
) -> None:
    incumbent, _ = texture_version(16, version[1], tmp_path)
    candidate, contract = texture_version(8, version[1], tmp_path)
    files = [tmp_path / f"{number}.png" for number in range(20)]
    pictures = rough_and_smooth(16, 20)
    for file, picture in zip(files, pictures, strict=True):
        file.write_bytes(golden.png(picture))
    # at the candidate's size nothing is left to tell them apart by
    shrunk = pictures.reshape(20, 8, 2, 8, 2, 3).mean(axis=(2, 4)).astype(np.uint8)
    test = Examples(shrunk, np.arange(20) % 2, np.array(files, dtype=object))

    def judged() -> Judgement:
        with Session(candidate) as session:
            parity = (shrunk, session.call(SERVING, {"image": shrunk})["probabilities"])
            return judge(candidate, session, contract, parity=parity, test=test, incumbent=incumbent, budget=Budget())

    (refusal,) = judged().refusals
    assert "50.00% against version 1's 100.00%" in refusal.reason
    files[3].unlink()
    (refusal,) = judged().refusals
    assert refusal.check == "accuracy"
    assert f"{files[3]} cannot be read any more (No such file or directory), so that version 1 cannot" in refusal.reason
    files[3].write_text("no picture")
    (refusal,) = judged().refusals
    assert "3.png is not the picture any more that it was (These 10 bytes are not a picture" in refusal.reason


def test_with_other_labels_or_no_version_in_service_there_is_nothing_to_compare(
    blind: Written, write: Any, tmp_path: Path
) -> None:
    other = write(GOOD, data="b", labels=["black", "grey", "white"])
    assert "knows other labels (black, grey, white)" in blind.judged(incumbent=other.folder).findings[0]
    assert "no version is in service" in blind.judged().findings[0]
    assert "nothing to compare with: " in blind.judged(incumbent=tmp_path / "7").findings[0]


@pytest.mark.parametrize("off", [0.01, float("nan")])
def test_a_graph_that_answers_otherwise_than_keras_is_refused(good: Written, off: float) -> None:
    inputs = TEST.inputs[:8]
    probabilities = keras.ops.convert_to_numpy(good.model(inputs)).copy()
    probabilities[3, 1] += off
    (refusal,) = good.judged(parity=(inputs, probabilities)).refusals
    assert refusal.check == "parity"
    assert f"{off:.2g} at most between Keras and the exported graph on 8 held-out inputs" in refusal.reason


def test_what_fails_its_golden_examples_cannot_be_forced(good: Written, blind: Written, tmp_path: Path) -> None:
    mixed = tmp_path / "1"
    shutil.copytree(good.folder, mixed)
    shutil.copytree(blind.folder / "variables", mixed / "variables", dirs_exist_ok=True)
    judgement = Written(mixed, good.model, good.contract).judged()
    assert reasons(judgement) == ["parity", "golden"]
    assert "golden example" in judgement.refusals[1].reason
    for force in (False, True):
        with pytest.raises(Refused, match="Not even --force"):
            enforce(judgement, force=force)


def test_everything_that_is_wrong_is_told_at_once_and_can_be_forced(good: Written, blind: Written) -> None:
    judgement = blind.judged(incumbent=good.folder, budget=Budget(megabytes=0.001, milliseconds=0.0001))
    assert reasons(judgement) == ["accuracy", "size", "latency"]
    with pytest.raises(Refused) as refused:
        enforce(judgement, force=False)
    for figures in ("1.00 points worse", "MB, and --max-megabytes allows 0.001", "ms for one example", "--force"):
        assert figures in str(refused.value)
    forced = enforce(judgement, force=True)
    assert [reason.split(":")[0] for reason in forced] == ["accuracy", "size", "latency"]


def test_answers_come_in_the_order_of_the_questions_whatever_their_lengths() -> None:
    with Session(ROOT / "models" / "lstm" / "1") as session:
        contract = session.contract()
        examples = sorted(contract.golden.examples, key=lambda example: str(example.raw)[::-1]) * 10
        answered = answers(session, contract, [example.raw for example in examples])
        assert SERVING in session.signatures
    np.testing.assert_allclose(answered, [example.probabilities for example in examples], atol=0.005)

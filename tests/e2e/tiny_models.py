"""Small versions of models whose answers anyone can check: the colour of a picture, the mood of a text."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from serving.contract import EXPLAIN, Contract, ImageInput, TextInput
from training.explanation import explain_image, explain_text
from training.export import publish
from training.golden import golden

COLOURS = ["red", "green", "blue"]
SURENESS = {1: 2.0, 2: 4.0, 3: 8.0}
"""The pictures' model gets surer of itself from version to version: a score tells which one answered."""
EXPLAINING = 2
"""The version of the pictures' model that explains its answers; the texts' model does, too."""

MISFITS: dict[str, Callable[[Any], Any]] = {
    "deep": lambda probabilities: keras.ops.expand_dims(probabilities, 1),
    "narrow": lambda probabilities: probabilities[:, :2],
    "whole": lambda probabilities: keras.ops.cast(probabilities, "int32"),
}
"""Models of pictures whose output is not what their contract says: what becomes of the probabilities."""


def picture(colour: Any = "red", size: tuple[int, int] = (8, 8), kind: str = "PNG", **options: Any) -> bytes:
    """An encoded picture of one colour."""
    buffer = BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind, **options)
    return buffer.getvalue()


def score(version: int) -> float:
    """What a version of the pictures' model gives a pure colour."""
    return float(np.exp(SURENESS[version]) / (np.exp(SURENESS[version]) + 2))


def put(version: Path, place: Path) -> None:
    """Publish a copy of a version: written beside, renamed into place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}")
    shutil.copytree(version, beside)
    beside.rename(place)


def write_versions(folder: Path) -> None:
    """Write cnn/1, cnn/2, cnn/3, cnn/broken and lstm/1, and one of each of MISFITS."""
    image = ImageInput(name="image", height=8, width=8, channels=3, fit="cover", filter="bilinear")
    pictures = [picture(colour) for colour in [*COLOURS, "pink", "navy", "orange", "lime", "maroon"]]
    for version, sureness in SURENESS.items():
        network = _colour_network(sureness)
        model = keras.Model(network.input, keras.ops.softmax(network.output))
        explain = explain_image(network, temperature=1, empty=[0, 0, 0]) if version == EXPLAINING else None
        contract = _contract("image", COLOURS, image, model, pictures, explains=explain is not None)
        publish(model, contract, repository=folder, name="cnn", explain=explain)
    # the contract of one version and the weights of another: as if the pictures were prepared in another way
    shutil.copytree(folder / "cnn" / "1", folder / "cnn" / "broken")
    shutil.copytree(folder / "cnn" / "3" / "variables", folder / "cnn" / "broken" / "variables", dirs_exist_ok=True)

    for name, misfit in MISFITS.items():
        other = keras.Model(network.input, misfit(keras.ops.softmax(network.output)))
        publish(other, contract, repository=folder, name=name, inspect=lambda *_: [])

    text = TextInput(name="tokens", max_length=20, pad_id=0, tokenizer=json.loads(_tokenizer().to_str()))
    texts = ["good", "bad", "a good film", "a bad film", "GOOD good", "bad bad good", "good good bad", "so bad"]
    reader, judge = _mood_networks()
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mood = keras.Model(tokens, keras.ops.softmax(judge(reader(tokens))))
    contract = _contract("text", ["negative", "positive"], text, mood, texts, explains=True)
    explain = explain_text(reader, judge, temperature=1)
    publish(mood, contract, repository=folder, name="lstm", explain=explain)


def _colour_network(sureness: float) -> keras.Model:
    pixels = keras.Input((8, 8, 3), dtype="uint8", name="image")
    scores = keras.layers.Dense(len(COLOURS))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels))
    network = keras.Model(pixels, scores(mean))
    # "green" is a dark one: (0, 128, 0)
    scores.set_weights([np.diag([1, 255 / 128, 1]).astype("f") * sureness, np.zeros(3, "f")])
    return network


def _mood_networks() -> tuple[keras.Model, keras.Model]:
    """What reads the words, and what judges by the mean of what was read."""
    tokens = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(4, 2)
    reader = keras.Model(tokens, [embedding(tokens), keras.ops.not_equal(tokens, 0)])
    embedding.set_weights([np.array([[0, 0], [0, 0], [3, 0], [0, 3]], "f")])
    read, mask = keras.Input((None, 2)), keras.Input((None,), dtype="bool")
    judge = keras.Model([read, mask], keras.layers.GlobalAveragePooling1D()(read, mask=mask))
    return reader, judge


def _tokenizer() -> Tokenizer:
    words = {"[PAD]": 0, "[UNK]": 1, "bad": 2, "good": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106  # no secret
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _contract(
    kind: str,
    labels: list[str],
    spec: ImageInput | TextInput,
    model: keras.Model,
    raws: list[Any],
    *,
    explains: bool = False,
) -> Contract:
    share = [1 / len(labels)] * len(labels)
    evaluation = {"dataset": "its own golden examples", "examples": 8, "accuracy": 1, "per_label": [], "confusion": []}
    calibration = {
        "temperature": 1,
        "expected_calibration_error_before": 0,
        "expected_calibration_error_after": 0,
    }
    provenance: dict[str, Any] = {
        "trained_at": datetime.now(UTC),
        "commit": None,
        "packages": {},
        "seed": 0,
        "data": "made by the tests",
        "data_sha256": "",
        "training_seconds": 1,
        "config": {},
    }
    return Contract.model_validate(
        {
            "kind": kind,
            "labels": labels,
            "input": spec,
            "output": {"name": "probabilities"},
            "explain": EXPLAIN if explains else None,
            "golden": golden(model, spec, raws, []),
            "calibration": calibration,
            "evaluation": evaluation,
            "reference": {"label_frequencies": share, "confidence_histogram": share},
            "provenance": provenance,
        }
    )

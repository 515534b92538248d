from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from serving.contract import EXPLAIN, Contract, Golden, GoldenExample, ImageInput, TextInput
from training.tokenizer import train_tokenizer
from training.warmup import read_warmup, requests, write_warmup

Version = tuple[keras.Model, Contract]
SERVING = "serving_default"
TEXTS = ["one", "one two", "one two three", "one two three four", *["one two three four five " * 9] * 4]


@pytest.fixture
def contract(version: Version) -> Contract:
    return version[1]


@pytest.fixture
def of_texts(contract: Contract) -> Contract:
    spec = TextInput(name="ids", max_length=40, pad_id=0, tokenizer=train_tokenizer(TEXTS, vocabulary=10))
    examples = [GoldenExample(text=text, probabilities=[0.5, 0.25, 0.25]) for text in reversed(TEXTS)]
    return contract.model_copy(update={"kind": "text", "input": spec, "golden": Golden(examples=examples)})


def asked(contract: Contract) -> list[tuple[str, list[int]]]:
    """Signature and shape of each request."""
    return [
        (request.model_spec.signature_name, list(tf.make_ndarray(next(iter(request.inputs.values()))).shape))
        for request in requests(contract, name="model", signature=SERVING)
    ]


def test_the_contract_and_batches_of_several_sizes_are_asked_for(contract: Contract) -> None:
    shapes = [[1, 8, 8, 3], [2, 8, 8, 3], [4, 8, 8, 3], [8, 8, 8, 3]]
    assert asked(contract) == [("contract", [1]), *((SERVING, shape) for shape in shapes)]


def test_texts_are_short_and_long(of_texts: Contract) -> None:
    assert asked(of_texts) == [("contract", [1]), *((SERVING, shape) for shape in ([1, 1], [2, 4], [4, 40], [8, 40]))]


def test_an_explanation_is_asked_for_where_there_is_one(contract: Contract, of_texts: Contract) -> None:
    assert asked(contract.model_copy(update={"explain": EXPLAIN}))[-1] == (EXPLAIN, [1, 8, 8, 3])
    assert asked(of_texts.model_copy(update={"explain": EXPLAIN}))[-1] == (EXPLAIN, [1, 40])


def test_batches_of_large_pictures_are_left_out(contract: Contract) -> None:
    spec = contract.input
    assert isinstance(spec, ImageInput)
    large = contract.model_copy(update={"input": spec.model_copy(update={"height": 300, "width": 200})})
    assert asked(large) == [("contract", [1]), (SERVING, [1, 300, 200, 3])]


def test_pictures_are_sent_as_the_gateway_sends_them(contract: Contract) -> None:
    request = list(requests(contract, name="model", signature=SERVING))[-1]
    assert list(request.inputs) == [contract.input.name]
    assert request.inputs[contract.input.name].dtype == tf.uint8.as_datatype_enum
    assert len(request.inputs[contract.input.name].tensor_content) == 8 * 8 * 8 * 3


def test_what_is_written_is_small_and_is_what_is_read(contract: Contract, tmp_path: Path) -> None:
    write_warmup(tmp_path, contract, name="cnn", signature=SERVING)
    file = tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    assert file.stat().st_size < 8_000
    assert list(read_warmup(tmp_path)) == list(requests(contract, name="cnn", signature=SERVING))
    assert {request.model_spec.name for request in read_warmup(tmp_path)} == {"cnn"}


def test_requests_are_golden_examples(contract: Contract) -> None:
    (batch,) = list(requests(contract, name="cnn", signature=SERVING))[-1].inputs.values()
    assert len(np.unique(tf.make_ndarray(batch), axis=0)) > 1

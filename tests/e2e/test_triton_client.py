"""Triton's own client, as its users have it, talks to the gateway."""

from collections.abc import Iterator

import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from tests.e2e.processes import Service
from tests.e2e.tiny_models import COLOURS, picture

TEXTS = ["a good film", "so bad 👎"]


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        yield client


def tensor(name: str, *elements: bytes | str, binary: bool = True) -> triton.InferInput:
    raw = [element.encode() if isinstance(element, str) else element for element in elements]
    data = np.array(raw, dtype=np.object_)
    return triton.InferInput(name, list(data.shape), "BYTES").set_data_from_numpy(data, binary_data=binary)


def wanted(*, binary: bool) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "score", "probabilities")]


def test_it_finds_the_server_and_the_models_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cnn")
    assert client.is_model_ready("cnn", "1")
    assert not client.is_model_ready("cnn", "7")
    assert not client.is_model_ready("nothing")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("lstm")["inputs"][0]["name"] == "text"


def test_its_pictures_get_the_answers_of_classify_image(client: triton.InferenceServerClient, service: Service) -> None:
    pictures = [picture(colour, (64, 48), "JPEG") for colour in COLOURS]
    result = client.infer("cnn", [tensor("image", *pictures)], request_id="42", model_version="1")
    files = [("file", encoded) for encoded in pictures]
    expected = service.post("/classify-image?version=1", files=files).json()["results"]
    assert [label.decode() for label in result.as_numpy("label")] == [answer["label"] for answer in expected]
    scores = result.as_numpy("score")
    assert scores.dtype == np.float32
    assert scores == pytest.approx([answer["score"] for answer in expected], abs=1e-5)
    assert result.as_numpy("probabilities").shape == (3, 3)
    assert (result.get_response()["id"], result.get_response()["model_version"]) == ("42", "1")


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
def test_its_texts_get_the_answers_of_classify_text(
    client: triton.InferenceServerClient, service: Service, *, binary_input: bool, binary_output: bool
) -> None:
    inputs = [tensor("text", *TEXTS, binary=binary_input)]
    result = client.infer("lstm", inputs, outputs=wanted(binary=binary_output))
    expected = service.post("/classify-text", json={"texts": TEXTS}).json()["results"]
    labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label")]
    assert labels == [answer["label"] for answer in expected]
    assert result.as_numpy("score") == pytest.approx([answer["score"] for answer in expected], abs=1e-5)


def test_it_asks_for_the_best_labels(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("probabilities", class_count=1)]
    (best,) = client.infer("lstm", [tensor("text", "good")], outputs=outputs).as_numpy("probabilities")
    assert best[0].decode().endswith(":1:positive")


def test_it_asks_several_at_once(client: triton.InferenceServerClient) -> None:
    asked = [client.async_infer("lstm", [tensor("text", text)]) for text in TEXTS * 4]
    labels = [pending.get_result().as_numpy("label")[0].decode() for pending in asked]
    assert labels == ["positive", "negative"] * 4


def test_it_understands_our_errors(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"text\[1\]: The text is empty") as caught:
        client.infer("lstm", [tensor("text", "good", "")])
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="no model 'nothing'"):
        client.get_model_metadata("nothing")

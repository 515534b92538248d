"""The Python client against a running gateway: every kind of question, lists of any length, and errors."""

import asyncio
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightread_client import (
    AsyncClient,
    BadInput,
    Client,
    ImageAnswer,
    ModelVersion,
    NotFound,
    NotReady,
    ProblemOfItem,
    TextAnswer,
    Unauthorized,
)
from tests.e2e.conftest import Start
from tests.e2e.processes import Service
from tests.e2e.tiny_models import COLOURS, EXPLAINING, picture, score

Do = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def do(request: pytest.FixtureRequest) -> Do:
    """Call a method of either client."""

    def sync(service: Service, method: str, *arguments: Any, **options: Any) -> Any:
        with Client(service.url) as client:
            return getattr(client, method)(*arguments, **options)

    async def asynchronous(service: Service, method: str, *arguments: Any, **options: Any) -> Any:
        async with AsyncClient(service.url) as client:
            return await getattr(client, method)(*arguments, **options)

    if request.param == "sync":
        return sync
    return lambda *arguments, **options: asyncio.run(asynchronous(*arguments, **options))


def labels(results: Sequence[ImageAnswer | TextAnswer | ProblemOfItem]) -> list[str | int]:
    """Of answers their labels, of problems their statuses."""
    return [result.status if isinstance(result, ProblemOfItem) else result.label for result in results]


def test_a_picture_is_a_path_bytes_or_an_open_file(service: Service, do: Do, tmp_path: Path) -> None:
    file = tmp_path / "green.png"
    file.write_bytes(picture("green"))
    for given in (file, str(file), picture("green"), BytesIO(picture("green"))):
        answer = do(service, "classify_image", given)
        assert answer.label == "green"
        assert answer.score == pytest.approx(score(2), abs=0.02)
        assert answer.model == ModelVersion("cnn", 2)
        assert answer.predictions[0].score == answer.score
        assert len(answer.predictions) == 3
        assert answer.explanation is None


def test_options_go_with_the_question(service: Service, do: Do) -> None:
    assert do(service, "classify_image", picture(), version=1).model.version == 1
    assert do(service, "classify_image", picture(), version_label="canary").model.version == 1
    assert len(do(service, "classify_image", picture(), top_k=1).predictions) == 1
    assert do(service, "classify_text", "good", version=None, explain=False).label == "positive"


def test_explanations_of_pictures_are_numbers_and_a_png(service: Service, do: Do) -> None:
    explanation = do(service, "classify_image", picture("red", (16, 8)), explain=True, overlay=True).explanation
    assert explanation.label == "red"
    assert sum(map(sum, explanation.attribution)) == pytest.approx(explanation.score, rel=0.02)
    assert (explanation.area.left, explanation.area.width) == (0.25, 0.5)
    assert Image.open(BytesIO(explanation.overlay)).format == "PNG"


def test_explanations_of_texts_stand_in_the_text(service: Service, do: Do) -> None:
    text = "A GOOD film, good, not “bad”"
    tokens = do(service, "classify_text", text, explain=True).explanation.tokens
    told = {text[token.start : token.end]: token.attribution for token in tokens}
    assert told["GOOD"] > 0 > told["bad"]
    assert do(service, "classify_text", "good " * 30).truncated
    assert not do(service, "classify_text", text).truncated


def test_a_list_of_pictures_beyond_the_services_limits_is_answered_in_order(service: Service, do: Do) -> None:
    # the service takes 8 items, and 200,000 bytes: five of these
    colours = [COLOURS[number % 3] for number in range(40)]
    pictures: list[Any] = [picture(colour, (110, 110), "BMP") for colour in colours]
    pictures[7], pictures[20] = b"no picture", b"BM" + bytes(250_000)
    expected: list[str | int] = list(colours)
    expected[7], expected[20] = 422, 413
    assert labels(do(service, "classify_images", pictures)) == expected


def test_a_list_of_texts_beyond_the_services_limits_is_answered_in_order(service: Service, do: Do) -> None:
    texts = ["good", "bad", "bad bad good", ""] * 25
    assert labels(do(service, "classify_texts", texts)) == ["positive", "negative", "negative", 422] * 25


def test_lists_of_one_and_none_and_from_anywhere(service: Service, do: Do, tmp_path: Path) -> None:
    assert labels(do(service, "classify_images", [picture("blue")])) == ["blue"]
    assert labels(do(service, "classify_images", [b""])) == [422]
    assert labels(do(service, "classify_texts", ["bad"])) == ["negative"]
    assert labels(do(service, "classify_texts", [""])) == [422]
    assert do(service, "classify_texts", []) == []
    assert labels(do(service, "classify_texts", (text for text in ("good", "bad")))) == ["positive", "negative"]
    many = do(service, "classify_texts", ["good"] * 9, explain=True)
    assert all(answer.explanation.tokens for answer in many)
    for single, method in (("good", "classify_texts"), (picture(), "classify_images")):
        with pytest.raises(TypeError, match="takes a list"):
            do(service, method, single)
    with pytest.raises(FileNotFoundError):
        do(service, "classify_images", [picture(), tmp_path / "nowhere.png"])


def test_what_concerns_all_items_is_raised(service: Service, do: Do) -> None:
    with pytest.raises(NotFound, match="no version 9"):
        do(service, "classify_texts", ["good"] * 20, version=9)
    with pytest.raises(BadInput, match="gives no explanations"):
        do(service, "classify_images", [picture()] * 20, explain=True, version=EXPLAINING - 1)


def test_an_error_tells_what_the_service_told(service: Service, do: Do) -> None:
    with pytest.raises(BadInput, match="lone surrogate") as caught:
        do(service, "classify_text", "\ud800")
    assert (caught.value.status, caught.value.type) == (422, "/problems/unprocessable-content")
    assert str(caught.value.instance).startswith("urn:request:")
    with pytest.raises(NotFound, match="there are cnn, lstm"):
        do(service, "model", "resnet")
    with pytest.raises(NotFound):
        do(service, "model", "../models/cnn")


def test_the_models_and_their_cards(service: Service, do: Do) -> None:
    cnn, lstm = do(service, "models")
    assert (cnn.name, cnn.kind, cnn.ready, cnn.serving) == ("cnn", "image", True, 2)
    assert {version.version: version.state for version in cnn.versions} == {1: "proven", 2: "proven"}
    assert lstm.kind == "text"
    assert do(service, "is_ready")
    assert do(service, "model", "cnn").version == 2
    card = do(service, "model", "cnn", version=1)
    assert (card.version, card.serving) == (1, 2)
    assert card.contract["labels"] == COLOURS


def test_a_service_that_is_not_ready_says_so(start_gateway: Start, do: Do) -> None:
    service = start_gateway("--model-server", "127.0.0.1:1", "--poll-seconds", "0.1")
    assert not do(service, "is_ready")
    with Client(service.url, retries=0) as client, pytest.raises(NotReady, match="cnn is not ready") as caught:
        client.classify_image(picture())
    assert caught.value.retry_after
    assert not Client("http://127.0.0.1:1").is_ready()


def test_keys_open_and_rates_are_kept(start_gateway: Start, tmp_path: Path, do: Do) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90")  # the SHA-256 of: alice
    flags = ("--model-server", "127.0.0.1:1", "--api-keys-file", str(keys), "--rate-limit", "1/second")
    service = start_gateway(*flags)
    with pytest.raises(Unauthorized, match="needs an API key"):
        do(service, "models")
    with Client(service.url, api_key="alice") as client:
        # of these all but the first are answered 429 at first
        assert [len(client.models()) for _ in range(3)] == [2, 2, 2]

"""`explain=true` over HTTP: what each pixel and each word adds, where it stands in what was sent, and who may ask."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.classification import MAX_EXPLAINED
from tests.e2e.conftest import Start
from tests.e2e.processes import Service
from tests.e2e.test_problems import check
from tests.e2e.tiny_models import picture

LEFT = 5
"""Of the eight columns of pixels, so many are red and the others blue."""


def red_and_blue(size: tuple[int, int] = (8, 8)) -> bytes:
    """Red at the left and blue at the right of the square in the middle; black beside it."""
    side = min(size)
    image, middle = Image.new("RGB", size), Image.new("RGB", (side, side), "blue")
    middle.paste(Image.new("RGB", (side * LEFT // 8, side), "red"))
    image.paste(middle, ((size[0] - side) // 2, (size[1] - side) // 2))
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_each_pixel_adds_its_part_and_together_they_are_the_score(service: Service) -> None:
    answer = service.post("/classify-image?explain=true", content=red_and_blue()).json()
    explanation = answer["explanation"]
    assert set(explanation) == {"label", "score", "attribution", "area"}
    assert explanation["label"] == answer["label"] == "red"
    added = np.array(explanation["attribution"])
    assert added.shape == (8, 8)
    assert added.sum() == pytest.approx(explanation["score"], rel=0.02)
    assert (added[:, :LEFT] > 0).all()
    assert (added[:, LEFT:] < 0).all()
    assert explanation["area"] == {"left": 0, "top": 0, "width": 1, "height": 1}


def test_the_map_of_a_wide_picture_lies_over_its_middle(service: Service) -> None:
    explanation = service.post("/classify-image?explain=true", content=red_and_blue((32, 16))).json()["explanation"]
    assert explanation["area"] == {"left": 0.25, "top": 0, "width": 0.5, "height": 1}
    # nothing of the black sides is in it
    assert (np.abs(explanation["attribution"]) > 0.001).all()


def test_an_overlay_is_a_png_that_colours_what_speaks_for_and_against(service: Service) -> None:
    answer = service.post("/classify-image?explain=true&overlay=true", content=red_and_blue()).json()
    overlay = Image.open(BytesIO(base64.b64decode(answer["explanation"]["overlay"])))
    assert (overlay.format, overlay.mode) == ("PNG", "RGBA")
    pixels = np.asarray(overlay).astype(int)
    height, width = pixels.shape[:2]
    pro, contra = pixels[height // 2, width // 4], pixels[height // 2, width * 7 // 8]
    assert pro[0] > pro[2], "orange"
    assert contra[2] > contra[0], "blue"
    assert pro[3] > 0
    assert contra[3] > 0


def test_words_are_found_in_the_original_text_whatever_stands_between(service: Service) -> None:
    text = "👍🏽 A  GOOD film,\r\nnot “bad” at all — good!"
    answer = service.post("/classify-text?explain=true", json={"text": text}).json()
    explanation = answer["explanation"]
    assert explanation["label"] == answer["label"] == "positive"
    tokens = explanation["tokens"]
    told = {text[token["start"] : token["end"]]: token["attribution"] for token in tokens}
    assert told["GOOD"] > 0
    assert told["good"] > 0
    assert told["bad"] < 0
    assert told["film"] == pytest.approx(0, abs=1e-3)
    assert {token["token"] for token in tokens} == {"good", "bad", "[UNK]"}
    assert [token["start"] for token in tokens] == sorted(token["start"] for token in tokens)
    assert sum(token["attribution"] for token in tokens) == pytest.approx(explanation["score"], rel=0.02)


def test_what_the_model_did_not_read_has_no_token(service: Service) -> None:
    answer = service.post("/classify-text?explain=true", json={"text": "good " * 30}).json()
    assert answer["truncated"] is True
    assert len(answer["explanation"]["tokens"]) == 20


def test_many_are_explained_each_as_if_it_were_alone_and_a_bad_one_fails_alone(service: Service) -> None:
    texts = ["good", " ", "bad good bad bad", "so good"]
    results = service.post("/classify-text?explain=true", json={"texts": texts}).json()["results"]
    assert results[1]["problem"]["status"] == 422
    for text, result in zip(texts, results, strict=True):
        if "problem" not in result:
            alone = service.post("/classify-text?explain=true", json={"text": text}).json()
            assert result["explanation"]["tokens"] == [
                {**token, "attribution": pytest.approx(token["attribution"], abs=1e-4)}
                for token in alone["explanation"]["tokens"]
            ]


def test_nothing_is_explained_that_was_not_asked_for(service: Service) -> None:
    assert "explanation" not in service.post("/classify-image", content=picture()).json()
    assert "explanation" not in service.post("/classify-text?explain=false", json={"text": "good"}).json()


def test_more_than_the_limit_are_not_explained_at_once(start_gateway: Start, repository: Path) -> None:
    gateway = start_gateway("--models", str(repository))
    gateway.wait_for(gateway.is_ready)
    texts = ["good"] * (MAX_EXPLAINED + 1)
    check(gateway.post("/classify-text?explain=true", json={"texts": texts}), 413, f"At most {MAX_EXPLAINED}")
    assert gateway.post("/classify-text?explain=true", json={"texts": texts[1:]}).status_code == 200
    assert gateway.post("/classify-text", json={"texts": texts}).status_code == 200
    refused = gateway.post("/classify-image?explain=true", content=picture())
    check(refused, 400, "Version 1 of cnn gives no explanations")


def test_explanations_keep_the_deadline(service: Service) -> None:
    headers = {"X-Request-Timeout": "0.000001"}
    check(service.post("/classify-text?explain=true", json={"text": "good"}, headers=headers), 504, "1e-06 seconds")


def test_every_answer_tells_the_time_of_its_stages(service: Service) -> None:
    def stages(query: str) -> dict[str, float]:
        header = service.post(f"/classify-text{query}", json={"text": "good"}).headers["Server-Timing"]
        return {name: float(spent) for name, spent in (part.split(";dur=") for part in header.split(", "))}

    plain = stages("")
    assert list(plain) == ["read", "decode", "queue", "predict", "total"]
    assert 0 < plain["predict"] <= plain["total"]
    assert {"explain_queue", "explain"} <= stages("?explain=true").keys()
    page = service.get("/metrics").text
    assert 'sightread_stage_seconds_count{model="lstm",stage="explain"}' in page

"""Hostile and odd files against a running gateway: it never fails, and everybody else is served."""

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.e2e.processes import Service
from tests.e2e.tiny_models import picture, score
from tests.serving import hostile_pictures, odd_pictures

RED = odd_pictures.coloured(Image.new("RGB", (24, 16), (230, 40, 30)))
BOMBS = hostile_pictures.bombs()
HOSTILE = {
    **BOMBS,
    **hostile_pictures.not_pictures(),
    **hostile_pictures.broken(),
    **hostile_pictures.harmless(),
}
HEADERS = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def expected(service: Service) -> float:
    plain = odd_pictures.encode(Image.new("RGB", (24, 16), (230, 40, 30)), "PNG")
    answer = service.post("/classify-image?version=2", content=plain, headers=HEADERS).json()
    assert answer["label"] == "red"
    return float(answer["score"])


@pytest.mark.parametrize("name", RED)
def test_a_picture_in_any_form_gets_the_same_label_and_nearly_the_same_score(
    service: Service, expected: float, name: str
) -> None:
    response = service.post("/classify-image?version=2", content=RED[name], headers=HEADERS)
    assert response.status_code == 200, response.text
    assert response.json()["label"] == "red"
    assert response.json()["score"] == pytest.approx(expected, abs=0.02)


@pytest.mark.timeout(45)
def test_hostile_files_are_answered_and_good_requests_between_them_stay_right(service: Service) -> None:
    with httpx.Client(base_url=service.url, timeout=10) as client:
        for name, file in HOSTILE.items():
            try:
                status = client.post("/classify-image?version=1", content=file, headers=HEADERS).status_code
            except httpx.WriteError:
                assert len(file) > 200_000, name  # it was told so before it had sent everything
            else:
                assert status == 200 or 400 <= status < 500, (name, status)
                assert status != 200 or name not in BOMBS, name
            good = client.post("/classify-image?version=1", content=picture("green"), headers=HEADERS)
            assert good.json()["label"] == "green", name
            assert np.isclose(good.json()["score"], score(1), atol=0.001), name
    assert service.is_ready()

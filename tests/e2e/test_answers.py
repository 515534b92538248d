"""Both endpoints over HTTP: what is asked in every way that is allowed, and what comes back."""

import json

import pytest

from tests.e2e.processes import Service
from tests.e2e.tiny_models import COLOURS, picture, score

PNG = {"Content-Type": "image/png"}


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_is_classified_whatever_its_format(service: Service, colour: str, kind: str) -> None:
    answer = service.post("/classify-image", content=picture(colour, (64, 48), kind), headers=PNG).json()
    assert answer["label"] == colour
    assert answer["score"] == pytest.approx(score(2), abs=0.02)


def test_an_answer_has_the_best_label_the_runners_up_and_the_version(service: Service) -> None:
    response = service.post("/classify-image", content=picture("red"), headers=PNG)
    assert response.status_code == 200
    answer = response.json()
    assert list(answer) == ["label", "score", "predictions", "model"]
    assert answer["model"] == {"name": "cnn", "version": 2}
    assert answer["predictions"][0] == {"label": answer["label"], "score": answer["score"]}
    scores = [prediction["score"] for prediction in answer["predictions"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("content_type", ["application/octet-stream", "image/jpeg", "image/anything", None])
def test_raw_bytes_are_a_picture_whatever_image_type_is_said(service: Service, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    assert service.post("/classify-image", content=picture("blue"), headers=headers).json()["label"] == "blue"


def test_one_file_of_a_form_gets_one_answer(service: Service) -> None:
    answer = service.post("/classify-image", files={"file": picture("green")}).json()
    assert answer["label"] == "green"


def test_many_files_of_a_form_get_many_answers_in_order(service: Service) -> None:
    files = [("file", (f"{colour}.png", picture(colour))) for colour in ["blue", "red", "green", "red"]]
    body = service.post("/classify-image", files=files).json()
    assert [result["label"] for result in body["results"]] == ["blue", "red", "green", "red"]
    assert list(body["results"][0]) == ["label", "score", "predictions"]
    assert body["model"] == {"name": "cnn", "version": 2}


def test_a_bad_file_among_many_fails_alone(service: Service) -> None:
    files = [
        ("file", ("a.png", picture("red"))),
        ("file", ("b.png", b"no picture")),
        ("file", ("c.png", picture("blue"))),
    ]
    response = service.post("/classify-image", files=files)
    assert response.status_code == 200
    first, second, third = response.json()["results"]
    assert (first["label"], third["label"]) == ("red", "blue")
    assert second["problem"]["status"] == 422
    assert "not a picture" in second["problem"]["detail"]


def test_a_text_is_classified_from_json(service: Service) -> None:
    answer = service.post("/classify-text", json={"text": "A good film."}).json()
    assert answer["label"] == "positive"
    assert answer["model"] == {"name": "lstm", "version": 1}
    assert len(answer["predictions"]) == 2


def test_a_text_is_classified_as_curl_sends_it(service: Service) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = json.dumps({"text": "so bad"})
    assert service.post("/classify-text", content=body, headers=headers).json()["label"] == "negative"


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=utf-8", 'Text/Plain; Charset="UTF-8"'])
def test_a_text_is_classified_from_plain_text(service: Service, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    assert service.post("/classify-text", content="bad, bad 👎".encode(), headers=headers).json()["label"] == "negative"


def test_many_texts_get_many_answers_in_order_and_an_empty_one_fails_alone(service: Service) -> None:
    body = service.post("/classify-text", json={"texts": ["good", " ", "bad film", "a good, good one"]}).json()
    assert [result.get("label") for result in body["results"]] == ["positive", None, "negative", "positive"]
    assert body["results"][1]["problem"]["status"] == 422


def test_a_list_of_one_text_gets_a_list(service: Service) -> None:
    assert len(service.post("/classify-text", json={"texts": ["good"]}).json()["results"]) == 1


def test_the_answer_does_not_depend_on_the_company(service: Service) -> None:
    alone = service.post("/classify-text", json={"text": "good bad good"}).json()
    texts = ["good bad good", "bad " * 20, "good"]
    together = service.post("/classify-text", json={"texts": texts}).json()["results"][0]
    assert together["score"] == pytest.approx(alone["score"], abs=1e-5)


def test_a_text_that_is_cut_says_so(service: Service) -> None:
    whole = service.post("/classify-text", json={"text": "good " * 20}).json()
    assert "truncated" not in whole
    cut = service.post("/classify-text", json={"text": "good " * 20 + "bad " * 80}).json()
    assert cut["truncated"] is True
    assert cut["score"] == whole["score"]
    first, second = service.post("/classify-text", json={"texts": ["bad " * 21, "bad"]}).json()["results"]
    assert (first["truncated"], "truncated" in second) == (True, False)


def test_top_k_says_how_many_labels(service: Service) -> None:
    for asked, given in [(1, 1), (2, 2), (3, 3), (50, 3)]:
        answer = service.post(f"/classify-image?top_k={asked}", content=picture(), headers=PNG).json()
        assert len(answer["predictions"]) == given


@pytest.mark.parametrize(
    ("query", "version"),
    [("", 2), ("?version=1", 1), ("?version=2", 2), ("?version_label=stable", 2), ("?version_label=canary", 1)],
)
def test_the_asked_version_answers(service: Service, query: str, version: int) -> None:
    answer = service.post(f"/classify-image{query}", content=picture("red"), headers=PNG).json()
    assert answer["model"]["version"] == version
    assert answer["score"] == pytest.approx(score(version), abs=1e-3)


def test_the_request_id_is_echoed_or_made_and_logged(service: Service) -> None:
    sent = service.get("/livez", headers={"X-Request-ID": "abc-123"})
    assert sent.headers["X-Request-ID"] == "abc-123"
    made = service.get("/livez").headers["X-Request-ID"]
    assert len(made) == 32
    odd = service.get("/livez", headers={"X-Request-ID": "a" * 500})
    assert len(odd.headers["X-Request-ID"]) == 32
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if '"request_id"' in line]
    assert {"abc-123", made} <= {line["request_id"] for line in lines}


def test_a_log_line_tells_of_the_request_but_not_its_text(service: Service) -> None:
    headers = {"X-Request-ID": "logged-1", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    service.post("/classify-text", json={"text": "good secret words"}, headers=headers)
    service.wait_for(lambda: "logged-1" in service.log.read_text())
    (line,) = [json.loads(line) for line in service.log.read_text().splitlines() if "logged-1" in line]
    assert line["path"] == "/classify-text"
    assert (line["status"], line["model"], line["version"]) == (200, "lstm", 1)
    assert line["traceparent"] == headers["traceparent"]
    assert "secret" not in service.log.read_text()


def test_models_tells_what_is_served(service: Service) -> None:
    cnn, lstm = service.get("/models").json()["models"]
    assert (cnn["name"], cnn["kind"], cnn["serving"], cnn["ready"]) == ("cnn", "image", 2, True)
    assert {(entry["version"], entry["state"]) for entry in cnn["versions"]} == {(1, "proven"), (2, "proven")}
    assert lstm["serving"] == 1


def test_a_model_card_is_the_contract_for_people(service: Service) -> None:
    card = service.get("/models/cnn?version=1").json()
    assert card["version"] == 1
    contract = card["contract"]
    assert contract["labels"] == COLOURS
    assert contract["input"]["height"] == 8
    assert contract["golden"]["examples"] == 8
    assert contract["provenance"]["data"] == "made by the tests"
    assert "tokenizer" not in service.get("/models/lstm").json()["contract"]["input"]


def test_the_probes_answer(service: Service) -> None:
    assert service.get("/livez").json() == service.get("/healthz").json() == {"status": "alive"}
    ready = service.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["ready"] is True


def test_metrics_count_requests_stages_and_proofs(service: Service) -> None:
    service.post("/classify-image", content=picture(), headers=PNG)
    page = service.get("/metrics").text
    assert 'sightread_requests_total{code="200",model="cnn",version="2"}' in page
    for stage in ("decode", "queue", "predict", "prove"):
        assert f'sightread_stage_seconds_count{{model="cnn",stage="{stage}"}}' in page
    assert 'sightread_version_proven{model="cnn",version="2"} 1.0' in page
    assert 'sightread_batch_rows_count{model="cnn"}' in page


def test_the_documentation_asks_no_other_host(service: Service) -> None:
    page = service.get("/docs")
    assert page.status_code == 200
    assert "//cdn" not in page.text


def test_openapi_describes_both_endpoints_and_their_errors(service: Service) -> None:
    paths = service.get("/openapi.json").json()["paths"]
    for path in ("/classify-image", "/classify-text"):
        operation = paths[path]["post"]
        assert set(operation["responses"]) >= {"200", "400", "404", "413", "415", "422", "429", "503", "504"}
        names = {"top_k", "version", "version_label", "explain"} | ({"overlay"} if "image" in path else set())
        assert {parameter["name"] for parameter in operation["parameters"]} == names
        assert operation["requestBody"]["content"]

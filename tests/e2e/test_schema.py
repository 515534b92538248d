"""What /openapi.json says is true, by Schemathesis with all its checks and by the examples in it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Service
from tests.e2e.tiny_models import picture

FEW, MANY = 40, int(os.environ.get("SIGHTREAD_TEST_EXAMPLES", "200"))
"""For each operation and phase; two hundred take a minute."""
HANGS = 200 + 2 * MANY
"""Seconds after which it does: several times what so many examples take."""
CONFIG = Path(__file__).with_name("schemathesis.toml")
METHODS = (
    "/classify-image",
    "/classify-text",
    "/models",
    "/models/{name}",
    "/readyz",
    "/livez",
    "/healthz",
    "/metrics",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{name}",
    "/v2/models/{name}/ready",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}",
    "/v2/models/{name}/versions/{version}/ready",
    "/v2/models/{name}/versions/{version}/infer",
)


@pytest.fixture(scope="module")
def paths(service: Service) -> Any:
    return service.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.timeout(HANGS + 20)
def test_every_answer_to_good_and_bad_requests_is_as_documented(examples: int, service: Service) -> None:
    program = ["-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    flags = ["--checks", "all", "--max-examples", str(examples), "--seed", "5", "--no-color"]
    run = subprocess.run(
        [sys.executable, *program, "--config-file", str(CONFIG), "run", f"{service.url}/openapi.json", *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=HANGS,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert service.is_ready()


def test_every_operation_is_documented(paths: Any) -> None:
    assert set(paths) == set(METHODS)


def test_every_error_is_documented_as_a_problem_with_an_example(paths: Any) -> None:
    errors = [
        (path, status, response)
        for path in METHODS
        for operation in paths[path].values()
        for status, response in operation["responses"].items()
        if status >= "400" and (path, status) != ("/readyz", "503")  # that is an answer, not an error
    ]
    assert len(errors) >= 20
    for path, status, response in errors:
        assert set(response["content"]) == {"application/problem+json"}, (path, status)
        content = response["content"]["application/problem+json"]
        document = "InferenceError" if path.startswith("/v2") else "ProblemDocument"
        assert content["schema"] == {"$ref": f"#/components/schemas/{document}"}, (path, status)
        more = {"error"} if path.startswith("/v2") else set()
        assert set(content["example"]) == {"type", "title", "status", "detail", "instance"} | more, (path, status)
        assert content["example"]["status"] == int(status), path
        assert ("Retry-After" in response["headers"]) == (status in {"429", "503"}), (path, status)


def test_every_answer_is_documented_with_an_example(paths: Any) -> None:
    for path, operations in paths.items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                assert response["description"] not in {"", "Successful Response"}, (path, status)
                for content in response["content"].values():
                    assert content.keys() & {"example", "examples"}, (path, status)


@pytest.mark.parametrize(
    ("status", "path", "options"),
    [
        (400, "/classify-image?top_k=0", {"content": picture()}),
        (415, "/classify-image", {"content": b"%PDF-1.7"}),
        (422, "/classify-text", {"json": {"text": ""}}),
    ],
)
def test_an_example_of_an_error_is_what_is_really_answered(
    service: Service, paths: Any, status: int, path: str, options: dict[str, Any]
) -> None:
    documented = paths[path.partition("?")[0]]["post"]["responses"][str(status)]
    example = documented["content"]["application/problem+json"]["example"]
    answered = service.post(path, **options).json()
    assert {**answered, "instance": ""} == {**example, "instance": ""}


def test_the_examples_of_inferences_are_answered_as_the_example_of_an_answer(service: Service, paths: Any) -> None:
    operation = paths["/v2/models/{name}/infer"]["post"]
    asked = operation["requestBody"]["content"]["application/json"]["examples"]
    response = service.post("/v2/models/lstm/infer", json=asked["texts"]["value"])
    example = operation["responses"]["200"]["content"]["application/json"]["example"]
    assert response.json().keys() == example.keys()
    assert len(response.json()["outputs"]) == len(example["outputs"])
    (label,) = service.post("/v2/models/lstm/infer", json=asked["some outputs"]["value"]).json()["outputs"]
    assert label["name"] == "label"


def test_the_examples_of_requests_are_answered_as_the_examples_of_answers(service: Service, paths: Any) -> None:
    operation = paths["/classify-text"]["post"]
    asked = operation["requestBody"]["content"]["application/json"]["examples"]
    answered = operation["responses"]["200"]["content"]["application/json"]["examples"]
    for name in ("one", "many"):
        response = service.post("/classify-text", json=asked[name]["value"])
        assert response.status_code == 200
        assert response.json().keys() == answered[name]["value"].keys()

"""A Python client that is generated from /openapi.json, and used."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Service
from tests.e2e.tiny_models import COLOURS, picture

PACKAGE = "generated_client"
"""By itself the tool would call it as our own client is called."""


class Generated:
    """The generated package: its modules by their names, and a client for the running gateway."""

    def __init__(self, url: str) -> None:
        self.types = import_module(f"{PACKAGE}.types")
        self.models = import_module(f"{PACKAGE}.models")
        self.client = import_module(PACKAGE).Client(base_url=url, raise_on_unexpected_status=True)

    def ask(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """What an operation, such as `classify.classify_text`, answers."""
        module = import_module(f"{PACKAGE}.api.{operation}")
        return module.sync(*arguments, client=self.client, **options)

    def file(self, content: bytes) -> Any:
        return self.types.File(BytesIO(content), "picture.png", "image/png")


@pytest.fixture(scope="module")
def generated(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    """The client, generated without a warning, by the tool's own settings but for the name."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "config.yaml").write_text(f"package_name_override: {PACKAGE}\n")
    program = [sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning", "--meta", "none"]
    run = subprocess.run(
        [*program, "--config", "config.yaml", "--url", f"{service.url}/openapi.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        # it formats what it has generated with the ruff that it finds
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "arning" not in run.stdout + run.stderr
    sys.path.insert(0, str(folder))
    try:
        generated = Generated(service.url)
        with generated.client:
            yield generated
    finally:
        sys.path.remove(str(folder))


def test_it_classifies_a_text(generated: Generated) -> None:
    answer = generated.ask("classify.classify_text", body=generated.models.OneText(text="a good film"), top_k=1)
    assert isinstance(answer, generated.models.SingleAnswer)
    assert (answer.label, answer.model.name, answer.model.version) == ("positive", "lstm", 1)
    assert [best.label for best in answer.predictions] == ["positive"]


def test_it_classifies_many_texts_and_tells_which_failed(generated: Generated) -> None:
    body = generated.models.ManyTexts(texts=["good", "", "bad"])
    first, second, third = generated.ask("classify.classify_text", body=body).results
    assert (first.label, third.label) == ("positive", "negative")
    assert isinstance(second, generated.models.ItemProblem)
    assert second.problem.status == 422


def test_it_explains(generated: Generated) -> None:
    body = generated.models.OneText(text="a good film")
    answer = generated.ask("classify.classify_text", body=body, explain=True)
    assert [token.token for token in answer.explanation.tokens][1] == "good"
    seen = generated.ask("classify.classify_image", body=generated.file(picture("blue")), explain=True)
    assert len(seen.explanation.attribution) == 8


def test_it_classifies_a_picture_as_bytes_and_as_a_form(generated: Generated) -> None:
    answer = generated.ask("classify.classify_image", body=generated.file(picture("blue")), version=1)
    assert (answer.label, answer.model.version) == ("blue", 1)
    form = generated.models.Pictures(file=[generated.file(picture("green"))])
    assert generated.ask("classify.classify_image", body=form).label == "green"


def test_it_classifies_many_pictures(generated: Generated) -> None:
    form = generated.models.Pictures(file=[generated.file(picture(colour)) for colour in COLOURS])
    answers = generated.ask("classify.classify_image", body=form)
    assert [answer.label for answer in answers.results] == COLOURS


def test_it_reads_a_model_card(generated: Generated) -> None:
    card = generated.ask("models.model_card", "cnn", version=1)
    assert isinstance(card, generated.models.ModelCard)
    assert (card.version, card.serving) == (1, 2)
    assert card.contract["labels"] == COLOURS
    assert [model.name for model in generated.ask("models.list_models").models] == ["cnn", "lstm"]


def test_it_reads_an_error(generated: Generated) -> None:
    problem = generated.ask("classify.classify_text", body=generated.models.OneText(text=" "))
    assert isinstance(problem, generated.models.ProblemDocument)
    assert (problem.status, problem.title) == (422, "Unprocessable content")
    assert "empty" in problem.detail


def test_it_asks_how_the_service_is(generated: Generated) -> None:
    assert generated.ask("health.livez").status == "alive"
    assert generated.ask("health.readyz").ready is True
    assert "sightread_requests_total" in generated.ask("health.metrics")


def test_it_speaks_the_inference_protocol(generated: Generated) -> None:
    models = generated.models
    tensor = models.RequestInput(name="text", shape=[2], datatype="BYTES", data=["good", "bad"])
    answer = generated.ask("inference_protocol.infer", "lstm", body=models.InferenceRequest(inputs=[tensor]))
    assert answer.model_version == "1"
    assert answer.outputs[0].data == ["positive", "negative"]
    assert generated.ask("inference_protocol.model_ready_of_version", "cnn", "2").ready is True
    assert isinstance(generated.ask("inference_protocol.model_ready", "nothing"), models.InferenceError)

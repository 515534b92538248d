"""`POST /classify-image` and `POST /classify-text`."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.http.endpoints import Endpoint
from serving.http.errors import documented
from serving.http.requests import announces_large_picture, deadline_of, query
from serving.http.schemas import ImageOptions, ManyAnswers, Options, SingleAnswer
from serving.problems import (
    BadRequest,
    DeadlineExceeded,
    Overloaded,
    RequestTimeout,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownVersion,
    Unprocessable,
    UnsupportedMediaType,
)
from serving.settings import Settings

ERRORS = documented(
    BadRequest("The query is not valid: top_k: Input should be greater than 0."),
    Unauthorized("This API key is not known here, or no longer."),
    UnknownVersion("cnn has no version 7 in service; it has 1, 2."),
    RequestTimeout("The body took longer than 10 seconds to come."),
    TooLarge("The picture has 20000 × 20000 pixels; at most 50,000,000 are taken. Send it smaller."),
    UnsupportedMediaType("PDF is not taken. Send JPEG, PNG, WebP, GIF, BMP or TIFF."),
    Unprocessable("The text is empty."),
    Overloaded("1,024 items wait for cnn already.", retry_after=1),
    Unavailable("cnn is not ready: no version is ready yet.", retry_after=1),
    DeadlineExceeded("There was no answer within 10 seconds."),
)
BINARY = {"schema": {"type": "string", "format": "binary"}}


IMAGE_EXPLANATION = {
    "label": "cat",
    "score": 3.25,
    "attribution": [[0.5, 1.25], [-0.25, 1.75]],
    "area": {"left": 0.125, "top": 0, "width": 0.75, "height": 1},
}
TEXT_EXPLANATION = {
    "label": "positive",
    "score": 3.25,
    "tokens": [
        {"token": "a", "start": 0, "end": 1, "attribution": -0.05},
        {"token": "funny", "start": 2, "end": 7, "attribution": 2.5},
        {"token": "film", "start": 8, "end": 12, "attribution": 0.8},
    ],
}
SERVER_TIMING = {
    "description": "Milliseconds of each stage: `read` the body, `turn` (where it had to wait for one), `decode`, "
    "`queue`, `predict`, and for explanations `explain_queue` and `explain`; of many items the longest. `total` is "
    "from the headers to the answer.",
    "schema": {"type": "string"},
    "example": "read;dur=0.3, decode;dur=0.9, queue;dur=0.1, predict;dur=2.4, total;dur=4.1",
}


def classify_routes(image: Endpoint | None, text: Endpoint | None, settings: Settings) -> APIRouter:
    """The classify endpoints, for as many of the two models as there are. They read the query themselves."""
    router = APIRouter(tags=["classify"])
    if image is not None:

        async def classify_image(request: Request) -> Response:
            """Classify one or many pictures."""
            return await _classify(request, image, settings)

        router.add_api_route(
            image.path,
            classify_image,
            methods=["POST"],
            operation_id="classify_image",
            openapi_extra={"parameters": _parameters(ImageOptions), "requestBody": _image_body(settings)},
            responses=_answers(
                image.classifier.model.name, [("cat", 0.93), ("dog", 0.04), ("frog", 0.01)], IMAGE_EXPLANATION
            ),
        )

    if text is not None:

        async def classify_text(request: Request) -> Response:
            """Classify one or many texts."""
            return await _classify(request, text, settings)

        router.add_api_route(
            text.path,
            classify_text,
            methods=["POST"],
            operation_id="classify_text",
            openapi_extra={"parameters": _parameters(Options), "requestBody": _text_body(settings)},
            responses=_answers(text.classifier.model.name, [("positive", 0.97), ("negative", 0.03)], TEXT_EXPLANATION),
        )

    return router


def _parameters(options: type[Options]) -> list[dict[str, Any]]:
    """What OpenAPI says of the query."""
    properties: dict[str, dict[str, Any]] = options.model_json_schema()["properties"]
    return [
        {"name": name, "in": "query", "required": False, "description": schema.pop("description"), "schema": schema}
        for name, schema in properties.items()
    ]


def _image_body(settings: Settings) -> dict[str, Any]:
    files = {"type": "array", "minItems": 1, "maxItems": settings.max_items, "items": BINARY["schema"]}
    form = {
        "title": "Pictures",
        "type": "object",
        "required": ["file"],
        "additionalProperties": False,
        "properties": {"file": files},
    }
    return {
        "description": "The picture's bytes (any `image/*` is taken for `application/octet-stream`), or a form with "
        "one or many files.",
        "required": True,
        "content": {"application/octet-stream": BINARY, "multipart/form-data": {"schema": form}},
    }


def _text_body(settings: Settings) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": settings.max_text_characters}
    texts = {"type": "array", "minItems": 1, "maxItems": settings.max_items, "items": {"type": "string"}}
    schemas = [
        {
            "title": title,
            "type": "object",
            "required": [name],
            "additionalProperties": False,
            "properties": {name: schema},
        }
        for title, name, schema in (("OneText", "text", text), ("ManyTexts", "texts", texts))
    ]
    examples = {
        "one": {"value": {"text": "A warm, funny film, and the cast enjoys every minute of it."}},
        "many": {"value": {"texts": ["Charming from start to end.", "Two hours that nobody gives me back."]}},
    }
    return {
        "description": "JSON; `text/plain` in UTF-8 is taken, too.",
        "required": True,
        "content": {"application/json": {"schema": {"oneOf": schemas}, "examples": examples}},
    }


def _answers(
    model_name: str, best: Sequence[tuple[str, float]], explanation: dict[str, Any]
) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the answers; `best` and `explanation` are what the examples name."""
    predictions = [{"label": label, "score": score} for label, score in best]
    answer = {**predictions[0], "predictions": predictions}
    model = {"name": model_name, "version": 2}
    problem = Unprocessable("The text is empty.").document()
    examples = {
        "one": {"value": {**answer, "model": model}},
        "many": {"value": {"results": [answer, {"problem": problem}], "model": model}},
        "explained": {"value": {**answer, "explanation": explanation, "model": model}},
    }
    headers = {"Server-Timing": SERVER_TIMING}
    content = {"application/json": {"examples": examples}}
    ok = {
        "description": "The labels, best first.",
        "model": SingleAnswer | ManyAnswers,
        "content": content,
        "headers": headers,
    }
    return {200: ok, **ERRORS}


async def _classify(request: Request, endpoint: Endpoint, settings: Settings) -> Response:
    request.scope["state"]["model"] = endpoint.classifier.model.name
    asked = query(request, endpoint.options)
    with deadline_of(request, settings.deadline_seconds) as deadline:
        endpoint.classifier.check(deadline.at, is_large_picture=announces_large_picture(request))
        items = await endpoint.read(request, max_items=settings.max_items)
        deadline.body_has_come()
        return await endpoint.answer(request.scope, asked, items, deadline)

"""`POST /classify-image` and `POST /classify-text`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from serving.batching import Stages
from serving.classification import Classification, Classifier, Wanted
from serving.http.errors import documented
from serving.http.requests import Items, check_query, read_images, read_texts, request_timeout
from serving.http.schemas import ImageOptions, ManyAnswers, Options, SingleAnswer
from serving.problems import (
    BadRequest,
    DeadlineExceeded,
    Overloaded,
    Problem,
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
    "description": "Milliseconds of each stage: `read` the body, `decode`, `queue`, `predict`, and for explanations "
    "`explain_queue` and `explain`; of many items the longest. `total` is from the headers to the answer.",
    "schema": {"type": "string"},
    "example": "read;dur=0.3, decode;dur=0.9, queue;dur=0.1, predict;dur=2.4, total;dur=4.1",
}


def classify_routes(image: Classifier | None, text: Classifier | None, settings: Settings) -> APIRouter:
    """The classify endpoints, for as many of the two models as there are."""
    router = APIRouter(tags=["classify"])
    if image is not None:
        answers = _answers(image, [("cat", 0.93), ("dog", 0.04), ("frog", 0.01)], IMAGE_EXPLANATION)

        @router.post(
            "/classify-image",
            operation_id="classify_image",
            openapi_extra={"requestBody": _image_body(settings)},
            responses=answers,
        )
        async def classify_image(request: Request, options: Annotated[ImageOptions, Query()]) -> Response:
            """Classify one or many pictures."""
            return await _classify(request, options, image, settings, read_images, overlay=options.overlay)

    if text is not None:
        answers = _answers(text, [("positive", 0.97), ("negative", 0.03)], TEXT_EXPLANATION)

        @router.post(
            "/classify-text",
            operation_id="classify_text",
            openapi_extra={"requestBody": _text_body(settings)},
            responses=answers,
        )
        async def classify_text(request: Request, options: Annotated[Options, Query()]) -> Response:
            """Classify one or many texts."""
            return await _classify(request, options, text, settings, read_texts)

    return router


def _image_body(settings: Settings) -> dict[str, Any]:
    files = {"type": "array", "minItems": 1, "maxItems": settings.max_items, "items": BINARY["schema"]}
    form = {"type": "object", "required": ["file"], "additionalProperties": False, "properties": {"file": files}}
    content = {"image/*": BINARY, "application/octet-stream": BINARY, "multipart/form-data": {"schema": form}}
    return {"required": True, "content": content}


def _text_body(settings: Settings) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": settings.max_text_characters}
    texts = {"type": "array", "minItems": 1, "maxItems": settings.max_items, "items": {"type": "string"}}
    schemas = [
        {"type": "object", "required": [name], "additionalProperties": False, "properties": {name: schema}}
        for name, schema in {"text": text, "texts": texts}.items()
    ]
    examples = {
        "one": {"value": {"text": "A warm, funny film, and the cast enjoys every minute of it."}},
        "many": {"value": {"texts": ["Charming from start to end.", "Two hours that nobody gives me back."]}},
    }
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {"oneOf": schemas}, "examples": examples},
            "text/plain": {"schema": text, "example": "A warm, funny film."},
        },
    }


def _answers(
    classifier: Classifier, best: Sequence[tuple[str, float]], explanation: dict[str, Any]
) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the answers; `best` and `explanation` are what the examples name."""
    predictions = [{"label": label, "score": score} for label, score in best]
    answer = {**predictions[0], "predictions": predictions}
    model = {"name": classifier.model.name, "version": 2}
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


async def _classify(
    request: Request,
    options: Options,
    classifier: Classifier,
    settings: Settings,
    read: Callable[..., Awaitable[Items[bytes] | Items[str]]],
    *,
    overlay: bool = False,
) -> Response:
    request.state.model = classifier.model.name
    check_query(request)
    seconds = request_timeout(request, settings.deadline_seconds)
    start = perf_counter()
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        async with asyncio.timeout_at(deadline):
            items = await read(request, max_items=settings.max_items)
    except TimeoutError:
        late = f"The body took longer than {seconds:g} seconds to come."
        # a deadline of the client's own is no fault of its sending
        raise (RequestTimeout if seconds == settings.deadline_seconds else DeadlineExceeded)(late) from None
    has_come = perf_counter()
    try:
        async with asyncio.timeout_at(deadline):
            classification = await classifier.classify(
                items.raw,
                deadline=deadline,
                wanted=Wanted(options.top_k, options.explain, overlay),
                version=options.version,
                label=options.version_label,
            )
    except TimeoutError:
        raise DeadlineExceeded(f"There was no answer within {seconds:g} seconds.") from None
    request.state.version = classification.version.number
    document = _document(classifier.model.name, classification, many=items.many)
    stages = {"read": has_come - start, **classification.stages, "total": perf_counter() - start}
    return JSONResponse(document, headers={"Server-Timing": _server_timing(stages)})


def _server_timing(stages: Stages) -> str:
    """Seconds → the header's milliseconds (W3C Server Timing): browsers' tools draw them."""
    return ", ".join(f"{stage};dur={1000 * seconds:.2f}" for stage, seconds in stages.items())


def _document(model: str, classification: Classification, *, many: bool) -> dict[str, Any]:
    answered_by = {"name": model, "version": classification.version.number}
    if many:
        results = [
            {"problem": outcome.document()} if isinstance(outcome, Problem) else outcome
            for outcome in classification.outcomes
        ]
        return {"results": results, "model": answered_by}
    (outcome,) = classification.outcomes
    if isinstance(outcome, Problem):
        raise outcome
    return {**outcome, "model": answered_by}

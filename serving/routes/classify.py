"""`POST /classify-image` and `POST /classify-text`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from serving.classification import Classification, Classifier
from serving.problems import BadRequest, DeadlineExceeded, Problem
from serving.requests import Items, read_images, read_texts, request_timeout
from serving.schemas import ManyAnswers, Options, ProblemDocument, SingleAnswer
from serving.settings import Settings

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": {"application/problem+json": {}}, "model": ProblemDocument}
    for status, description in {
        400: "Malformed JSON or multipart, or a bad query.",
        404: "No such model version or label.",
        413: "The body, the picture or the list is over its limit.",
        415: "The media type or picture format is not on the allow-list.",
        422: "The bytes do not decode, or the text is empty or over-long.",
        429: "A queue is full; Retry-After says when to try again.",
        503: "No version is ready, or the model server cannot be reached.",
        504: "The deadline passed.",
    }.items()
}
ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": SingleAnswer | ManyAnswers}, **ERRORS}

IMAGE_BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
    },
}
TEXT_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "oneOf": [
                    {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
                    {
                        "type": "object",
                        "required": ["texts"],
                        "properties": {"texts": {"type": "array", "items": {"type": "string"}}},
                    },
                ]
            },
            "example": {"text": "A warm, funny film with a cast that enjoys every minute."},
        },
        "text/plain": {"schema": {"type": "string"}},
    },
}


def classify_routes(image: Classifier | None, text: Classifier | None, settings: Settings) -> APIRouter:
    """The classify endpoints, for as many of the two models as there are."""
    router = APIRouter(tags=["classify"], responses=ANSWERS)
    if image is not None:
        _add(router, "/classify-image", image, settings, read=read_images, body=IMAGE_BODY)
    if text is not None:
        _add(router, "/classify-text", text, settings, read=read_texts, body=TEXT_BODY)
    return router


def _add(
    router: APIRouter,
    path: str,
    classifier: Classifier,
    settings: Settings,
    *,
    read: Callable[..., Awaitable[Items[bytes] | Items[str]]],
    body: dict[str, Any],
) -> None:
    name = path.removeprefix("/").replace("-", "_")

    @router.post(path, operation_id=name, openapi_extra={"requestBody": body})
    async def classify(request: Request, options: Annotated[Options, Query()]) -> Response:
        request.state.model = classifier.model.name
        seconds = request_timeout(request, settings.deadline_seconds)
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                items = await read(request, max_items=settings.max_items)
                if options.explain:
                    raise BadRequest(f"The versions of {classifier.model.name} do not explain their answers.")
                classification = await classifier.classify(
                    items.raw,
                    deadline=deadline,
                    top_k=options.top_k,
                    version=options.version,
                    label=options.version_label,
                )
        except TimeoutError:
            raise DeadlineExceeded(f"There was no answer within {seconds:g} seconds.") from None
        request.state.version = classification.version.number
        return JSONResponse(_document(classifier.model.name, classification, many=items.many))

    classify.__doc__ = f"Classify one or many {'pictures' if 'image' in path else 'texts'}."


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

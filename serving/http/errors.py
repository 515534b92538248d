"""Every error as `application/problem+json` (RFC 9457), whoever raised it, and how OpenAPI tells of them."""

import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from serving.http.headers import header
from serving.http.requests import LONGEST_NAME, bad_query
from serving.http.schemas import InferenceError, ProblemDocument
from serving.problems import (
    BadRequest,
    InternalError,
    MethodNotAllowed,
    NotFound,
    Problem,
    TooLarge,
    UnsupportedMediaType,
)

PROBLEM_TYPE = "application/problem+json"
PROTOCOL_PATH = re.compile(r"/v2(/|$)")
"""Where the Open Inference Protocol wants every error to have a member `error`."""


def problem_response(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem as a response; `instance` names the request.

    It ends here: its traceback goes, through whose frames it would hold the body, and itself, until the collector
    comes.
    """
    problem.__traceback__ = None
    document = instance_of(problem, request.state.request_id)
    if PROTOCOL_PATH.match(request.scope["path"]):
        document["error"] = problem.detail
    headers = dict(headers or {})
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if isinstance(problem, UnsupportedMediaType) and header(request.scope, b"content-encoding"):
        headers["Accept-Encoding"] = "identity"  # RFC 9110, 15.5.16
    return JSONResponse(document, problem.status, headers, media_type=PROBLEM_TYPE)


def instance_of(problem: Problem, request_id: str) -> dict[str, str | int]:
    """The problem's document; its `instance` names the request."""
    return problem.document() | {"instance": f"urn:request:{request_id}"}


def defect() -> Problem:
    """What a client is told of an exception that nobody foresaw."""
    return InternalError("This is a defect of the service; its log knows the request.")


def disconnected() -> Problem:
    """What the log is told of a client that went away: nobody reads the answer, and the status is not ours to blame."""
    return BadRequest("The connection was closed before the body had come.")


def documented(*examples: Problem, protocol: bool = False) -> dict[int | str, dict[str, Any]]:
    """What an endpoint's `responses` say of the problems it may answer with, one example each.

    Args:
        examples: the problems.
        protocol: the endpoint is one of the Open Inference Protocol.
    """
    return {
        problem.status: {
            "description": problem.__doc__,
            "model": InferenceError if protocol else ProblemDocument,
            "content": {
                PROBLEM_TYPE: {
                    "example": problem.document()
                    | {"instance": "urn:request:4a5f"}
                    | ({"error": problem.detail} if protocol else {})
                }
            },
            "headers": {"X-Request-ID": {"schema": {"type": "string"}, "required": True}}
            | (
                {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}, "required": True}}
                if problem.retry_after is not None
                else {}
            ),
        }
        for problem in examples
    }


def install_error_handlers(app: FastAPI) -> None:
    """Let every error of an application end as a problem document; a defect is the middleware's to tell."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> Response:
        return problem_response(request, problem)

    @app.exception_handler(RequestValidationError)
    async def on_bad_query(request: Request, error: RequestValidationError) -> Response:
        faults = [{**fault, "loc": fault["loc"][1:]} for fault in error.errors()]
        return problem_response(request, bad_query(faults))

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        problem: Problem
        match error.status_code:
            case HTTPStatus.NOT_FOUND:
                problem = NotFound("Nothing is at this path. /docs shows what there is.")
            case HTTPStatus.METHOD_NOT_ALLOWED:
                allowed = (error.headers or {}).get("Allow", "another method")
                problem = MethodNotAllowed(f"This path takes {allowed}, not {request.method[:LONGEST_NAME]}.")
            case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                problem = TooLarge(error.detail)
            case _:
                problem = BadRequest(error.detail)
        return problem_response(request, problem, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def on_defect(request: Request, _: Exception) -> Response:
        return problem_response(request, defect())

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(request: Request, _: ClientDisconnect) -> Response:
        return problem_response(request, disconnected())

"""Every error as `application/problem+json` (RFC 9457), whoever raised it, and how OpenAPI tells of them."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from serving.http.requests import LONGEST_NAME
from serving.http.schemas import ProblemDocument
from serving.problems import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    Problem,
    TooLarge,
    UnsupportedMediaType,
)

PROBLEM_TYPE = "application/problem+json"


def problem_response(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem as a response; `instance` names the request."""
    document = problem.document() | {"instance": f"urn:request:{request.state.request_id}"}
    headers = dict(headers or {})
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if isinstance(problem, UnsupportedMediaType) and "content-encoding" in request.headers:
        headers["Accept-Encoding"] = "identity"  # RFC 9110, 15.5.16
    return JSONResponse(document, problem.status, headers, media_type=PROBLEM_TYPE)


def documented(*examples: Problem) -> dict[int | str, dict[str, Any]]:
    """What an endpoint's `responses` say of the problems it may answer with, one example each."""
    return {
        problem.status: {
            "description": problem.__doc__,
            "model": ProblemDocument,
            "content": {PROBLEM_TYPE: {"example": problem.document() | {"instance": "urn:request:4a5f"}}},
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
        faults = [
            f"{'.'.join(str(where)[:LONGEST_NAME] for where in fault['loc'][1:]) or 'query'}: "
            + fault["msg"].removeprefix("Value error, ")
            for fault in error.errors()[:3]
        ]
        return problem_response(request, BadRequest(f"The query is not valid: {'; '.join(faults)}."))

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

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(request: Request, _: ClientDisconnect) -> Response:
        # nobody reads it; the log line gets a status that is not ours to blame
        return problem_response(request, BadRequest("The connection was closed before the body had come."))

    _let_openapi_tell_of_problems(app)


def _let_openapi_tell_of_problems(app: FastAPI) -> None:
    """FastAPI documents every model under the media type of the answers, and a 422 of its own that never comes."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            for status, response in list(operation["responses"].items()):
                content = response.get("content", {})
                if PROBLEM_TYPE in content and "application/json" in content:
                    content[PROBLEM_TYPE] |= content.pop("application/json")
                elif "HTTPValidationError" in str(content):
                    del operation["responses"][status]
        for model in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(model, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]

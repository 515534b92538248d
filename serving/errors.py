"""Every error as `application/problem+json` (RFC 9457), whoever raised it."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from serving.problems import BadRequest, InternalError, MethodNotAllowed, NotFound, Problem

logger = logging.getLogger("sightread.errors")


def problem_response(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem as a response; `instance` names the request."""
    document = problem.document() | {"instance": f"urn:request:{request.state.request_id}"}
    if problem.retry_after is not None:
        headers = {**(headers or {}), "Retry-After": str(problem.retry_after)}
    return JSONResponse(document, problem.status, headers, media_type="application/problem+json")


def install_error_handlers(app: FastAPI) -> None:
    """Let every error of an application end as a problem document."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> Response:
        return problem_response(request, problem)

    @app.exception_handler(RequestValidationError)
    async def on_bad_query(request: Request, error: RequestValidationError) -> Response:
        faults = [
            f"{'.'.join(str(where) for where in fault['loc'][1:]) or 'query'}: {fault['msg']}"
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
                problem = MethodNotAllowed(f"This path takes {allowed}, not {request.method}.")
            case _:
                problem = BadRequest(error.detail)
        return problem_response(request, problem, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(request: Request, _: ClientDisconnect) -> Response:
        # nobody reads it; the log line gets a status that is not ours to blame
        return problem_response(request, BadRequest("The connection was closed before the body had come."))

    @app.exception_handler(Exception)
    async def on_defect(request: Request, error: Exception) -> Response:
        logger.error("defect", exc_info=error, extra={"request_id": request.state.request_id})
        return problem_response(request, InternalError("This is a defect of the service; its log knows the request."))

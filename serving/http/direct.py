"""The way of the endpoints that are asked most: past FastAPI's routing and dependencies, which would cost more."""

from collections.abc import Sequence

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http.errors import disconnected, problem_response
from serving.problems import Problem


class Direct:
    """Calls the endpoints of some routes by itself and hands on all else. Plain ASGI.

    Args:
        app: answers all else; it has the same routes, to describe them.
        routes: their endpoints take the request, and nothing more.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._endpoints = {(method, route.path): route.endpoint for route in routes for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await endpoint(request)
        except Problem as problem:
            response = problem_response(request, problem)
        except ClientDisconnect:
            response = problem_response(request, disconnected())
        await response(scope, receive, send)

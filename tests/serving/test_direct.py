"""The way of the classify endpoints past FastAPI."""

import asyncio
import gc
import weakref
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from serving.http.direct import Direct
from serving.http.middleware import RequestRecord
from serving.metrics import Metrics
from serving.problems import Unprocessable


class Body:
    """A client's, of which it can be seen when it is gone."""


def test_a_refused_body_is_gone_with_its_answer() -> None:
    bodies: list[weakref.ref[Body]] = []

    async def refuse(_: Request) -> Response:
        body = Body()
        bodies.append(weakref.ref(body))
        # as an outcome is raised once all items are done: the frame, the body in it, and the problem hold each other
        outcome = Unprocessable("no picture")
        raise outcome

    async def nothing(*_: Any) -> None:
        pytest.fail("it has a route")

    app = RequestRecord(Direct(nothing, routes=[APIRoute("/classify", refuse, methods=["POST"])]), metrics=Metrics())

    async def ask() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return [(await client.post("/classify")).status_code for _ in range(3)]

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(ask()) == [422] * 3
        assert [body() for body in bodies] == [None] * 3
    finally:
        gc.enable()

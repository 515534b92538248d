"""What stands around every request holds when the inside fails."""

import asyncio

import httpx

from serving.http.middleware import RequestRecord
from serving.metrics import Metrics


def test_a_defect_is_a_500_with_an_id_that_is_counted_and_says_nothing_of_the_inside() -> None:
    metrics = Metrics()

    async def broken(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    app = RequestRecord(broken, metrics=metrics)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return await client.get("/", headers={"X-Request-ID": "abc"})

    response = asyncio.run(ask())
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Request-ID"] == "abc"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "secret" not in response.text
    assert b'sightread_requests_total{code="500",model="",version=""} 1.0' in metrics.page()

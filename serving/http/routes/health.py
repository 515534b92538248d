"""`/livez`, `/healthz`, `/readyz` and `/metrics`: for those who run it."""

from collections.abc import Collection
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, PlainTextResponse, Response

from serving.http.schemas import Readiness
from serving.metrics import Metrics
from serving.versions import Model


def health_routes(models: Collection[Model], metrics: Metrics) -> APIRouter:
    """The probes and the metrics page."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    @router.get("/livez")
    async def live() -> dict[str, str]:
        """Whether this process answers. It asks nobody else: a restart would not mend a model server."""
        return {"status": "alive"}

    not_ready = {"description": "A model has no version that takes traffic.", "model": Readiness}

    @router.get("/readyz", responses={200: {"model": Readiness}, 503: not_ready})
    async def ready() -> Response:
        """Whether every model has a proven version; if not, why."""
        described: list[dict[str, Any]] = [model.describe() for model in models]
        is_ready = all(model["ready"] for model in described)
        return JSONResponse({"ready": is_ready, "models": described}, 200 if is_ready else 503)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    return router

"""`/livez`, `/healthz`, `/readyz` and `/metrics`: for those who run it."""

from collections.abc import Collection
from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, PlainTextResponse, Response

from serving.http.errors import documented
from serving.http.openapi import GUARDED, answer
from serving.http.schemas import Liveness, Readiness
from serving.metrics import Metrics
from serving.stopping import Stopping
from serving.versions import Model

READY = answer(
    Readiness,
    {
        "ready": True,
        "models": [
            {
                "name": "cnn",
                "kind": "image",
                "ready": True,
                "serving": 2,
                "versions": [{"version": 1, "state": "proven"}, {"version": 2, "state": "proven"}],
            }
        ],
    },
    "A version takes traffic, and each model has, or had, one.",
)
NOT_READY = answer(
    Readiness,
    {
        "ready": False,
        "models": [
            {
                "name": "cnn",
                "kind": "image",
                "ready": False,
                "serving": None,
                "reason": "no version is ready yet",
                "versions": [{"version": 1, "state": "loading"}],
            }
        ],
    },
    "No version takes traffic, or a model has not had one yet.",
)
PAGE = {
    "description": "Counters, histograms and gauges.",
    "content": {"text/plain": {"example": 'sightread_version_proven{model="cnn",version="2"} 1.0'}},
}


def health_routes(models: Collection[Model], stopping: Stopping, metrics: Metrics) -> APIRouter:
    """The probes and the metrics page."""
    router = APIRouter(tags=["health"])

    alive = {"status": "alive"}

    @router.get("/healthz", operation_id="healthz", responses={200: answer(Liveness, alive)})
    @router.get("/livez", operation_id="livez", responses={200: answer(Liveness, alive)})
    async def live() -> Response:
        """Whether this process answers. It asks nobody else: a restart would not mend a model server."""
        return JSONResponse(alive)

    @router.get("/readyz", operation_id="readyz", responses={200: READY, 503: NOT_READY})
    async def ready() -> Response:
        """Whether every model has, or had, a proven version, one has it now, and the service goes on; if not, why."""
        described: list[dict[str, Any]] = [model.describe() for model in models]
        # a model that lost all its versions must not take from the others those who ask for them
        can_answer = all(model.has_been_ready for model in models) and any(model["ready"] for model in described)
        is_ready = can_answer and not stopping.has_begun
        reason = {"reason": "it was asked to stop"} if stopping.has_begun else {}
        return JSONResponse({"ready": is_ready, **reason, "models": described}, 200 if is_ready else 503)

    @router.get(
        "/metrics",
        operation_id="metrics",
        response_class=PlainTextResponse,
        responses={200: PAGE, **documented(*GUARDED)},
    )
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    return router

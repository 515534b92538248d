"""`GET /models` and `GET /models/{name}`: what is served, and each model's card."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from serving.http.errors import documented
from serving.http.openapi import GUARDED, answer
from serving.http.requests import check_query, shown
from serving.http.schemas import ModelCard, Models
from serving.problems import BadRequest, NotFound, Unavailable
from serving.versions import Model

ERRORS = documented(
    BadRequest("The query is not valid: version: Input should be a valid integer."),
    NotFound("There is no model 'resnet'; there are cnn, lstm."),
    Unavailable("cnn is not ready: no version is ready yet.", retry_after=1),
    *GUARDED,
)
STATE = {
    "name": "cnn",
    "kind": "image",
    "ready": True,
    "serving": 2,
    "versions": [
        {"version": 1, "state": "proven"},
        {"version": 2, "state": "proven"},
        {"version": 3, "state": "refused", "reason": "golden example 0 (cat) is off by 0.3 and called dog"},
    ],
}
CARD = {
    **STATE,
    "version": 2,
    "contract": {
        "schema": 1,
        "kind": "image",
        "labels": ["cat", "dog"],
        "input": {"name": "image", "dtype": "uint8", "height": 32, "width": 32, "channels": 3},
        "evaluation": {"dataset": "photos, test", "examples": 1000, "accuracy": 0.91},
    },
}


def model_routes(models: Mapping[str, Model]) -> APIRouter:
    """The endpoints that tell of the models."""
    router = APIRouter(tags=["models"])

    @router.get(
        "/models",
        operation_id="list_models",
        responses={200: answer(Models, {"models": [STATE]}), **documented(*GUARDED)},
    )
    async def list_models() -> Response:
        """Every model, its versions and their states; a version that takes no traffic says why."""
        return JSONResponse({"models": [model.describe() for model in models.values()]})

    @router.get("/models/{name}", operation_id="model_card", responses={200: answer(ModelCard, CARD), **ERRORS})
    async def model_card(
        request: Request,
        name: Annotated[str, Path(examples=list(models))],
        version: Annotated[int | None, Query(description="Another version than the current one.")] = None,
    ) -> Response:
        """One model, and the contract of the version that answers: how it was made and how well it does."""
        check_query(request.query_params.multi_items())
        if name not in models:
            raise NotFound(f"There is no model {shown(name)}; there are {', '.join(models) or 'none'}.")
        model = models[name]
        chosen = await model.choose(version)
        return JSONResponse({**model.describe(), "version": chosen.number, "contract": chosen.contract.card()})

    return router

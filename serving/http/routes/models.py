"""`GET /models` and `GET /models/{name}`: what is served, and each model's card."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from serving.http.errors import documented
from serving.http.requests import check_query, shown
from serving.http.schemas import ModelCard, Models
from serving.problems import BadRequest, NotFound, Overloaded, Unauthorized, Unavailable
from serving.versions import Model

GUARDED = (
    Unauthorized("This API key is not known here, or no longer."),
    Overloaded("The address 192.0.2.1 is over its rate of 100 per 1 second.", retry_after=1),
)
ERRORS = documented(
    BadRequest("The query is not valid: version: Input should be a valid integer."),
    NotFound("There is no model 'resnet'; there are cnn, lstm."),
    Unavailable("cnn is not ready: no version is ready yet.", retry_after=1),
    *GUARDED,
)


def model_routes(models: Mapping[str, Model]) -> APIRouter:
    """The endpoints that tell of the models."""
    router = APIRouter(tags=["models"])

    @router.get("/models", responses={200: {"model": Models}, **documented(*GUARDED)})
    async def list_models() -> Response:
        """Every model, its versions and their states; a version that takes no traffic says why."""
        return JSONResponse({"models": [model.describe() for model in models.values()]})

    @router.get("/models/{name}", responses={200: {"model": ModelCard}, **ERRORS})
    async def model_card(
        request: Request,
        name: Annotated[str, Path(examples=list(models))],
        version: Annotated[int | None, Query(description="Another version than the current one.")] = None,
    ) -> Response:
        """One model, and the contract of the version that answers: how it was made and how well it does."""
        check_query(request)
        if name not in models:
            raise NotFound(f"There is no model {shown(name)}; there are {', '.join(models) or 'none'}.")
        model = models[name]
        chosen = await model.choose(version)
        return JSONResponse({**model.describe(), "version": chosen.number, "contract": chosen.contract.card()})

    return router

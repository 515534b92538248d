"""`GET /models` and `GET /models/{name}`: what is served, and each model's card."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query

from serving.problems import NotFound
from serving.versions import Model


def model_routes(models: Mapping[str, Model]) -> APIRouter:
    """The endpoints that tell of the models."""
    router = APIRouter(tags=["models"])

    @router.get("/models")
    async def list_models() -> dict[str, Any]:
        """Every model, its versions and their states; a version that takes no traffic says why."""
        return {"models": [model.describe() for model in models.values()]}

    @router.get("/models/{name}")
    async def model_card(
        name: str, version: Annotated[int | None, Query(description="Another version than the current one.")] = None
    ) -> dict[str, Any]:
        """One model, and the contract of the version that answers: how it was made and how well it does."""
        if name not in models:
            raise NotFound(f"There is no model {name!r}; there are {', '.join(models) or 'none'}.")
        model = models[name]
        chosen = await model.choose(version)
        return {**model.describe(), "version": chosen.number, "contract": chosen.contract.card()}

    return router

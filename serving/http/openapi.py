"""What FastAPI leaves to be said in /openapi.json: which errors really come, and the schemas of bodies read by hand."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from serving.http.errors import PROBLEM_TYPE
from serving.problems import Overloaded, Unauthorized

COMPONENT = "#/components/schemas/{model}"
"""How a schema refers to another one."""
GUARDED = (
    Unauthorized("This API key is not known here, or no longer."),
    Overloaded("The address 192.0.2.1 is over its rate of 100 per 1 second.", retry_after=1),
)
"""What every endpoint that is guarded may answer."""


def answer(model: type[BaseModel], example: dict[str, Any], description: str = "As asked.") -> dict[str, Any]:
    """What an endpoint's `responses` say of an answer."""
    return {"description": description, "model": model, "content": {"application/json": {"example": example}}}


def complete_openapi(app: FastAPI) -> None:
    """Make the document one from which clients can be generated."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            _tell_of_problems(operation["responses"])
            for body in operation.get("requestBody", {}).get("content", {}).values():
                body["schema"] = _named(body["schema"], schemas)
        for model in ("HTTPValidationError", "ValidationError"):
            schemas.pop(model, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _tell_of_problems(responses: dict[str, Any]) -> None:
    """FastAPI documents every model under the media type of the answers, and a 422 of its own that never comes."""
    for status, response in list(responses.items()):
        content = response.get("content", {})
        if PROBLEM_TYPE in content:
            for answers in content.keys() - {PROBLEM_TYPE}:
                content[PROBLEM_TYPE] |= content.pop(answers)
        elif "HTTPValidationError" in str(content):
            del responses[status]


def _named(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a body, referring to components: what stands in line gets a made-up name in generated clients."""
    schemas |= schema.pop("$defs", {})
    if "oneOf" in schema:
        return {"oneOf": [_named(one, schemas) for one in schema["oneOf"]]}
    if "title" not in schema:
        return schema
    schemas[schema["title"]] = schema
    return {"$ref": COMPONENT.format(model=schema["title"])}

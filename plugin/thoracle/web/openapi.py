"""What `/api/openapi.json` says: the interfaces for programs, with every answer that they give."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field


class Refusal(BaseModel):
    """Why something was refused."""

    detail: str = Field(description="What was found, and what is required.")


MALFORMED: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The body is no JSON, or what is required is missing."}
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Refusal, "description": "No valid token, and nobody is signed in."},
    403: {"model": Refusal, "description": "The token has no such scope, or its person no role."},
    422: {"model": Refusal, "description": "A value cannot be used; its field is named."},
}
"""Answers that every interface has; without them FastAPI describes a 422 that is not ours."""
_TOKEN = {"type": "http", "scheme": "bearer", "description": "An API token (docs/people.md)."}
_OPEN = "/healthz"


def describe(app: FastAPI) -> None:
    """Have an application describe itself, with the token that all of it wants."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            found["components"]["securitySchemes"] = {"token": _TOKEN}
            for path, operations in found["paths"].items():
                for operation in operations.values():
                    operation["security"] = [] if path == _OPEN else [{"token": []}]
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # as FastAPI's documentation does it

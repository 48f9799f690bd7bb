"""The OpenAPI document: FastAPI's, with the bodies that it does not parse itself.

python -m api.openapi            # writes docs/openapi.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api.schemas.jobs import JobEdit
from api.schemas.operation import KeyWanted
from api.schemas.problem import ProblemBody
from core.spec import JobSpec

FILE = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"
KEY_SCHEME = {
    "type": "http",
    "description": "A key made by `epochd keys create`.",
    "scheme": "bearer",
    "bearerFormat": "epk_…",
}
NAMED_ONLY = ("Component", "LossTerm")
"""Components without arguments may be just their name."""


def document(app: FastAPI) -> dict[str, Any]:
    """Return the document, made once per application."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
        )
        schemas: dict[str, Any] = found["components"]["schemas"]
        for model in (JobSpec, JobEdit, KeyWanted, ProblemBody):
            schemas.update(_definitions(model))
        for name in NAMED_ONLY:
            schemas[name] = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 200}, schemas[name]]}
        _without_validation_errors(found)
        _with_keys(found)
        found["components"]["schemas"] = dict(sorted(schemas.items()))
        app.openapi_schema = found
    return app.openapi_schema


def text(app: FastAPI) -> str:
    """Return the document as it is committed."""
    return json.dumps(document(app), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the document to `docs/openapi.json`, or where `--out` says."""
    from api.app import create_app
    from core.settings import Settings

    parser = argparse.ArgumentParser(description="Write the OpenAPI document.")
    parser.add_argument("--out", type=Path, default=FILE)
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text(create_app(Settings())), encoding="utf-8")


def _definitions(model: type[BaseModel]) -> dict[str, Any]:
    mode = "serialization" if model is ProblemBody else "validation"
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode=mode)
    nested = schema.pop("$defs", {})
    return {**nested, model.__name__: schema}


def _without_validation_errors(found: dict[str, Any]) -> None:
    """Take FastAPI's own 422 away where a route did not document one: parameters out of range are a 400 here."""
    for operations in found["paths"].values():
        for operation in operations.values():
            answer = operation["responses"].get("422")
            if answer is not None and "HTTPValidationError" in json.dumps(answer):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        found["components"]["schemas"].pop(name, None)


def _with_keys(found: dict[str, Any]) -> None:
    """Say of the routes that may answer 401 that they take a key."""
    found["components"]["securitySchemes"] = {"HTTPBearer": KEY_SCHEME}
    for operations in found["paths"].values():
        for operation in operations.values():
            if "401" in operation["responses"]:
                operation["security"] = [{"HTTPBearer": []}]


if __name__ == "__main__":
    main()

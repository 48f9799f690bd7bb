"""The example jobs, shown where a spec is asked for."""

import json
from pathlib import Path
from typing import Any

from core.spec import JobSpec

_ROOT = Path(__file__).resolve().parent.parent


def folder() -> Path:
    """Return the folder of the examples: below `core` in an installed wheel, at the top of a checkout."""
    packed = _ROOT / "core" / "examples"
    return packed if packed.is_dir() else _ROOT / "examples"


def spec_body() -> dict[str, Any]:
    """Return what documents a route whose body is a job spec, which `core.spec` parses and FastAPI does not."""
    examples = {
        path.stem: {"summary": path.stem.replace("-", " "), "value": json.loads(path.read_text(encoding="utf-8"))}
        for path in sorted(folder().glob("*.json"))
    }
    schema = {"$ref": f"#/components/schemas/{JobSpec.__name__}"}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}
    }

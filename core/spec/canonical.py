"""A spec as JSON again, and the digest that says whether two specs compute the same."""

import hashlib
import json
from typing import Any

from core.spec.job import Component, JobSpec

NOT_IN_DIGEST = frozenset({"name", "metadata", "execution"})
"""What names a job or says how it runs, but not what it computes."""


def component(value: Component | str | dict[str, Any]) -> Component:
    """Return a component of either spelling, `"ReLU"` or `{"type": "ReLU"}`, as a `Component`."""
    if isinstance(value, Component):
        return value
    return Component.model_validate({"type": value} if isinstance(value, str) else value)


def to_json(spec: JobSpec) -> dict[str, Any]:
    """Return the spec as plain JSON with the values that were posted; defaults are left out."""
    return spec.model_dump(mode="json", by_alias=True, exclude_unset=True)


def digest(spec: JobSpec) -> str:
    """Return the SHA-256 of the canonical spec without `name`, `metadata` and `execution`, in hexadecimal.

    Equal for a default that is posted and one that is left out, for `"ReLU"` and `{"type": "ReLU"}`, for 1 and 1.0,
    and for any order of keys.
    """
    body = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(NOT_IN_DIGEST))
    text = json.dumps(_canonical(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"type"}:
            return value["type"]
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    # As RFC 8785 writes numbers: 1.0 is 1 (floats above 2**53 are integers anyway and keep their spelling).
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value

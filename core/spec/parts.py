"""The objects of a spec: which model stands at which path. Derived from the types of `JobSpec`, not listed."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from core.spec.job import Component, JobSpec

Place = tuple[str, ...]
"""A path of field names as they are posted, without the indices of lists."""


def parts() -> dict[Place, type[BaseModel]]:
    """Return the model of the object at each path, in the order of the fields.

    Bare components are left out: their arguments stand in the catalog.
    """
    return dict(_inside(JobSpec, ()))


def _inside(model: type[BaseModel], place: Place) -> Iterator[tuple[Place, type[BaseModel]]]:
    yield place, model
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            yield from _inside(inner, (*place, field.alias or name))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a field's type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not Component:
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)

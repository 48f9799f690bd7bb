"""The spec with every default and every inferred size: what will run, written out."""

import inspect
import re
from functools import lru_cache
from types import ModuleType
from typing import Any

from torch import nn, optim
from torch.optim import lr_scheduler

from core.spec import catalog, mode_of
from core.spec.job import JobSpec
from core.train.build.lr_schedulers import with_numbers
from core.train.build.model import Inferred
from core.train.build.vision import PREFIX
from core.train.components import as_json, component_of
from core.train.preflight import monitors
from core.train.preflight.counting import Counts
from core.train.task import Task

_PARTS = ("gradient_clipping", "swa", "early_stopping", "validate_every", "execution")
_HOMES: dict[str, ModuleType] = {
    "layers": nn,
    "losses": nn,
    "optimizers": optim,
    "lr_schedulers": lr_scheduler,
    "initializers": nn.init,
}
_OURS = frozenset({"interval", "monitor"})
"""Arguments of a scheduler that torch does not know."""
_COMPONENT = re.compile(r"'x-component': '(\w+)'")


def resolve(spec: JobSpec, inferred: Inferred, job: Task, counts: Counts) -> dict[str, Any]:
    """Return a spec that parses, and that gives the same job when it is posted."""
    body = _without_nulls(spec.model_dump(mode="json", by_alias=True))
    body["task"] = job.name
    is_vision = spec.model.type.startswith(PREFIX)
    body["model"] = inferred.model if is_vision else filled(inferred.model, "models")
    body["optimizer"] = filled(as_json(spec.optimizer), "optimizers")
    losses = [filled(as_json(term), "losses") for term in (spec.loss if isinstance(spec.loss, tuple) else (spec.loss,))]
    body["loss"] = losses if isinstance(spec.loss, tuple) else losses[0]
    scheduler = with_numbers(spec, steps_per_epoch=max(1, counts.updates), epochs=spec.epochs)
    if scheduler is not None:
        if scheduler["type"] == "ReduceLROnPlateau" and "monitor" not in scheduler:
            scheduler["monitor"] = "train_loss" if counts.val is None else "val_loss"
        body["lr_scheduler"] = filled(scheduler, "lr_schedulers")
    body["metrics"] = [as_json(part) for part in monitors.wanted(spec, job)]
    if spec.early_stopping is not None and spec.early_stopping.mode is None:
        body["early_stopping"]["mode"] = mode_of(spec.early_stopping.monitor)
    return body


def _without_nulls(body: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is not there, in the spec and its parts; components keep the nulls that were posted."""
    whole = {key: value for key, value in body.items() if value is not None}
    for key in ("data", *(part for part in whole if part in _PARTS)):
        whole[key] = {name: value for name, value in whole[key].items() if value is not None}
    return whole


def filled(body: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a component with the catalog's defaults for what was left out, nested ones alike."""
    entry = catalog.find(kind, body["type"])
    made = dict(body)
    for parameter in entry.parameters if entry else ():
        if parameter.name in body:
            made[parameter.name] = _inside(body[parameter.name], str(parameter.schema))
        elif parameter.default is not None and _is_known_here(kind, body["type"], parameter.name):
            made[parameter.name] = parameter.default
    return made


@lru_cache(maxsize=4096)
def _is_known_here(kind: str, name: str, argument: str) -> bool:
    """Whether the installed torch takes an argument: the catalog may come from a later one."""
    part = getattr(_HOMES.get(kind), name, None)
    return part is None or argument in _OURS or argument in inspect.signature(part).parameters


def _inside(value: Any, schema: str) -> Any:
    kind = _COMPONENT.search(schema)
    if kind is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_inside(item, schema) for item in value]
    if isinstance(value, (str, dict)):
        return filled(as_json(component_of(value)), kind[1])
    return value

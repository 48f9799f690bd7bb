"""`torch.optim.lr_scheduler` from the spec: nested ones, and the words `epochs` and `steps` for numbers."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

from core.errors import SpecInvalid
from core.spec import mode_of
from core.spec.job import Component, JobSpec
from core.spec.pointer import join
from core.train.components import as_json, component_of, invalid, refused, torch_arguments

OURS = ("interval", "monitor")
"""Arguments that are not torch's."""
NESTING = ("SequentialLR", "ChainedScheduler")
COUNTS = ("T_max", "total_iters", "total_steps")


def lr_scheduler(spec: JobSpec, optimizer: Optimizer, *, steps_per_epoch: int, epochs: int) -> LRScheduler | None:
    """Build the scheduler; `ReduceLROnPlateau` is stepped with its monitor's value.

    Args:
        spec: whose scheduler.
        optimizer: whose rates it sets.
        steps_per_epoch: optimizer updates per epoch.
        epochs: of the job.

    Raises:
        SpecInvalid: what torch says about the arguments.
    """
    if spec.lr_scheduler is None:
        return None
    body = with_numbers(spec, steps_per_epoch=steps_per_epoch, epochs=epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints about the order of calls, for people who write the loop
        return _build(component_of(body or {}), optimizer, "/lr_scheduler")


def with_numbers(spec: JobSpec, *, steps_per_epoch: int, epochs: int) -> dict[str, Any] | None:
    """Return the scheduler as JSON with numbers for `epochs` and `steps`, and the direction that its monitor has."""
    if spec.lr_scheduler is None:
        return None
    steps = epochs * steps_per_epoch
    counts = {"epochs": epochs, "steps": steps if spec.max_steps is None else min(steps, spec.max_steps)}
    return _numbered(as_json(spec.lr_scheduler), counts)


def _numbered(body: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    made = {
        name: counts.get(value, value) if name in COUNTS and isinstance(value, str) else value
        for name, value in body.items()
    }
    if body["type"] in NESTING:
        made["schedulers"] = [_numbered(as_json(component_of(item)), counts) for item in body["schedulers"]]
    if body["type"] == "ReduceLROnPlateau" and "mode" not in body:
        made["mode"] = mode_of(body.get("monitor", "val_loss")) or "min"
    return made


def _build(component: Component, optimizer: Optimizer, pointer: str) -> LRScheduler:
    own = {name: value for name, value in component.arguments.items() if name not in OURS}
    make = getattr(torch_schedulers, component.type)
    try:
        if component.type not in NESTING:
            return make(optimizer, **torch_arguments(own))
        children = _children(component, optimizer, pointer)
        if component.type == "ChainedScheduler":
            return make(children, optimizer=optimizer)
        return make(optimizer, children, list(own["milestones"]))
    except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError, KeyError) as error:
        raise _translated(error, component, pointer) from error


def _translated(error: Exception, component: Component, pointer: str) -> SpecInvalid:
    if "total_steps OR" not in str(error):
        return SpecInvalid([refused(error, component, pointer)])
    word = "steps" if component.arguments.get("interval") == "step" else "epochs"
    at = join(pointer, "total_steps")
    fix = {"op": "add", "path": at, "value": word}
    return invalid(
        at, "missing_argument", f"{component.type} must know how long it lasts.", f'Set it to "{word}".', fix
    )


def _children(component: Component, optimizer: Optimizer, pointer: str) -> list[LRScheduler]:
    children: list[LRScheduler] = []
    for index, item in enumerate(component.arguments["schedulers"]):
        child, at = component_of(item), join(pointer, "schedulers", index)
        if child.type == "ReduceLROnPlateau":
            detail = f"ReduceLROnPlateau follows a metric; {component.type} can only hold schedulers that follow time."
            raise invalid(at, "plateau_nested", detail, "Let it stand alone.")
        children.append(_build(child, optimizer, at))
    if not children:
        raise invalid(join(pointer, "schedulers"), "empty", f"{component.type} needs at least one scheduler.")
    return children

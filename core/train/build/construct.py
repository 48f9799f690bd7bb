"""From layers of the spec, with all sizes given, to modules."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any

from torch import nn

from core.spec.job import Component
from core.train.components import component_of, torch_arguments
from core.train.build.layers import LastTimestep, Parallel, Residual, Sequence

Layers = Items[str | Mapping[str, Any]]


def layer(value: Component | str | Mapping[str, Any]) -> nn.Module:
    """Build one layer and what is nested in it.

    Raises:
        TypeError, ValueError, RuntimeError: what torch says about its arguments.
    """
    component = component_of(value)
    arguments = component.arguments
    match component.type:
        case "Sequential":
            return sequence(arguments["layers"])
        case "ext.Residual":
            return Residual(map(layer, arguments["layers"]), map(layer, arguments.get("shortcut") or ()))
        case "ext.Parallel":
            return Parallel(map(branch, arguments["branches"]))
        case "ext.LastTimestep":
            return LastTimestep()
        case name:
            return getattr(nn, name)(**_with_modules(torch_arguments(arguments)))


def sequence(layers: Layers) -> Sequence:
    """Build layers that follow each other; parameters are called as in `nn.Sequential`: `0.weight`."""
    return Sequence(*map(layer, layers))


def branch(value: Any) -> nn.Module:
    """Build a branch: one layer, or several in a list."""
    return sequence(value) if isinstance(value, (list, tuple)) else layer(value)


def _with_modules(arguments: dict[str, Any]) -> dict[str, Any]:
    """Build layers that are arguments of others, such as a TransformerEncoder's."""
    return {name: layer(value) if isinstance(value, dict) else value for name, value in arguments.items()}

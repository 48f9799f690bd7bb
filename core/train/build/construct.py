"""From layers of the spec, with all sizes given, to modules."""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import Any

from torch import nn

from core.spec.graph import order
from core.spec.job import Component
from core.train.build.layers import Add, Concatenate, Graph, LastTimestep, Multiply, Parallel, Residual, Sequence
from core.train.components import component_of, torch_arguments

Layers = Items[str | Mapping[str, Any]]
OURS: dict[str, type[nn.Module]] = {
    "ext.LastTimestep": LastTimestep,
    "ext.Add": Add,
    "ext.Multiply": Multiply,
    "ext.Concatenate": Concatenate,
}
"""Layers of our own whose arguments are plain values."""


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
        case "ext.LastTimestep" | "ext.Add" | "ext.Multiply" | "ext.Concatenate":
            return OURS[component.type](**arguments)
        case name:
            return getattr(nn, name)(**_with_modules(torch_arguments(arguments)))


def sequence(layers: Layers) -> Sequence:
    """Build layers that follow each other; parameters are called as in `nn.Sequential`: `0.weight`."""
    return Sequence(*map(layer, layers))


def graph(arguments: Mapping[str, Any]) -> Graph:
    """Build a graph's nodes in the order in which they were posted; parameters are called `<node>.weight`."""
    nodes = [dict(node) for node in arguments["nodes"]]
    return Graph(
        [(node["name"], layer(without_wiring(node)), tuple(node["inputs"])) for node in nodes],
        order=order(nodes),
        source=arguments["inputs"][0],
        output=arguments["outputs"][0],
    )


def without_wiring(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layer of a node."""
    return {name: value for name, value in node.items() if name not in ("name", "inputs")}


def branch(value: Any) -> nn.Module:
    """Build a branch: one layer, or several in a list."""
    return sequence(value) if isinstance(value, (list, tuple)) else layer(value)


def _with_modules(arguments: dict[str, Any]) -> dict[str, Any]:
    """Build layers that are arguments of others, such as a TransformerEncoder's."""
    return {name: layer(value) if isinstance(value, dict) else value for name, value in arguments.items()}

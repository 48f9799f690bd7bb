"""Walk a model's layers with a batch of two on the meta device: sizes that were left out, shapes, what does not fit.

Nothing is computed and no memory is taken. After a layer that cannot work the walk ends (`Broken`); a wrong size is
reported and the walk goes on with the right one, so that one request shows all of them.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import Issue
from core.spec import catalog
from core.spec.graph import NODES, order
from core.spec.job import Component
from core.spec.pointer import join
from core.train.build import construct
from core.train.build.expectations import (
    RECURRENT,
    SEVERAL_INPUTS,
    SOFTMAX,
    at_a_node,
    batch_is_time,
    in_a_row,
    sample_shape,
    unmet,
)
from core.train.build.flops import of_module
from core.train.build.layers import call
from core.train.build.shapes import ShapesOnly
from core.train.components import as_json, component_of, condensed, refused, torch_arguments

BATCH = 2
"""Samples of the fake batch; the least with which BatchNorm trains."""
LAST = ("in_features", "input_size", "embed_dim", "d_model", "normalized_shape")
"""Sizes that are the last dimension of what comes in."""
CHANNELS = ("in_channels", "num_features", "num_channels")
"""Sizes that are dimension 1 of what comes in."""
COMPLAINTS = (
    RuntimeError,
    TypeError,
    ValueError,
    IndexError,
    KeyError,
    AssertionError,
    NotImplementedError,
    OverflowError,
)
"""What torch raises for arguments and shapes that cannot work."""


class Broken(Exception):
    """The layers cannot be followed beyond this point; the issues say why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One layer of the table; shapes are of one sample."""

    pointer: str
    type: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    flops: float = 0.0
    """Of the forward pass of one sample."""
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])

    def as_json(self) -> dict[str, Any]:
        """Return the row as it stands on the wire."""
        return {
            "pointer": self.pointer,
            "type": self.type,
            "input_shape": list(self.input_shape),
            "output_shape": list(self.output_shape),
            "parameters": self.parameters,
        }


@contextmanager
def on_meta() -> Iterator[None]:
    """Make tensors and modules without memory; torch's hints for programmers are not shown."""
    with torch.device("meta"), ShapesOnly(), quietly():
        yield


@contextmanager
def quietly() -> Iterator[None]:
    """Compute without gradients and without torch's hints for programmers."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Walk:
    """Follows a fake batch through layers; fills `rows` and `issues` on its way."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.issues: list[Issue] = []

    def layers(self, items: Sequence[Any], pointer: str, x: Tensor) -> tuple[list[dict[str, Any]], Tensor]:
        """Walk layers that follow each other; return them with all sizes, and what comes out."""
        resolved: list[dict[str, Any]] = []
        for index, item in enumerate(items):
            body, x = self.layer(component_of(item), join(pointer, index), x)
            resolved.append(body)
        return resolved, x

    def layer(self, component: Component, pointer: str, x: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Walk one layer.

        Raises:
            Broken: it cannot take `x`.
        """
        match component.type:
            case "Sequential":
                layers, x = self.layers(component.arguments["layers"], join(pointer, "layers"), x)
                return {"type": "Sequential", "layers": layers}, x
            case "ext.Residual":
                return self._residual(component, pointer, x)
            case "ext.Parallel":
                return self._parallel(component, pointer, x)
            case _:
                return self._leaf(component, pointer, x)

    def _residual(self, component: Component, pointer: str, x: Tensor) -> tuple[dict[str, Any], Tensor]:
        arguments = component.arguments
        layers, made = self.layers(arguments["layers"], join(pointer, "layers"), x)
        shortcut, kept = self.layers(arguments.get("shortcut") or (), join(pointer, "shortcut"), x)
        if made.shape != kept.shape:
            self.issues.append(_unequal(pointer, made, kept, has_shortcut=bool(shortcut)))
        body: dict[str, Any] = {"type": component.type, "layers": layers}
        return {**body, "shortcut": shortcut} if shortcut else body, made

    def _parallel(self, component: Component, pointer: str, x: Tensor) -> tuple[dict[str, Any], Tensor]:
        branches: list[Any] = []
        outputs: list[Tensor] = []
        for index, item in enumerate(component.arguments["branches"]):
            at = join(pointer, "branches", index)
            if isinstance(item, (list, tuple)):
                body, output = self.layers(item, at, x)
            else:
                body, output = self.layer(component_of(item), at, x)
            branches.append(body)
            outputs.append(output)
        try:
            joined = torch.cat(outputs, dim=1)
        except COMPLAINTS as error:
            shapes = ", ".join(str(sample_shape(output)) for output in outputs)
            detail = f"The branches end in shapes {shapes}; only the first number may differ."
            raise self._broken(Issue(pointer, "unequal_branches", detail)) from error
        return {"type": component.type, "branches": branches}, joined

    def graph(self, component: Component, x: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Walk a graph's nodes, each after all that it takes; return it with all sizes, and what comes out."""
        arguments = component.arguments
        nodes = [dict(node) for node in arguments["nodes"]]
        values = {arguments["inputs"][0]: x}
        for place in order(nodes):
            node = nodes[place]
            layer = component_of(construct.without_wiring(node))
            body, output = self._node(layer, join(NODES, place), [values[name] for name in node["inputs"]])
            values[node["name"]] = output
            nodes[place] = {"name": node["name"], "inputs": list(node["inputs"]), **body}
        return {**as_json(component), "nodes": nodes}, values[arguments["outputs"][0]]

    def _node(self, layer: Component, pointer: str, inputs: list[Tensor]) -> tuple[dict[str, Any], Tensor]:
        known = len(self.issues)
        try:
            if len(inputs) == 1 and layer.type not in SEVERAL_INPUTS:
                return self.layer(layer, pointer, inputs[0])
            return self._leaf(layer, pointer, *inputs, is_node=True)
        finally:
            self.issues[known:] = [_for_a_node(issue, pointer) for issue in self.issues[known:]]

    def _leaf(
        self, component: Component, pointer: str, x: Tensor, *others: Tensor, is_node: bool = False
    ) -> tuple[dict[str, Any], Tensor]:
        posted = component
        kind = component.type
        wrong = at_a_node(kind, pointer, 1 + len(others)) if is_node else in_a_row(kind, pointer)
        if wrong is not None:
            raise self._broken(wrong)
        body, x = self._sized(component, pointer, x, *others)
        component = component_of(body)
        for issue in unmet(component, pointer, x):
            raise self._broken(issue)
        if (mixed := batch_is_time(component, pointer)) is not None:
            self.issues.append(mixed)
            component = component_of(body := {**body, "batch_first": True})
        if kind in SOFTMAX and body.get("dim") is None:  # torch chooses the same, and warns
            component = component_of(body := {**body, "dim": 1})
        module = self._module(component, pointer, posted)
        output = self._output(module, component, pointer, [x, *others])
        count = sum(parameter.numel() for parameter in module.parameters())
        flops = of_module(module, x, output)
        arguments = torch_arguments(component.arguments)
        self.rows.append(Row(pointer, component.type, sample_shape(x), sample_shape(output), count, flops, arguments))
        return body, output

    def _sized(self, component: Component, pointer: str, x: Tensor, *others: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Fill in and compare the sizes that follow from `x`, in nested layers too."""
        body = as_json(component)
        entry = catalog.find("layers", component.type)
        for parameter in entry.parameters if entry else ():
            name, at = parameter.name, join(pointer, parameter.name)
            if "x-component" in str(parameter.schema) and isinstance(body.get(name), (dict, str)):
                body[name] = self._nested(component_of(body[name]), at, x)
            elif parameter.inferred and (actual := _size(name, body.get(name), x)) is not None:
                if name in body and body[name] != actual:
                    issue, x = _mismatch(component.type, name, body[name], pointer, x)
                    self.issues.append(issue)
                    actual = _size(name, None, x)
                body[name] = actual
        return {**body, **_of_others(component, others)}, x

    def _nested(self, component: Component, pointer: str, x: Tensor) -> dict[str, Any]:
        body, _ = self._sized(component, pointer, x)
        if (mixed := batch_is_time(component, pointer)) is not None:
            self.issues.append(mixed)
            body["batch_first"] = True
        return body

    def _module(self, component: Component, pointer: str, posted: Component) -> nn.Module:
        try:
            return construct.layer(component)
        except COMPLAINTS as error:
            raise self._broken(refused(error, posted, pointer)) from error

    def _output(self, module: nn.Module, component: Component, pointer: str, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        if component.type in RECURRENT:  # the meta kernels of these go through time step by step
            width = getattr(module, "proj_size", 0) or int(component.arguments["hidden_size"])
            return x.new_empty((*x.shape[:2], width * (2 if component.arguments.get("bidirectional") else 1)))
        try:
            output = call(module, inputs)
        except COMPLAINTS as error:
            shapes = " and ".join(str(sample_shape(one)) for one in inputs)
            detail = f"{component.type} cannot take samples of shape {shapes}: {condensed(error).rstrip('.')}."
            raise self._broken(Issue(pointer, "layer_refuses", detail)) from error
        if output.shape != (BATCH,) and output.shape[:1] != x.shape[:1]:  # [B] is for the loss to judge
            detail = f"{component.type} joins the samples of a batch: dimension 0 is the batch, samples begin at 1."
            raise self._broken(Issue(pointer, "batch_lost", detail))
        return output

    def _broken(self, issue: Issue) -> Broken:
        self.issues.append(issue)
        return Broken(issue.detail)


def _size(name: str, given: Any, x: Tensor) -> Any:
    """Return the size that a layer must have for `x`, None where `x` cannot say."""
    if name in CHANNELS:
        return x.shape[1] if x.ndim > 1 else None
    if name == "normalized_shape":
        trailing = list(x.shape[-len(given) :]) if isinstance(given, list) and 0 < len(given) < x.ndim else None
        return x.shape[-1] if trailing is None else trailing
    return x.shape[-1]


def _of_others(component: Component, others: tuple[Tensor, ...]) -> dict[str, Any]:
    """Return the sizes that follow from a node's second and third input."""
    widths = [other.shape[-1] for other in others]
    if component.type == "Bilinear":
        return {"in2_features": widths[0]}
    if component.type == "MultiheadAttention" and widths:
        return {"kdim": widths[0], "vdim": widths[-1]}
    return {}


def _for_a_node(issue: Issue, pointer: str) -> Issue:
    """Leave out a fix that puts a layer before the node or in its place: a node has a name and inputs."""
    is_layer = any(step["op"] in ("add", "replace") and step["path"] == pointer for step in issue.fix or ())
    return replace(issue, fix=None) if is_layer else issue


def _mismatch(kind: str, name: str, given: Any, pointer: str, x: Tensor) -> tuple[Issue, Tensor]:
    """Return the issue of a wrong size, and what the layer takes once that is mended."""
    at, flat, actual = join(pointer, name), x.shape[1:].numel(), _size(name, given, x)
    detail = f"{name} of {kind} is {given}, but what comes in has shape {sample_shape(x)}: it must be {actual}."
    if name == "in_features" and x.ndim > 2 and pointer.rsplit("/", 1)[-1].isdecimal():
        fix: list[dict[str, Any]] = [{"op": "add", "path": pointer, "value": "Flatten"}]
        detail = f"{name} of {kind} is {given}, but what comes in has shape {sample_shape(x)}, which is not flat."
        if given != flat:
            fix.insert(0, {"op": "replace", "path": at, "value": flat})
        return Issue(at, "size_mismatch", detail, f"Flatten before it gives {flat} features.", tuple(fix)), x.flatten(1)
    fix_size = {"op": "replace", "path": at, "value": actual}
    return Issue(at, "size_mismatch", detail, "Leave it out to have it inferred.", (fix_size,)), x


def _unequal(pointer: str, made: Tensor, kept: Tensor, *, has_shortcut: bool) -> Issue:
    ours, theirs = sample_shape(made), sample_shape(kept)
    if has_shortcut:
        detail = f"The layers of ext.Residual end in shape {ours}, its shortcut in {theirs}; they must be equal."
        return Issue(pointer, "unequal_shortcut", detail)
    detail = f"ext.Residual adds its input of shape {theirs} to its layers' output of shape {ours}; they must be equal."
    bridge = _bridge(made, kept)
    if bridge is None:
        return Issue(pointer, "unequal_shortcut", detail, "Give a `shortcut` of layers that makes them equal.")
    fix = {"op": "add", "path": join(pointer, "shortcut"), "value": [bridge]}
    return Issue(pointer, "unequal_shortcut", detail, "Give a `shortcut` that makes them equal.", (fix,))


def _bridge(made: Tensor, kept: Tensor) -> dict[str, Any] | None:
    """Return the smallest layer that takes `kept` to the shape of `made`."""
    if made.ndim != kept.ndim:
        return None
    if made.ndim == 2:
        return {"type": "Linear", "out_features": made.shape[1]}
    strides = {-(-theirs // ours) for ours, theirs in zip(made.shape[2:], kept.shape[2:], strict=True) if ours}
    if len(strides) != 1 or made.ndim > 5:
        return None
    stride = strides.pop()
    if any(-(-theirs // stride) != ours for ours, theirs in zip(made.shape[2:], kept.shape[2:], strict=True)):
        return None
    body = {"type": f"Conv{made.ndim - 2}d", "out_channels": made.shape[1], "kernel_size": 1, "bias": False}
    return body if stride == 1 else {**body, "stride": stride}

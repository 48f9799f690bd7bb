"""The model: sizes inferred from a sample's shape, weights that are a function of the seed, parts frozen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from core.errors import Issue, SpecInvalid
from core.spec.job import Component, JobSpec
from core.spec.nearest import nearest
from core.spec.pointer import join
from core.train.build import construct, vision
from core.train.build.inference import BATCH, COMPLAINTS, Broken, Row, Walk, on_meta
from core.train.components import component_of, refused, torch_arguments

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Layers whose weights are scales: `weight_init` and `bias_init` leave them as torch makes them."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a walk over the model found."""

    model: dict[str, Any]
    """The component with all sizes; as posted where the walk could not end."""
    layers: list[Row]
    issues: list[Issue]
    module: nn.Module | None
    """The model on the meta device, frozen as asked; None where it cannot be built."""
    output: Tensor | None
    """Of a batch of two, on the meta device."""


def infer(
    spec: JobSpec, sample_shape: tuple[int, ...], *, classes: int | None = None, dtype: torch.dtype | None = None
) -> Inferred:
    """Follow a fake batch through the model on the meta device.

    Args:
        spec: whose model.
        sample_shape: as samples reach the model.
        classes: outputs of a model that leaves `num_classes` out.
        dtype: of the samples; none: integers where the first layer looks them up, else float32.
    """
    component, walked = spec.model, Walk()
    with on_meta():
        x = torch.empty((BATCH, *sample_shape), dtype=dtype or _dtype_for(component))
        try:
            if component.type.startswith(vision.PREFIX):
                outputs = component.arguments.get("num_classes") or classes or 1
                body, module, output = vision.walk(component, x, walked, outputs=outputs)
            else:
                body, output = _walk_layers(component, x, walked)
                module = _written_out(component.type, body)
        except Broken:
            return Inferred(component.model_dump(mode="json"), walked.rows, walked.issues, None, None)
        walked.issues.extend(_initialisers(component, module))
        walked.issues.extend(freeze(module, component.arguments.get("freeze") or ()))
    return Inferred(body, walked.rows, walked.issues, module, output)


def model(spec: JobSpec, sample_shape: tuple[int, ...], *, classes: int | None = None, seed: int) -> nn.Module:
    """Build the model on the CPU; torch's global generator is left as it was.

    The weights are those that a plain script draws after `torch.manual_seed(seed)`.

    Args:
        spec: whose model.
        sample_shape: as samples reach the model.
        classes: outputs of a model that leaves `num_classes` out.
        seed: of the initial weights.

    Raises:
        SpecInvalid: the model cannot be built for such samples.
    """
    inferred = infer(spec, sample_shape, classes=classes)
    if inferred.issues:
        raise SpecInvalid(inferred.issues)
    component = component_of(inferred.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if component.type.startswith(vision.PREFIX):
            module = vision.build(component, outputs=component.arguments["num_classes"])
            vision.load_weights(module, component)
            vision.put_replacements(module, component.arguments.get("replace") or {})
        else:
            module = _written_out(component.type, component.arguments)
        initialise(module, component.arguments)
    freeze(module, component.arguments.get("freeze") or ())
    return module


def initialise(module: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Fill weight matrices and kernels by `weight_init`, biases by `bias_init`; scales of norms stay."""
    for name, tensor in _weights(module):
        value = arguments.get("weight_init" if name == "weight" else "bias_init")
        if value is not None:
            component = component_of(value)
            getattr(nn.init, component.type)(tensor, **torch_arguments(component.arguments))


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for part in module.modules():
        if isinstance(part, NORMS):
            continue
        for name, parameter in part.named_parameters(recurse=False):
            if "bias" in name:
                yield "bias", parameter
            elif parameter.ndim >= 2:
                yield "weight", parameter


def _initialisers(component: Component, module: nn.Module) -> Iterator[Issue]:
    """Try each initialiser on a small tensor of every number of dimensions that it will meet."""
    dimensions = {(name, tensor.ndim) for name, tensor in _weights(module)}
    for name in ("weight", "bias"):
        key = f"{name}_init"
        value = component.arguments.get(key)
        for ndim in sorted(ndim for kind, ndim in dimensions if kind == name and value is not None):
            small = nn.Sequential(*[nn.Identity()])
            small.register_parameter(name, nn.Parameter(torch.empty((2,) * ndim)))
            try:
                initialise(small, {key: value})
            except COMPLAINTS as error:
                yield refused(error, component_of(value or key), join("/model", key))
                break


def freeze(module: nn.Module, names: tuple[str, ...] | list[str]) -> list[Issue]:
    """Take gradients from the named parts and parameters; return what is wrong with the names."""
    issues: list[Issue] = []
    parameters = dict(module.named_parameters())
    for index, name in enumerate(names):
        chosen = [key for key in parameters if key == name or key.startswith(name + ".")]
        if not chosen:
            issues.append(_unknown(module, name, join("/model/freeze", index)))
        for key in chosen:
            parameters[key].requires_grad_(False)  # noqa: FBT003 - torch names its argument in code only
    if names and not issues and not any(parameter.requires_grad for parameter in parameters.values()):
        detail = "Every parameter of the model is frozen: nothing is left to train."
        issues.append(Issue("/model/freeze", "all_frozen", detail, "Leave at least the last layer out."))
    return issues


def _unknown(module: nn.Module, name: str, pointer: str) -> Issue:
    parts = [key for key, _ in module.named_modules() if key] + [key for key, _ in module.named_parameters()]
    meant = nearest(name, parts)
    detail = f'No part with parameters is called "{name}".'
    if meant is None:
        tops = ", ".join(key for key, _ in module.named_children())
        return Issue(pointer, "unknown_module", detail, f"The model has {tops}.")
    fix = {"op": "replace", "path": pointer, "value": meant}
    return Issue(pointer, "unknown_module", detail, f"Did you mean `{meant}`?", (fix,))


def _walk_layers(component: Component, x: Tensor, walked: Walk) -> tuple[dict[str, Any], Tensor]:
    if component.type == "Graph":
        return walked.graph(component, x)
    layers, output = walked.layers(component.arguments["layers"], "/model/layers", x)
    return {**component.model_dump(mode="json"), "layers": layers}, output


def _written_out(kind: str, arguments: Mapping[str, Any]) -> nn.Module:
    return construct.graph(arguments) if kind == "Graph" else construct.sequence(arguments["layers"])


def _dtype_for(component: Component) -> torch.dtype:
    return torch.int64 if looks_up(component) else torch.float32


def looks_up(model: Component) -> bool:
    """Whether what comes into the model is integers that its first layer looks up."""
    arguments = model.arguments
    layers = list(arguments.get("layers") or ())[:1]
    if model.type == "Graph":
        layers = [node for node in arguments["nodes"] if arguments["inputs"][0] in node["inputs"]]
    return any(component_of(layer).type.startswith("Embedding") for layer in layers)

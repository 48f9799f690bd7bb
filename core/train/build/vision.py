"""`torchvision.*` models: built by name, given a head of the right width, parts replaced, weights from the cache."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from core.errors import Issue
from core.spec.job import Component
from core.spec.nearest import nearest
from core.spec.pointer import join
from core.train.build import construct
from core.train.build.expectations import sample_shape
from core.train.build.flops import of_module
from core.train.build.inference import COMPLAINTS, Broken, Row, Walk
from core.train.build.layers import first
from core.train.components import component_of, condensed, refused, torch_arguments

PREFIX = "torchvision."
OURS = ("num_classes", "weights", "replace", "freeze", "weight_init", "bias_init")
"""Arguments that are not handed to torchvision's function as they are."""
_FIXED: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}
"""Their side outputs belong to a loss of their own; their initial weights are asked for in words."""


def build(component: Component, *, outputs: int) -> nn.Module:
    """Build the model as it is without pretrained weights, on the current device.

    Raises:
        TypeError, ValueError, RuntimeError: what torchvision says about its arguments.
    """
    name = component.type.removeprefix(PREFIX)
    own = {key: value for key, value in component.arguments.items() if key not in OURS and value is not None}
    arguments = {**_FIXED.get(name, {}), **torch_arguments(own)}
    module: nn.Module = models.get_model(name, weights=None, num_classes=outputs, **arguments)
    return module


def put_replacements(module: nn.Module, replace: dict[str, Any]) -> None:
    """Put the spec's layers, with all sizes, in the place of the model's own."""
    for path, layer in replace.items():
        module.set_submodule(path, construct.layer(layer))


def load_weights(module: nn.Module, component: Component) -> None:
    """Load pretrained weights from the cache; parts of another shape, such as the head, keep their own."""
    path = weights_file(component)
    if path is None:
        return
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    own = module.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    module.load_state_dict(fitting, strict=False)


def weights_file(component: Component) -> Path | None:
    """Return where the pretrained weights lie that the component names, None where it names none."""
    name = component.arguments.get("weights")
    if name is None:
        return None
    weights = models.get_model_weights(component.type.removeprefix(PREFIX))[name]
    return Path(torch.hub.get_dir(), "checkpoints", os.path.basename(weights.url))  # noqa: PTH119 - of a URL


def walk(component: Component, x: Tensor, walked: Walk, *, outputs: int) -> tuple[dict[str, Any], nn.Module, Tensor]:
    """Follow a fake batch through the model on the meta device; rows and issues go to `walked`.

    Returns:
        The component with all sizes, the model, its output.

    Raises:
        Broken: the model cannot be built, or cannot take `x`.
    """

    def broken(issue: Issue) -> Broken:
        walked.issues.append(issue)
        return Broken(issue.detail)

    name, arguments = component.type, component.arguments
    try:
        module = build(component, outputs=outputs)
    except COMPLAINTS as error:
        raise broken(refused(error, component, "/model")) from error
    for issue in _unfit(component, module, x):
        raise broken(issue)
    body = {**component.model_dump(mode="json"), "num_classes": outputs}
    if arguments.get("replace"):
        body["replace"] = _replaced(component, module, x, walked)
    try:
        with _observed(module, walked):
            output = first(module(x))
    except COMPLAINTS as error:
        detail = f"{name} cannot take images of shape {sample_shape(x)}: {condensed(error).rstrip('.')}."
        hint = "Images may be too small for it: enlarge them with a Resize transform."
        raise broken(Issue("/model/type", "layer_refuses", detail, hint)) from error
    return body, module, output


def _unfit(component: Component, module: nn.Module, x: Tensor) -> Iterator[Issue]:
    """Say what is known before the batch goes through: channels, weights, parts to be replaced."""
    if component.arguments.get("aux_logits"):
        detail = f"The side outputs of {component.type} need a loss of their own."
        fix = ({"op": "remove", "path": "/model/aux_logits"},)
        yield Issue("/model/aux_logits", "side_outputs", detail, "Leave aux_logits out.", fix)
    stem = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    channels = stem.in_channels if stem else 3
    replaced = component.arguments.get("replace") or {}
    if x.ndim != 4:
        detail = f"{component.type} takes images (channels, height, width); the data gives {sample_shape(x)}."
        hint = 'Digits come as images with "as": "image".'
        yield Issue("/model/type", "not_images", detail, hint)
    elif x.shape[1] != channels and not replaced:
        detail = f"{component.type} takes images with {channels} channels; the data gives {x.shape[1]}."
        hint = 'Add {"type": "RGB"} to data.transforms.' if x.shape[1] == 1 else None
        yield Issue("/model/type", "channels", detail, hint)
    path = weights_file(component)
    if path is not None and not path.exists():
        detail = f"The weights {component.arguments['weights']} are not in the operator's cache."
        hint = f"An operator puts {path.name} into hub/checkpoints of TORCH_HOME; without: "
        yield Issue("/model/weights", "weights_not_cached", detail, hint + '"weights": null.')
    names = [name for name, _ in module.named_modules() if name]
    for path_in_model in replaced:
        if path_in_model not in names:
            yield Issue(join("/model/replace", path_in_model), "unknown_module", *_no_part(path_in_model, names))


def _no_part(name: str, names: list[str]) -> tuple[str, str]:
    meant = nearest(name, names)
    tops = ", ".join(dict.fromkeys(part.split(".")[0] for part in names))
    return f'The model has no part "{name}".', f"Did you mean `{meant}`?" if meant else f"It has {tops}."


def _replaced(component: Component, module: nn.Module, x: Tensor, walked: Walk) -> dict[str, Any]:
    """Give the replacing layers the sizes that reach their places, and put them in."""
    seen: dict[str, Tensor] = {}
    resolved: dict[str, Any] = {}
    for path, value in component.arguments["replace"].items():

        def see(_: nn.Module, inputs: tuple[Any, ...], path: str = path) -> None:
            seen.setdefault(path, first(inputs))
            raise _Seen

        handle = module.get_submodule(path).register_forward_pre_hook(see)
        try:
            module(x)
        except _Seen:
            pass
        except COMPLAINTS:
            seen.setdefault(path, x)  # what stands before it does not fit either: the batch will say so
        finally:
            handle.remove()
        resolved[path], _ = walked.layer(component_of(value), join("/model/replace", path), seen.get(path, x))
        put_replacements(module, {path: resolved[path]})
    return resolved


class _Seen(Exception):
    pass


@contextmanager
def _observed(module: nn.Module, walked: Walk) -> Iterator[None]:
    """Note a row for each part of the model while a batch goes through."""
    flops: list[float] = [0.0]

    def count(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        flops[0] += of_module(part, first(inputs), output)

    def note(name: str, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        parameters = sum(parameter.numel() for parameter in part.parameters())
        shapes = sample_shape(first(inputs)), sample_shape(first(output))
        walked.rows.append(Row("/model", f"{name}: {type(part).__name__}", *shapes, parameters, flops[0]))
        flops[0] = 0.0

    handles = [part.register_forward_hook(count) for part in module.modules() if not any(part.children())]
    handles += [part.register_forward_hook(partial(note, name)) for name, part in module.named_children()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

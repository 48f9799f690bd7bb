"""A look into a model while it trains: gradients by layer, units of ReLUs that are always zero. It changes nothing."""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

SAMPLES = 256
RELUS = (nn.ReLU, nn.ReLU6)


class Probe:
    """Looks into one model.

    Args:
        model: as it trains, not compiled.
        some: returns so many samples, ``inputs[N, ...]``, as they reach the model in evaluation.
    """

    def __init__(self, model: nn.Module, some: Callable[[int], Tensor]) -> None:
        self.model, self.some = model, some
        matrices = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.ndim >= 2 and parameter.requires_grad
        }
        self.names = [name.rpartition(".")[0] or name for name in matrices]
        """Of the layers whose weights are matrices or kernels, from the input on."""
        self._weights = list(matrices.values())

    def gradients(self) -> list[float]:
        """Return the root mean square of each layer's gradient; nothing where one has none."""
        grads = [weight.grad for weight in self._weights if weight.grad is not None and not weight.grad.is_sparse]
        if not grads or len(grads) < len(self._weights):
            return []
        norms = torch.stack([torch.linalg.vector_norm(grad.float()) for grad in grads]).tolist()
        return [norm / math.sqrt(weight.numel()) for norm, weight in zip(norms, self._weights, strict=True)]

    @torch.no_grad()
    def dead_units(self) -> list[tuple[str, float]]:
        """Return for each ReLU the share of its units (channels, of images) that are zero for all samples."""
        relus = {name: module for name, module in self.model.named_modules() if isinstance(module, RELUS)}
        if not relus:
            return []
        alive: dict[str, list[Tensor]] = {name: [] for name in relus}
        device = next(self.model.parameters()).device
        was_training = self.model.training
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
            for name, module in relus.items():
                handle = module.register_forward_hook(_noting(alive[name]))
                stack.callback(handle.remove)
            self.model.eval()
            try:
                self.model(self.some(SAMPLES))
            finally:
                self.model.train(was_training)
        return [(name, 1.0 - float(units.float().mean())) for name, calls in alive.items() for units in calls]


def _noting(calls: list[Tensor]) -> Any:
    """Return a hook that notes which units are positive for any sample, each time that its module is called."""

    def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if output.ndim > 1:
            calls.append((output > 0).amax(dim=[dim for dim in range(output.ndim) if dim != 1]))

    return note


def pointer_of(model: Mapping[str, Any], name: str) -> str | None:
    """Return the JSON pointer of a module in the spec's `model`, by its name in torch; None where it has none.

    Args:
        model: the component as JSON.
        name: such as `2`, `1.layers.0` or `fc1.0`.
    """
    pointer, body = "/model", model
    for part in name.split("."):
        found = _child(body, part)
        if found is None:
            return None
        step, body = found
        pointer += step
    return pointer


def _child(body: Any, part: str) -> tuple[str, Any] | None:
    if isinstance(body, (list, tuple)):
        return (f"/{part}", body[int(part)]) if part.isdecimal() else None
    if not isinstance(body, Mapping):
        return None
    if body.get("type") == "Sequential" and part.isdecimal():
        return f"/layers/{part}", body["layers"][int(part)]
    if body.get("type") == "Graph":
        names = [node["name"] for node in body["nodes"]]
        return (f"/nodes/{names.index(part)}", body["nodes"][names.index(part)]) if part in names else None
    return (f"/{part}", body[part]) if isinstance(body.get(part), (list, tuple)) else None

"""Averages of the weights: exponential (EMA) after every update, or equal (SWA) after every late epoch."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class WeightAverage:
    """A second set of weights that follows the first.

    EMA: ``average = decay*average + (1 - decay)*weight``; SWA: ``average += (weight - average)/(n + 1)``. The first
    update copies, as `torch.optim.swa_utils.AveragedModel` does. Buffers (BatchNorm's statistics) are copied.
    """

    def __init__(self, model: nn.Module, *, decay: float | None) -> None:
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
        self.decay = decay
        self.updates = 0
        self._weights: list[Tensor] = list(self.model.parameters())
        self._sources: list[Tensor] = [weight.detach() for weight in model.parameters()]
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are now."""
        if self.updates == 0:
            torch._foreach_copy_(self._weights, self._sources)
        else:
            weight = 1.0 / (self.updates + 1) if self.decay is None else 1.0 - self.decay
            torch._foreach_lerp_(self._weights, self._sources, weight)
        for buffer, source in self._buffers:
            buffer.copy_(source)
        self.updates += 1

    @torch.no_grad()
    def refresh_batch_norm(self, batches: Iterable[Tensor]) -> None:
        """Give the averaged weights BatchNorm statistics of their own: the mean over one pass of the training set."""
        layers = [layer for layer in self.model.modules() if isinstance(layer, _BatchNorm)]
        if not layers:
            return
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        for inputs in batches:
            self.model(inputs)
        self.model.eval()
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and how many updates went into them."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]

"""Muon as it is meant to be used: for matrices, with AdamW for biases, norms, embeddings of one row, kernels."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch.optim import AdamW, Muon, Optimizer
from typing_extensions import override

SHARED = ("lr", "weight_decay")
"""Arguments that AdamW takes over; for the others it has torch's defaults."""


class MuonWithAdamW(Optimizer):
    """Muon over all matrices of the groups and AdamW over everything else, stepped as one optimizer.

    Its groups are Muon's, then AdamW's, each in the order of the groups given; schedulers see them all.

    Args:
        groups: parameter groups with Muon's arguments.
        arguments: Muon's.

    Raises:
        ValueError: there is no matrix, or what torch says about the arguments.
    """

    def __init__(self, groups: list[dict[str, Any]], **arguments: Any) -> None:
        matrices = _part(groups, are_matrices=True)
        others = [_shared(group) for group in _part(groups, are_matrices=False)]
        if not matrices:
            raise ValueError("Muon only supports 2D parameters")
        self.muon = Muon(matrices, **arguments)
        self.adamw = AdamW(others, **_shared(self.muon.defaults))
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], self.muon.defaults)
        self._share()

    def _share(self) -> None:
        """Let both have their groups and their state here, where schedulers and checkpoints look."""
        count = len(self.muon.param_groups)
        self.muon.param_groups, self.adamw.param_groups = self.param_groups[:count], self.param_groups[count:]
        self.muon.state = self.adamw.state = self.state

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Do one update of everything."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        super().load_state_dict(state_dict)
        self._share()


def _part(groups: list[dict[str, Any]], *, are_matrices: bool) -> list[dict[str, Any]]:
    parts = [
        {**group, "params": [weight for weight in group["params"] if (weight.ndim == 2) is are_matrices]}
        for group in groups
    ]
    return [part for part in parts if part["params"]]


def _shared(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name in ("params", *SHARED)}

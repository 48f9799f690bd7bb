"""Layers that torch writes as code: sequences that follow recurrent layers, shortcuts, branches, the last step."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override


def first(value: Any) -> Tensor:
    """Return a layer's output; of a tuple, such as a recurrent layer's (sequence, state), the first."""
    while isinstance(value, (tuple, list)):
        value = value[0]
    return value


class Sequence(nn.Sequential):
    """`nn.Sequential` that hands on the sequence of a recurrent layer, without its state."""

    @override
    def forward(self, input: Any) -> Any:
        """Send `input` through all layers."""
        for layer in self:
            input = first(layer(input))  # noqa: A001 - torch's name
        return input


class Residual(nn.Module):
    """``shortcut(x) + layers(x)``; without a shortcut ``x + layers(x)``."""

    def __init__(self, layers: Iterable[nn.Module], shortcut: Iterable[nn.Module] | None = None) -> None:
        super().__init__()
        self.layers = Sequence(*layers)
        self.shortcut = Sequence(*(shortcut or ()))

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Add what the layers make of `x` to it; the shapes must be equal."""
        kept, made = self.shortcut(x), self.layers(x)
        if kept.shape != made.shape:
            raise ValueError(f"the layers make {tuple(made.shape[1:])} of it, the shortcut {tuple(kept.shape[1:])}")
        return kept + made


class Parallel(nn.Module):
    """Branches over the same input, joined along dimension 1 (channels, or features)."""

    def __init__(self, branches: Iterable[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Return all branches' outputs as one."""
        return torch.cat([first(branch(x)) for branch in self.branches], dim=1)


class LastTimestep(nn.Module):
    """``x[B, T, F]`` to its last step ``[B, F]``."""

    @override
    def forward(self, x: Any) -> Tensor:
        """Return the last step; of a recurrent layer's output that of its sequence."""
        sequence = first(x)
        if sequence.ndim != 3:
            raise ValueError(f"a sequence (steps, features) is needed, not {tuple(sequence.shape[1:])}")
        return sequence[:, -1]

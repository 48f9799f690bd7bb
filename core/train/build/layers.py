"""Layers that torch writes as code: sequences that follow recurrent layers, shortcuts, branches, the last step."""

from collections.abc import Iterable
from functools import reduce
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


class Add(nn.Module):
    """The sum of a graph node's inputs, broadcast as torch does."""

    @override
    def forward(self, *inputs: Tensor) -> Tensor:
        """Add all inputs, from left to right."""
        return reduce(torch.add, inputs)


class Multiply(nn.Module):
    """The product of a graph node's inputs, element by element, broadcast as torch does."""

    @override
    def forward(self, *inputs: Tensor) -> Tensor:
        """Multiply all inputs, from left to right."""
        return reduce(torch.mul, inputs)


class Concatenate(nn.Module):
    """A graph node's inputs one after the other along `dim`."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    @override
    def forward(self, *inputs: Tensor) -> Tensor:
        """Join all inputs, which may differ in `dim` only."""
        return torch.cat(inputs, dim=self.dim)


class Graph(nn.ModuleDict):
    """Layers with named inputs and outputs; parameters are called by their node: `fc1.weight`.

    Args:
        nodes: name, layer and names of what it takes, in the order in which they were posted.
        order: places in `nodes`, each after all that it takes.
        source: name of what comes in.
        output: name of the node whose output is the graph's.
    """

    def __init__(
        self, nodes: list[tuple[str, nn.Module, tuple[str, ...]]], *, order: list[int], source: str, output: str
    ) -> None:
        super().__init__({name: module for name, module, _ in nodes})
        self._source, self._output = source, output
        self._plan = [(name, names) for name, _, names in (nodes[place] for place in order)]

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Send `x` through all nodes."""
        values = {self._source: x}
        for name, names in self._plan:
            values[name] = call(self[name], [values[taken] for taken in names])
        return values[self._output]


def call(module: nn.Module, inputs: list[Tensor]) -> Tensor:
    """Let a node's layer compute; attention takes its last input for those that are not given."""
    if isinstance(module, nn.MultiheadAttention):
        inputs = [*inputs, *[inputs[-1]] * (3 - len(inputs))]
    return first(module(*inputs))


class LastTimestep(nn.Module):
    """``x[B, T, F]`` to its last step ``[B, F]``."""

    @override
    def forward(self, x: Any) -> Tensor:
        """Return the last step; of a recurrent layer's output that of its sequence."""
        sequence = first(x)
        if sequence.ndim != 3:
            raise ValueError(f"a sequence (steps, features) is needed, not {tuple(sequence.shape[1:])}")
        return sequence[:, -1]

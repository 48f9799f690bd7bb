"""Following shapes through a model without paying for what has none to find."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

_aten = torch.ops.aten
FILLING = frozenset({_aten.normal_.default, _aten.uniform_.default, _aten.fill_.Scalar, _aten.zero_.default})
"""Initial values: a tensor on the meta device has none."""
ELEMENTWISE = frozenset(
    {_aten.relu.default, _aten.leaky_relu.default, _aten.gelu.default, _aten.silu.default, _aten.tanh.default,
     _aten.sigmoid.default}
)  # fmt: skip
"""Of float numbers these give as many of the same type, and refuse nothing."""


class ShapesOnly(TorchDispatchMode):
    """Lets initial values, activations, linear layers and batch normalisation cost little on the meta device.

    There torch has no kernels of its own for them but follows their formulas operator by operator, in Python: for
    resnet18 that was two thirds of the walk. What torch checks before it comes to a kernel (batches of one, numbers of
    channels) is checked as ever, and what could be refused inside of one goes torch's way.
    """

    @override
    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Carry out an operator."""
        if func in FILLING:
            return args[0]
        if func is _aten.native_batch_norm.default:
            return _normalised(*args)
        if func in ELEMENTWISE and args[0].is_floating_point():
            return torch.empty_like(args[0])
        if func is _aten.addmm.default and not kwargs and _fit(*args):
            return args[1].new_empty((args[1].shape[0], args[2].shape[1]))
        return func(*args, **(kwargs or {}))


def _normalised(inputs: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return output, mean and deviation as ``[B, C, ...]``, ``[C]`` and ``[C]``; the latter two in training only."""
    is_training = arguments[4]
    saved = inputs.new_empty(inputs.shape[1] if is_training else 0)
    return torch.empty_like(inputs), saved, saved


def _fit(bias: Tensor, left: Tensor, right: Tensor) -> bool:
    """Whether ``left[B, I] @ right[I, O] + bias[O]`` is what it looks like."""
    return (
        left.ndim == right.ndim == 2
        and left.shape[1] == right.shape[0]
        and bias.shape == right.shape[1:]
        and bias.dtype == left.dtype == right.dtype
    )

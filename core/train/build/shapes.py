"""Following shapes through a model without paying for what has none to find."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

Quick = Callable[..., Any]
"""Returns what an operator would, or None where torch itself shall say."""


class ShapesOnly(TorchDispatchMode):
    """Lets initial values, activations, linear layers, convolutions and batch normalisation cost little on meta.

    There torch has no kernels of its own for them but follows their formulas operator by operator, in Python: for
    resnet18 that was two thirds of the walk. What torch checks before it comes to a kernel (batches of one, numbers of
    channels) is checked as ever, and what could be refused inside of one goes torch's way.
    """

    @override
    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Carry out an operator."""
        quick = QUICK.get(func)  # once: hashing an operator is Python
        made = None if quick is None else quick(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if made is None else made

    @classmethod
    @override
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and saying so to the compiler took longer than many an operator


def _filled(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    """Return a tensor with other values, of which one on the meta device has none."""
    return tensor


def _activated(inputs: Tensor, *_: Any, **__: Any) -> Tensor | None:
    """Return as many float numbers of the same type: nothing is refused."""
    return _like(inputs) if inputs.is_floating_point() else None


def _normalised(inputs: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return output, mean and deviation as ``[B, C, ...]``, ``[C]`` and ``[C]``; the latter two in training only."""
    is_training = arguments[4]
    saved = inputs.new_empty(inputs.shape[1] if is_training else 0)
    return _like(inputs), saved, saved


def _multiplied(bias: Tensor, left: Tensor, right: Tensor, **scales: Any) -> Tensor | None:
    """Return ``left[B, I] @ right[I, O] + bias[O]`` where it is what it looks like."""
    is_plain = (
        not scales
        and left.ndim == right.ndim == 2
        and left.shape[1] == right.shape[0]
        and bias.shape == right.shape[1:]
        and bias.dtype == left.dtype == right.dtype
    )
    return left.new_empty((left.shape[0], right.shape[1])) if is_plain else None


def _convolved(inputs: Tensor, weight: Tensor, _: Tensor | None, *arguments: Any) -> Tensor | None:
    """Return ``[B, O, ...]`` of ``inputs[B, I, ...]`` and ``weight[O, I / groups, ...]`` where the kernel fits."""
    stride, padding, dilation, transposed, _, groups = arguments
    places = inputs.shape[2:]
    if transposed or not len(places) == len(stride) == len(padding) == len(dilation):
        return None
    if inputs.shape[1] == 0 or inputs.shape[1] != weight.shape[1] * groups:
        return None
    spare = [
        place + 2 * pad - gap * (size - 1) - 1
        for place, pad, gap, size in zip(places, padding, dilation, weight.shape[2:], strict=True)
    ]
    if min(spare) < 0:
        return None
    lengths = [left // step + 1 for left, step in zip(spare, stride, strict=True)]
    return inputs.new_empty((inputs.shape[0], weight.shape[0], *lengths))


def _like(inputs: Tensor) -> Tensor:
    """Return `torch.empty_like`, which on the meta device looks for the order of the dimensions in Python."""
    return inputs.new_empty(inputs.shape) if inputs.is_contiguous() else torch.empty_like(inputs)


_aten = torch.ops.aten
QUICK: dict[Callable[..., Any], Quick] = {
    **dict.fromkeys(
        (_aten.normal_.default, _aten.uniform_.default, _aten.fill_.Scalar, _aten.zero_.default), _filled
    ),
    **dict.fromkeys(
        (_aten.relu.default, _aten.leaky_relu.default, _aten.gelu.default, _aten.silu.default, _aten.tanh.default,
         _aten.sigmoid.default), _activated
    ),
    _aten.native_batch_norm.default: _normalised,
    _aten.addmm.default: _multiplied,
    _aten.convolution.default: _convolved,
}  # fmt: skip

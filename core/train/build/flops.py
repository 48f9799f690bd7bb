"""Floating-point operations of a forward pass, from shapes alone; a multiplication and an addition count as two."""

from math import prod
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from core.train.build.layers import first


def of_module(module: nn.Module, x: Tensor, output: Any) -> float:
    """Return the operations of one sample in a layer that multiplies by weights; 0 for all others.

    Args:
        module: a layer.
        x: a batch that goes in.
        output: what comes out.
    """
    made = first(output)
    if isinstance(module, nn.Linear):
        return 2.0 * module.in_features * (made.numel() // made.shape[0])
    if isinstance(module, _ConvTransposeNd):
        return 2.0 * (x.numel() // x.shape[0]) * module.out_channels // module.groups * prod(module.kernel_size)
    if isinstance(module, _ConvNd):
        return 2.0 * (made.numel() // made.shape[0]) * module.in_channels // module.groups * prod(module.kernel_size)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.TransformerEncoderLayer | nn.TransformerEncoder):
        weights = sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)
        steps = x.shape[1] if x.ndim == 3 else 1
        return 2.0 * steps * weights
    return 0.0

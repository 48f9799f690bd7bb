"""What random transforms draw for each sample of a batch: torchvision's numbers, in its order, most of them at once."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

Drawn = Sequence[dict[str, Any] | None]
"""What each sample drew, in torchvision's words; None: chance leaves it as it is."""
Rows = list[list[float]]
Bounds = Sequence[Sequence[float]]
Scaled = Callable[[int, Bounds], Rows]
"""Draws for so many samples one number between each pair of bounds."""
PROBES = 4096
"""Numbers that are compared before draws are trusted to be those of `Tensor.uniform_`."""


def draw(transform: v2.Transform, batch: Tensor) -> Drawn:
    """Draw for each sample what torchvision would, one after the other."""
    if (scaled := _scaled()) is not None:
        match transform:
            case v2.RandomAffine():
                return _affine_draws(transform, batch, scaled)
            case v2.RandomRotation():
                return [{"angle": angle} for (angle,) in scaled(len(batch), [transform.degrees])]
            case _:
                pass
    p, sample = getattr(transform, "p", None), [batch[0]]
    return [transform.make_params(sample) if p is None or torch.rand(1) < p else None for _ in range(len(batch))]


def _affine_draws(transform: v2.RandomAffine, batch: Tensor, scaled: Scaled) -> Drawn:
    """Draw as `v2.RandomAffine.make_params` does."""
    height, width = batch.shape[-2:]
    across, down = transform.translate or (0.0, 0.0)
    most = (float(across * width), float(down * height))
    bounds: list[Sequence[float]] = [transform.degrees]
    bounds += [(-pixels, pixels) for pixels in most] if transform.translate is not None else []
    bounds += [transform.scale] if transform.scale is not None else []
    shear = transform.shear or ()
    bounds += [shear[at : at + 2] for at in range(0, len(shear), 2)]
    drawn: list[dict[str, Any]] = []
    for row in scaled(len(batch), bounds):
        numbers = iter(row)
        drawn.append({
            "angle": next(numbers),
            "translate": (round(next(numbers)), round(next(numbers))) if transform.translate is not None else (0, 0),
            "scale": next(numbers) if transform.scale is not None else 1.0,
            "shear": (next(numbers, 0.0), next(numbers, 0.0)),
        })  # fmt: skip
    return drawn


@cache
def _scaled() -> Scaled | None:
    """Return what draws between bounds as `Tensor.uniform_` does, all at once; None where that cannot be told.

    It takes a number from 0 to 1 times the width, plus the lower bound: rounded twice, or only once where torch was
    built for processors that can. It is asked which, once.
    """
    low, high = -0.9, 1.7
    expected = torch.empty(PROBES, 1).uniform_(low, high, generator=torch.Generator().manual_seed(0)).tolist()
    for scaled in (_rounded_once, _rounded_twice):
        if scaled(PROBES, [(low, high)], torch.Generator().manual_seed(0)) == expected:
            return scaled
    return None


def _rounded_once(count: int, bounds: Bounds, generator: torch.Generator | None = None) -> Rows:
    low, width = _ranges(bounds)
    drawn = torch.rand(count, len(bounds), generator=generator).double()
    return (drawn * width.double() + low.double()).float().tolist()


def _rounded_twice(count: int, bounds: Bounds, generator: torch.Generator | None = None) -> Rows:
    low, width = _ranges(bounds)
    return (torch.rand(count, len(bounds), generator=generator) * width + low).tolist()


def _ranges(bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Return the lower bounds and the widths, in float32 as torch has them."""
    for low, high in bounds:
        if low > high:
            raise ValueError(f"there is no number from {low} to {high}")
    low, high = torch.tensor([list(pair) for pair in bounds], dtype=torch.float32).unbind(1)
    return low, high - low

"""What random transforms draw for each sample of a batch: torchvision's numbers, in its order, most of them at once."""

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

Params = dict[str, Any]
"""What one sample drew, in torchvision's words."""
Column = NDArray[np.float64] | float
"""One number for each sample, or the same for all."""
Bounds = tuple[tuple[float, float], ...]
Scaled = Callable[[int, Bounds], NDArray[np.float64]]
"""Draws for so many samples one number between each pair of bounds: ``drawn[samples, pairs]``."""
PROBES = 4096
"""Numbers that are compared before draws are trusted to be those of `Tensor.uniform_`."""
MOST_AT_ONCE = 1 << 28
"""From so many whole numbers to choose from, torch takes twice as many bits for each."""


class Turns(NamedTuple):
    """What `v2.RandomAffine` drew for each sample: degrees, pixels, a factor, and degrees again."""

    angle: Column
    across: Column = 0.0
    down: Column = 0.0
    scale: Column = 1.0
    shear_x: Column = 0.0
    shear_y: Column = 0.0


def draw_each(transform: v2.Transform, batch: Tensor) -> list[Params | None]:
    """Draw for each sample what torchvision would, one after the other; None: chance leaves it as it is."""
    p, sample = getattr(transform, "p", None), [batch[0]]
    return [transform.make_params(sample) if p is None or torch.rand(1) < p else None for _ in range(len(batch))]


def draw_angles(transform: v2.RandomRotation, batch: Tensor) -> list[float]:
    """Draw for each sample the degrees by which it is turned."""
    if (scaled := _scaled()) is None:
        return [params["angle"] for params in draw_each(transform, batch) if params]
    low, high = transform.degrees
    return scaled(len(batch), ((low, high),))[:, 0].tolist()


def draw_turns(transform: v2.RandomAffine, batch: Tensor) -> Turns:
    """Draw for each sample as `v2.RandomAffine.make_params` does.

    Raises:
        ValueError: bounds between which there is no number, or no scale.
    """
    if (scaled := _scaled()) is None:
        drawn = [params for params in draw_each(transform, batch) if params]
        rows = [(each["angle"], *each["translate"], each["scale"], *each["shear"]) for each in drawn]
        return Turns(*np.array(rows, dtype=np.float64).T)
    columns = iter(scaled(len(batch), _bounds(transform, *batch.shape[-2:])).T)
    angle = next(columns)
    across, down = (np.rint(next(columns)), np.rint(next(columns))) if transform.translate is not None else (0.0, 0.0)
    scale = next(columns) if transform.scale is not None else 1.0
    if not np.all(scale):
        raise ValueError("a scale so small is 0 in float32")
    return Turns(angle, across, down, scale, next(columns, 0.0), next(columns, 0.0))


def _bounds(transform: v2.RandomAffine, height: int, width: int) -> Bounds:
    pairs: list[Sequence[float]] = [transform.degrees]
    if transform.translate is not None:
        across, down = transform.translate
        pairs += [(-pixels, pixels) for pixels in (float(across * width), float(down * height))]
    if transform.scale is not None:
        pairs.append(transform.scale)
    shear = transform.shear or ()
    pairs += [shear[at : at + 2] for at in range(0, len(shear), 2)]
    return tuple((low, high) for low, high in pairs)


def draw_corners(transform: v2.RandomCrop, batch: Tensor) -> tuple[Params, Tensor, Tensor]:
    """Draw for each sample which window it keeps.

    torch takes the remainder of as many random bits for every whole number, so the remainder by a common multiple
    tells that by each of its divisors.

    Returns:
        What all samples have in common, in torchvision's words, and the windows' ``top[B], left[B]``.
    """
    first, samples = transform.make_params([batch[0]]), len(batch)  # it checks the sizes too
    left, top, right, bottom = first["padding"]
    height, width = batch.shape[-2:]
    choices = (height + top + bottom - first["height"] + 1, width + left + right - first["width"] + 1)
    drawn = {at: count for at, count in enumerate(choices) if count > 1}
    if (multiple := math.lcm(*drawn.values())) < MOST_AT_ONCE:
        rest = torch.zeros(samples - 1, 2, dtype=torch.int64)
        if drawn:
            numbers = torch.randint(multiple, (samples - 1, len(drawn)))
            rest[:, list(drawn)] = numbers % torch.tensor(list(drawn.values()))
        corners = torch.cat([torch.tensor([[first["top"], first["left"]]]), rest])
    else:
        each = [first, *(transform.make_params([batch[0]]) for _ in range(samples - 1))]
        corners = torch.tensor([[params["top"], params["left"]] for params in each])
    tops, lefts = corners.to(batch.device).unbind(1)
    return first, tops, lefts


@cache
def _scaled() -> Scaled | None:
    """Return what draws between bounds as `Tensor.uniform_` does, all at once; None where that cannot be told.

    It takes a number from 0 to 1 times the width, plus the lower bound: rounded twice, or only once where torch was
    built for processors that can. It is asked which, once.
    """
    low, high = -0.9, 1.7
    expected = torch.empty(PROBES, 1).uniform_(low, high, generator=torch.Generator().manual_seed(0)).numpy()
    for scaled in (_rounded_once, _rounded_twice):
        if np.array_equal(scaled(PROBES, ((low, high),), torch.Generator().manual_seed(0)), expected):
            return scaled
    return None


def _rounded_once(count: int, bounds: Bounds, generator: torch.Generator | None = None) -> NDArray[np.float64]:
    low, width = _ranges(bounds)
    drawn = torch.rand(count, len(bounds), generator=generator).numpy().astype(np.float64)
    return (drawn * width.astype(np.float64) + low).astype(np.float32).astype(np.float64)


def _rounded_twice(count: int, bounds: Bounds, generator: torch.Generator | None = None) -> NDArray[np.float64]:
    low, width = _ranges(bounds)
    return (torch.rand(count, len(bounds), generator=generator).numpy() * width + low).astype(np.float64)


@lru_cache(maxsize=64)
def _ranges(bounds: Bounds) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the lower bounds and the widths, in float32 as torch has them."""
    for low, high in bounds:
        if low > high:
            raise ValueError(f"there is no number from {low} to {high}")
    low, high = torch.tensor(bounds, dtype=torch.float32).unbind(1)
    return low.numpy(), (high - low).numpy()

"""Random transforms for a whole batch at once: each sample draws as in torchvision, then all pixels are made together.

Draws and pixels are torchvision's to the last bit: sample by sample gives the same batch, ten times as slowly.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812 - torchvision's own abbreviation

from core.train.build.drawing import Column, Turns, draw_angles, draw_corners, draw_each, draw_turns

GRIDDED = (InterpolationMode.NEAREST, InterpolationMode.BILINEAR)
RADIANS = math.radians(1.0)
"""`math.radians` multiplies by it."""
QUARTERS = (0.0, 90.0, 180.0, 270.0)
"""The remainder of a small negative angle may be 360.0, which is none of them."""


class EachSample:
    """A transform that draws for each sample by itself.

    Args:
        transform: torchvision's; it draws once per call.
    """

    def __init__(self, transform: v2.Transform) -> None:
        self.transform = transform
        self.kernel = _kernel(transform)

    def __call__(self, batch: Tensor) -> Tensor:
        """Transform ``batch[B, ...]``; images ``[B, C, H, W]`` all at once where there is a way to."""
        if self.kernel is None or batch.ndim != 4:
            return torch.stack([self.transform(sample) for sample in batch])
        return self.kernel(self.transform, batch).contiguous()


def _kernel(transform: v2.Transform) -> Callable[[Any, Tensor], Tensor] | None:
    """Return what draws for a batch and moves its pixels, None where samples must be made one by one."""
    match transform:
        case v2.RandomAffine() if _is_gridded(transform):
            return _affine
        case v2.RandomRotation() if _is_gridded(transform) and not transform.expand:
            return _rotate
        case v2.RandomCrop():
            return _crop
        case v2.RandomErasing():
            return _erase
        case _:
            return None


def _is_gridded(transform: v2.RandomAffine | v2.RandomRotation) -> bool:
    return any(transform.interpolation in (mode, mode.value) for mode in GRIDDED)


def _affine(transform: v2.RandomAffine, batch: Tensor) -> Tensor:
    return _warp(transform, batch, draw_turns(transform, batch))


def _rotate(transform: v2.RandomRotation, batch: Tensor) -> Tensor:
    angles = [angle % 360 for angle in draw_angles(transform, batch)]
    made = _warp(transform, batch, Turns(-np.array(angles)))
    for at, angle in enumerate(angles):
        if transform.center is None and angle in QUARTERS:  # torchvision moves whole pixels then
            made[at] = transform.transform(batch[at], {"angle": angle})
    return made


def _crop(transform: v2.RandomCrop, batch: Tensor) -> Tensor:
    params, top, left = draw_corners(transform, batch)
    if params["needs_pad"]:
        fill, mode = _color(transform.fill), transform.padding_mode
        batch = F.pad(batch, padding=params["padding"], fill=fill, padding_mode=mode)
    height, width = transform.size
    windows = batch.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, tops, lefts, height, width]
    return windows[torch.arange(len(batch), device=batch.device), :, top, left]


def _erase(transform: v2.RandomErasing, batch: Tensor) -> Tensor:
    made = batch.clone()
    for image, params in zip(made, draw_each(transform, batch), strict=True):
        if params is not None and params["v"] is not None:
            F.erase(image, **params, inplace=True)
    return made


def _warp(transform: v2.RandomAffine | v2.RandomRotation, batch: Tensor, turns: Turns) -> Tensor:
    """Return each image of ``batch[B, C, H, W]`` with its values taken from where its turn says."""
    height, width = batch.shape[-2:]
    center = _from_the_middle(transform.center, height, width)
    mode, fill = InterpolationMode(transform.interpolation).value, _color(transform.fill)
    dtype = batch.dtype if batch.is_floating_point() else torch.float32
    theta = torch.from_numpy(_inverse_matrices(center, turns, len(batch))).to(batch.device, dtype)
    grid = _grid(theta, height, width)
    if fill is None or (mode == "nearest" and _is_plain_zero(fill)):  # outside there are zeros anyway
        made = grid_sample(batch.to(dtype), grid, mode=mode, padding_mode="zeros", align_corners=False)
    else:
        color = torch.tensor(fill if isinstance(fill, list) else [fill], dtype=dtype, device=batch.device)
        made = _filled(batch, grid, mode, color)
    return made if dtype == batch.dtype else made.round().to(batch.dtype)


def _from_the_middle(center: Sequence[float] | None, height: int, width: int) -> tuple[float, float]:
    """Return the center in pixels to the right of and below the middle of the image."""
    return (0.0, 0.0) if center is None else (center[0] - width * 0.5, center[1] - height * 0.5)


def _inverse_matrices(center: tuple[float, float], turns: Turns, samples: int) -> NDArray[np.float64]:
    """Return the numbers that take a place in the new image to where its value comes from, ``matrices[samples, 2, 3]``.

    The inverse of: move `center` to the origin, shear, scale, rotate, move back, translate. The operations stand in
    torchvision's order, and sines come from the same library as its: both decide the last bit.
    """
    rotation, shear_x, shear_y = (degrees * RADIANS for degrees in (turns.angle, turns.shear_x, turns.shear_y))
    cos, sin = _each(math.cos, rotation), _each(math.sin, rotation)
    leaning_cos, leaning_sin = cos, sin
    if not isinstance(shear_y, float):  # which is 0
        leaning_cos, leaning_sin = _each(math.cos, rotation - shear_y), _each(math.sin, rotation - shear_y)
    cos_y, tan_x = _each(math.cos, shear_y), _each(math.tan, shear_x)
    a = leaning_cos / cos_y
    b = -(a * tan_x + sin)
    c = leaning_sin / cos_y
    d = cos - c * tan_x
    x, y = center[0] + turns.across, center[1] + turns.down
    xx, xy, yx, yy = d / turns.scale, -b / turns.scale, -c / turns.scale, a / turns.scale
    matrices = np.empty((samples, 2, 3))
    for (row, column), numbers in zip(
        np.ndindex(2, 3), (xx, xy, center[0] - xx * x - xy * y, yx, yy, center[1] - yx * x - yy * y), strict=True
    ):
        matrices[:, row, column] = numbers
    return matrices


def _each(function: Callable[[float], float], numbers: Column) -> Column:
    """Return `function` of each number; numpy's own may differ in the last bit."""
    if isinstance(numbers, float):
        return function(numbers)
    return np.array([function(number) for number in numbers.tolist()])


def _is_plain_zero(fill: float | list[float]) -> bool:
    return isinstance(fill, (int, float)) and fill == 0 and math.copysign(1.0, fill) > 0


def _filled(batch: Tensor, grid: Tensor, mode: str, color: Tensor) -> Tensor:
    """Sample ``batch[B, C, H, W]``, with ``color[1 or C]`` where the grid leaves the images."""
    samples, channels, height, width = batch.shape
    if len(color) not in (1, channels):
        raise ValueError(f"fill has {len(color)} numbers, for images with {channels} channels")
    color = color.reshape(1, -1, 1, 1)
    masked = grid.new_ones(samples, channels + 1, height, width)  # the last channel tells inside from outside
    masked[:, :-1] = batch
    made = grid_sample(masked, grid, mode=mode, padding_mode="zeros", align_corners=False)
    made, inside = made[:, :-1], made[:, -1:]
    return torch.where(inside < 0.5, color, made) if mode == "nearest" else (made - color) * inside + color


def _grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Return for every pixel of every image where its value comes from, ``grid[B, H, W, 2]`` from -1 to 1.

    Args:
        theta: ``theta[B, 2, 3]``, in pixels from the middle.
        height: of the images.
        width: of the images.
    """
    places, half = _places(height, width, theta.dtype, theta.device)
    turned = places.expand(len(theta), -1, -1).bmm(theta.transpose(1, 2) / half)
    return turned.reshape(-1, height, width, 2)


@lru_cache(maxsize=4)
def _places(height: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the pixels of an image row by row, in pixels from the middle: ``places[1, H * W, 3]``, ``(x, y, 1)``.

    And half the image, ``half[2]``.
    """
    x = torch.linspace((1.0 - width) * 0.5, (width - 1.0) * 0.5, steps=width, device=device)
    y = torch.linspace((1.0 - height) * 0.5, (height - 1.0) * 0.5, steps=height, device=device)
    ones = torch.ones(height, width, device=device)
    places = torch.stack([x.expand(height, width), y[:, None].expand(height, width), ones], 2)
    half = torch.tensor([0.5 * width, 0.5 * height], dtype=dtype, device=device)
    return places.to(dtype).reshape(1, height * width, 3), half


def _color(fill: Any) -> float | list[float] | None:
    return [float(value) for value in fill] if isinstance(fill, (list, tuple)) else fill

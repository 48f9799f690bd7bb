"""Random transforms for a whole batch at once: each sample draws as in torchvision, then all pixels are made together.

Draws and pixels are torchvision's to the last bit: sample by sample gives the same batch, ten times as slowly.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812 - torchvision's own abbreviation

from core.train.build.drawing import Drawn, draw

GRIDDED = (InterpolationMode.NEAREST, InterpolationMode.BILINEAR)


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
        return self.kernel(self.transform, batch, draw(self.transform, batch)).contiguous()


def _kernel(transform: v2.Transform) -> Callable[[Any, Tensor, Drawn], Tensor] | None:
    """Return what moves the pixels of a batch, None where samples must be made one by one."""
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


def _affine(transform: v2.RandomAffine, batch: Tensor, drawn: Drawn) -> Tensor:
    center = _from_the_middle(transform.center, batch)
    return _warp(transform, batch, [_inverse_matrix(center, **params) for params in drawn if params])


def _rotate(transform: v2.RandomRotation, batch: Tensor, drawn: Drawn) -> Tensor:
    center = _from_the_middle(transform.center, batch)
    angles = [params["angle"] % 360 for params in drawn if params]
    made = _warp(transform, batch, [_inverse_matrix(center, -angle) for angle in angles])
    for at, angle in enumerate(angles):
        if transform.center is None and angle % 90 == 0:  # torchvision moves whole pixels then
            made[at] = transform.transform(batch[at], {"angle": angle})
    return made


def _crop(transform: v2.RandomCrop, batch: Tensor, drawn: Drawn) -> Tensor:
    places = [params for params in drawn if params]
    if places[0]["needs_pad"]:  # all samples are of one size
        fill, mode = _color(transform.fill), transform.padding_mode
        batch = F.pad(batch, padding=places[0]["padding"], fill=fill, padding_mode=mode)
    height, width = transform.size
    windows = batch.unfold(2, height, 1).unfold(3, width, 1)  # [B, C, tops, lefts, height, width]
    top, left = (torch.tensor([params[name] for params in places], device=batch.device) for name in ("top", "left"))
    return windows[torch.arange(len(batch), device=batch.device), :, top, left]


def _erase(_: v2.RandomErasing, batch: Tensor, drawn: Drawn) -> Tensor:
    made = batch.clone()
    for image, params in zip(made, drawn, strict=True):
        if params is not None and params["v"] is not None:
            F.erase(image, **params, inplace=True)
    return made


def _from_the_middle(center: Sequence[float] | None, batch: Tensor) -> tuple[float, float]:
    """Return the center in pixels to the right of and below the middle of the image."""
    height, width = batch.shape[-2:]
    return (0.0, 0.0) if center is None else (center[0] - width * 0.5, center[1] - height * 0.5)


def _inverse_matrix(
    center: tuple[float, float],
    angle: float,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
) -> list[float]:
    """Return the 2 x 3 numbers that take a place in the new image to where its value comes from.

    The inverse of: move `center` to the origin, shear, scale, rotate by `angle` degrees, move back, translate. The
    operations stand in torchvision's order, which decides the last bit.
    """
    rotation, shear_x, shear_y = (math.radians(degrees) for degrees in (angle, *shear))
    a = math.cos(rotation - shear_y) / math.cos(shear_y)
    b = -(a * math.tan(shear_x) + math.sin(rotation))
    c = math.sin(rotation - shear_y) / math.cos(shear_y)
    d = math.cos(rotation) - c * math.tan(shear_x)
    xx, xy, yx, yy = d / scale, -b / scale, -c / scale, a / scale
    x, y = center[0] + translate[0], center[1] + translate[1]
    return [xx, xy, center[0] - xx * x - xy * y, yx, yy, center[1] - yx * x - yy * y]


def _warp(transform: v2.RandomAffine | v2.RandomRotation, batch: Tensor, matrices: list[list[float]]) -> Tensor:
    """Return each image of ``batch[B, C, H, W]`` with its values taken from where its matrix says."""
    mode, fill = InterpolationMode(transform.interpolation).value, _color(transform.fill)
    dtype = batch.dtype if batch.is_floating_point() else torch.float32
    theta = torch.tensor(matrices, dtype=dtype, device=batch.device).reshape(-1, 2, 3)
    images, grid = batch.to(dtype), _grid(theta, *batch.shape[-2:])
    if fill is None:
        made = grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)
    else:
        color = torch.tensor(fill if isinstance(fill, list) else [fill], dtype=dtype, device=batch.device)
        made = _filled(images, grid, mode, color)
    return made if dtype == batch.dtype else made.round().to(batch.dtype)


def _filled(images: Tensor, grid: Tensor, mode: str, color: Tensor) -> Tensor:
    """Sample `images`, with ``color[1 or C]`` where the grid leaves them."""
    if len(color) not in (1, images.shape[1]):
        raise ValueError(f"fill has {len(color)} numbers, for images with {images.shape[1]} channels")
    color = color.reshape(1, -1, 1, 1)
    masked = torch.cat([images, torch.ones_like(images[:, :1])], dim=1)  # the last channel tells inside from outside
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
    half = torch.tensor([0.5 * width, 0.5 * height], dtype=theta.dtype, device=theta.device)
    places = _places(height, width, theta.dtype, theta.device).expand(len(theta), -1, -1)
    return places.bmm(theta.transpose(1, 2) / half).reshape(-1, height, width, 2)


@lru_cache(maxsize=4)
def _places(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the pixels of an image row by row, in pixels from the middle: ``places[1, H * W, 3]``, ``(x, y, 1)``."""
    x = torch.linspace((1.0 - width) * 0.5, (width - 1.0) * 0.5, steps=width, device=device)
    y = torch.linspace((1.0 - height) * 0.5, (height - 1.0) * 0.5, steps=height, device=device)
    ones = torch.ones(height, width, device=device)
    places = torch.stack([x.expand(height, width), y[:, None].expand(height, width), ones], 2)
    return places.to(dtype).reshape(1, height * width, 3)


def _color(fill: Any) -> float | list[float] | None:
    return [float(value) for value in fill] if isinstance(fill, (list, tuple)) else fill

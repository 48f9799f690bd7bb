"""Samples of an upload as the training set's transforms make them, side by side in one PNG."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.datasets import load
from core.datasets.samples import Array
from core.errors import DataInvalid, Issue, SpecInvalid
from core.messages import DatasetFile
from core.spec.job import Component
from core.train.components import component_of
from core.train.preflight.samples import apply_in_turn
from core.train.roles import Channel
from core.train.sets import as_tensor

ID = "ds_0"
SIDE = 64
"""Pixels that a small image is enlarged to."""
MAX_PIXELS = 3_000_000
"""Of the whole picture: with three bytes each it passes the pipe even if it does not compress."""
GAP = 2
GREY = 128


def main(channel: Channel, request: dict[str, Any]) -> None:
    """Draw one picture in a child process: the request of `core.process.call`, and one answer.

    Args:
        channel: the pipe to the caller.
        request: `file`, `cache_dir`, `transforms`, `rows`, `draws`, `seed`.
    """
    try:
        picture = draw(
            DatasetFile.model_validate(request["file"]),
            cache_dir=Path(request["cache_dir"]),
            transforms=[component_of(part) for part in request["transforms"]],
            rows=request["rows"],
            draws=request["draws"],
            seed=request["seed"],
        )
    except (SpecInvalid, DataInvalid) as error:
        channel.send({"type": "drawing", "errors": [issue.as_json() for issue in error.issues], "png": None})
        return
    channel.send({"type": "drawing", "errors": [], "png": base64.b64encode(picture).decode()})


def draw(
    file: DatasetFile, *, cache_dir: Path, transforms: Sequence[Component], rows: int, draws: int, seed: int
) -> bytes:
    """Return a PNG with a sample in each row, and in each column another draw of the random transforms.

    Args:
        file: an upload of images.
        cache_dir: where decoded data is kept.
        transforms: what is done to the images, as in `data.transforms.train`.
        rows: so many samples, evenly spread over the set.
        draws: columns.
        seed: of all random numbers: the same one gives the same picture.

    Raises:
        DataInvalid: the upload holds no images.
        SpecInvalid: a transform that does not take them.
    """
    source = Component.model_validate({"type": "dataset", "id": ID})
    uploads = {f"{ID}@1": file}
    samples = load(source, datasets_dir=cache_dir, cache_dir=cache_dir, uploads=uploads, pointer="")
    if samples.kind != "image":
        detail = f"this upload holds no images but samples of shape {samples.inputs.shape[1:]}"
        hint = "GET …/preview shows its first samples as text"
        raise DataInvalid(detail, issues=[Issue("", "no_images", detail, hint)])
    at = np.unique(np.linspace(0, len(samples) - 1, rows).round().astype(np.int64))
    batch = as_tensor(samples.inputs[at]).repeat_interleave(draws, dim=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batch = apply_in_turn(transforms, batch, "/transforms")
    if batch.ndim != 4:
        detail = f"the transforms end in samples of shape {tuple(batch.shape[1:])}, which are no images"
        raise SpecInvalid([Issue("/transforms", "no_images", detail)])
    return _png(_grid(_pixels(batch), columns=draws))


def _pixels(batch: Tensor) -> Array:
    """Return uint8 [B, H, W, 3]: numbers from 0 to 1 as they are, others stretched from their least to their most."""
    images = batch.numpy(force=True)
    if images.dtype != np.uint8:
        images = images.astype(np.float64)
        least, most = float(images.min()), float(images.max())
        if least < 0 or most > 1:
            images = (images - least) / ((most - least) or 1.0)
        images = (images * 255).round().astype(np.uint8)
    channels = [0, 1, 2] if images.shape[1] >= 3 else [0, 0, 0]
    return images[:, channels].transpose(0, 2, 3, 1)


def _grid(images: Array, *, columns: int) -> Array:
    """Put images [B, H, W, 3] into rows, small ones enlarged, large ones thinned out."""
    larger = max(1, SIDE // max(images.shape[1:3]))
    images = images.repeat(larger, axis=1).repeat(larger, axis=2)
    thinner = math.ceil(math.sqrt(images.size / 3 / MAX_PIXELS))
    images = images[:, ::thinner, ::thinner]
    count, height, width, _ = images.shape
    rows = count // columns
    made = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), GREY, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = GAP + index // columns * (height + GAP), GAP + index % columns * (width + GAP)
        made[top : top + height, left : left + width] = image
    return made


def _png(pixels: Array) -> bytes:
    from PIL import Image

    drawn = io.BytesIO()
    Image.fromarray(pixels).save(drawn, "PNG")
    return drawn.getvalue()

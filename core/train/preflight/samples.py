"""How a sample reaches the model: its shape and type after preprocessing and transforms."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.datasets import Preprocessor
from core.errors import Issue, SpecInvalid
from core.spec.job import Component, JobSpec
from core.spec.pointer import join
from core.train import build
from core.train.build.inference import BATCH, COMPLAINTS
from core.train.build.model import looks_up
from core.train.components import condensed, refused
from core.train.preflight.data import Described
from core.train.sets import Places, divide, load_part

CHANGES_WIDTH = ("OneHotEncoder", "PolynomialFeatures", "SimpleImputer")
"""Steps whose number of columns depends on the values."""
ROWS = 32
"""Enough to see whether the other steps take the columns."""
TO_FLOAT: dict[str, Any] = {"type": "ToDtype", "dtype": "float32", "scale": True}


@dataclass(frozen=True, slots=True)
class Form:
    """One sample as the model sees it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    bytes_kept: int
    """Of one sample in memory, before the transforms."""
    warnings: tuple[Issue, ...] = ()


def form(spec: JobSpec, sets: Described, places: Places) -> Form:
    """Find out in which shape and type a sample reaches the model.

    Raises:
        SpecInvalid: a transform that does not take these samples, or samples that are not numbers for a model.
        DataInvalid: a preprocessing step that does not take these columns.
    """
    batch = _batch(spec, sets, places)
    kept = batch[0].nbytes
    transforms = spec.data.transforms
    if transforms is None or not (transforms.train or transforms.eval):
        is_image = batch.dtype == torch.uint8
        batch = batch.float() if is_image else batch
        _check_dtype(spec, batch, "train", posted=0)
        return Form(tuple(batch.shape[1:]), batch.dtype, kept, (_unscaled(),) if is_image else ())
    train = _transformed(spec, transforms.train, batch, "train")
    judged = _transformed(spec, transforms.eval, batch, "eval")
    if train.shape != judged.shape or train.dtype != judged.dtype:
        raise SpecInvalid([_differ(train, judged)])
    return Form(tuple(judged.shape[1:]), judged.dtype, kept)


def _batch(spec: JobSpec, sets: Described, places: Places) -> Tensor:
    facts = sets.train
    if spec.data.preprocess:
        return torch.zeros((BATCH, *facts.sample_shape[:-1], _width(spec, places)))
    dtype = torch.float32 if facts.dtype == "float64" else getattr(torch, facts.dtype)
    return torch.zeros((BATCH, *facts.sample_shape), dtype=dtype)


def _width(spec: JobSpec, places: Places) -> int:
    """Fit the preprocessing, as far as needed to know how many columns come out."""
    source = load_part(spec.data, spec.data.train, "train", places)
    rows = np.arange(min(ROWS, len(source)))
    if any(step.type in CHANGES_WIDTH for step in spec.data.preprocess):
        rows = divide(spec.data, source, spec.seed or 0).train
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's remarks about so few rows
        return len(Preprocessor.fit(spec.data.preprocess, source, rows).feature_names)


def _transformed(spec: JobSpec, parts: tuple[Component, ...], batch: Tensor, name: str) -> Tensor:
    """Send a real batch of two through the transforms, one after the other."""
    with torch.random.fork_rng(devices=[]):
        batch = apply_in_turn(parts, batch, join("/data/transforms", name))
    _check_dtype(spec, batch, name, posted=len(parts))
    return batch


def apply_in_turn(parts: Sequence[Component], batch: Tensor, pointer: str) -> Tensor:
    """Return what transforms make of a batch; random ones draw from torch's global generator.

    Raises:
        SpecInvalid: one that does not take the samples, or its own arguments; the issue points to it below `pointer`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index, part in enumerate(parts):
            at = join(pointer, index)
            for issue in _unfit(part, batch, at):
                raise SpecInvalid([issue])
            try:
                step = build.transforms([part])
            except COMPLAINTS as error:
                raise SpecInvalid([refused(error, part, at)]) from error
            try:
                batch = step(batch)
            except COMPLAINTS as error:
                detail = f"{part.type} cannot take samples of {_words(batch)}: {condensed(error).rstrip('.')}."
                raise SpecInvalid([Issue(at, "transform_refuses", detail)]) from error
    return batch


def _unfit(part: Component, batch: Tensor, pointer: str) -> Iterator[Issue]:
    """Say what torchvision would not, or not plainly."""
    if part.type != "Normalize":
        return
    means = part.arguments["mean"]
    if not batch.is_floating_point():
        detail = f"Normalize works on float numbers; here samples are still {_words(batch)}."
        fix = ({"op": "add", "path": pointer, "value": TO_FLOAT},)
        yield Issue(pointer, "not_float", detail, "Put ToDtype with scale before it.", fix)
    elif batch.ndim == 4 and len(means) not in (1, batch.shape[1]):
        detail = f"Normalize has {len(means)} means for images with {batch.shape[1]} channels."
        fixes = [
            {"op": "replace", "path": join(pointer, key), "value": part.arguments[key][:1]} for key in ("mean", "std")
        ]
        hint = 'Put "RGB" before it, or give one mean and one std.' if batch.shape[1] == 1 else None
        yield Issue(join(pointer, "mean"), "channels", detail, hint, tuple(fixes) if hint else None)


def _check_dtype(spec: JobSpec, batch: Tensor, name: str, *, posted: int) -> None:
    """Raise where what comes out is not what layers compute with."""
    if batch.dtype == torch.float32 or (not batch.is_floating_point() and looks_up(spec.model)):
        return
    pointer = join("/data/transforms", name) if posted else "/data/transforms"
    detail = f"The {name} samples reach the model as {_words(batch)}; its layers compute with float32."
    value = TO_FLOAT if batch.dtype == torch.uint8 else {"type": "ToDtype", "dtype": "float32"}
    patch = {"op": "add", "path": join(pointer, "-"), "value": value}
    if not posted:
        given = spec.data.transforms is not None
        path, whole = (join(pointer, name), [value]) if given else (pointer, {"train": [value], "eval": [value]})
        patch = {"op": "add", "path": path, "value": whole}
    raise SpecInvalid([Issue(pointer, "not_float", detail, "End with ToDtype to float32.", (patch,))])


def _differ(train: Tensor, judged: Tensor) -> Issue:
    detail = f"Training samples come out as {_words(train)}, validation samples as {_words(judged)}."
    hint = "Give eval the transforms of train that are not random."
    return Issue("/data/transforms/eval", "transforms_differ", detail, hint)


def _unscaled() -> Issue:
    detail = "Images reach the model as numbers from 0 to 255; models learn better from 0 to 1."
    fix = {"op": "add", "path": "/data/transforms", "value": {"train": [TO_FLOAT], "eval": [TO_FLOAT]}}
    return Issue("/data", "unscaled_images", detail, "Add ToDtype with scale to data.transforms.", (fix,))


def _words(batch: Tensor) -> str:
    return f"{str(batch.dtype).removeprefix('torch.')} {list(batch.shape[1:])}"

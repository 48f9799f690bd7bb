"""A validation or test set of its own, brought into the training set's words: same columns, classes and categories."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.datasets.samples import Array, Samples
from core.errors import DataInvalid, Issue


def align(samples: Samples, train: Samples, *, pointer: str) -> Samples:
    """Return `samples` with labels and categories numbered as in `train`.

    Two files number their classes by what each of them holds; a set that lacks a class would be numbered differently.

    Args:
        samples: the set at `data.val` or `data.test`.
        train: the set at `data.train`.
        pointer: where the first stands in the spec.

    Raises:
        DataInvalid: other columns or shapes, or a class or category that train does not have.
    """
    if samples.inputs.shape[1:] != train.inputs.shape[1:] or samples.feature_names != train.feature_names:
        ours, theirs = (one.feature_names or list(one.inputs.shape[1:]) for one in (samples, train))
        detail = f"this set has {_some(ours)}, the training set has {_some(theirs)}"
        if samples.inputs.ndim == train.inputs.ndim > 1 and samples.kind == train.kind == "array":
            shapes = (one.inputs.shape[1:] for one in (samples, train))
            detail = "samples have shape {} here and {} in train".format(*shapes)
        raise _invalid(pointer, "other_columns", detail)
    inputs = samples.inputs
    for name, values in samples.categories.items():
        if values != train.categories.get(name):
            inputs = inputs.copy()
            position = samples.feature_names.index(name)
            table = _numbering(values, train.categories.get(name, []), f"category of column {name!r}", pointer)
            column = inputs[..., position]
            known = ~np.isnan(column)
            column[known] = table[column[known].astype(np.int64)]
    target = _aligned_target(samples, train, pointer)
    return replace(samples, inputs=inputs, target=target, classes=train.classes, categories=train.categories)


def _aligned_target(samples: Samples, train: Samples, pointer: str) -> Array | None:
    target = samples.target
    if target is None or train.target is None or target.shape[1:] != train.target.shape[1:]:
        shapes = [None if one.target is None else one.target.shape[1:] for one in (samples, train)]
        if shapes[0] == shapes[1]:
            return target
        raise _invalid(pointer, "other_target", f"targets have shape {shapes[0]} here and {shapes[1]} in train")
    if samples.classes == train.classes:
        return target.astype(train.target.dtype, copy=False)
    if train.classes is None:
        if samples.classes != [str(label) for label in range(len(samples.classes or ()))]:
            raise _invalid(pointer, "other_target", "the target holds class names here and numbers in train")
        return target.astype(train.target.dtype)
    if samples.classes is not None:
        return _numbering(samples.classes, train.classes, "class", pointer)[target]
    if target.dtype.kind != "i":
        raise _invalid(pointer, "other_target", "the target holds numbers here and classes in train")
    names = [str(label) for label in np.unique(target)]
    table = dict(zip(names, _numbering(names, train.classes, "class", pointer), strict=True))
    return np.asarray([table[str(label)] for label in target], dtype=np.int64)


def _numbering(names: Sequence[str], known: Sequence[str], what: str, pointer: str) -> Array:
    """For each of `names` its position in `known`."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise _invalid(pointer, "unknown_class", f"the {what} {unknown[0]!r} is not in the training set")
    return np.asarray([known.index(name) for name in names], dtype=np.int64)


def _some(names: Sequence[object]) -> str:
    return ", ".join(map(str, names[:10])) + (", …" if len(names) > 10 else "")


def _invalid(pointer: str, code: str, detail: str) -> DataInvalid:
    return DataInvalid(detail, issues=[Issue(pointer, code, detail)])

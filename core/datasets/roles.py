"""`data.columns`: which column of a table is what."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.datasets.formats import UnreadableError
from core.datasets.samples import Array, Samples
from core.spec.job import Columns

TARGET_NAMES = ("target", "label", "class")
"""A column of this name is the target where none is named."""
MAX_CATEGORIES = 1000


@dataclass(frozen=True)
class Roles:
    """The columns of a table by role."""

    features: list[str]
    target: list[str]
    categorical: list[str]
    group_by: str | None
    order_by: str | None


def roles_of(names: Sequence[str], columns: Columns | None, *, may_know_past: bool = False) -> Roles:
    """Give every column of an uploaded table its role.

    Args:
        names: of the table's columns.
        columns: the spec's `data.columns`.
        may_know_past: the target's earlier values may be a feature, as in a series.

    Raises:
        UnreadableError: an unknown name, or no target; `at` points to it.
    """
    wanted = columns or Columns()
    target = _listed(wanted.target)
    _check(names, target, "target", is_list=not isinstance(wanted.target, str))
    _check_others(names, wanted)
    target = target or [_default_target(names, columns)]
    aside = {*target, wanted.group_by, wanted.order_by}
    features = [name for name in names if name not in aside] if wanted.features is None else list(wanted.features)
    both = [name for name in features if name in target and not may_know_past]
    if both:
        detail = f"column {both[0]!r} is the target and a feature"
        raise UnreadableError("target_is_feature", detail, "leave it out of features", at="/data/columns/features")
    if not features:
        hint, fix = None, None
        if may_know_past:
            hint = "name the target in features as well to learn from its earlier values"
            fix = {"op": "add", "path": "/data/columns/features", "value": target}
        raise UnreadableError("no_features", "no feature column is left", hint, at="/data/columns", fix=fix)
    return Roles(features, target, list(wanted.categorical), wanted.group_by, wanted.order_by)


def select(samples: Samples, columns: Columns) -> Samples:
    """Return a table that is decoded already with the columns' roles applied.

    Raises:
        UnreadableError: the set has no columns, or none of a name.
    """
    if samples.kind != "table":
        detail = f"this set holds {samples.kind}s, which have no columns"
        raise UnreadableError("no_columns", detail, "leave data.columns out", at="/data/columns")
    _check_others(samples.feature_names, columns)
    target = _listed(columns.target)
    _check(samples.target_names, target, "target", is_list=not isinstance(columns.target, str))
    aside = {columns.group_by, columns.order_by}
    features = [name for name in samples.feature_names if name not in aside]
    features = features if columns.features is None else list(columns.features)
    inputs = samples.inputs[:, [samples.feature_names.index(name) for name in features]].copy()
    categories = {name: values for name, values in samples.categories.items() if name in features}
    for name in columns.categorical:
        if name in features and name not in categories:
            position = features.index(name)
            categories[name], inputs[:, position] = _categories(name, inputs[:, position])
    chosen = replace(samples, inputs=inputs, feature_names=features, categories=categories)
    if len(target) < len(samples.target_names) and target and samples.target is not None:
        at = [samples.target_names.index(name) for name in target]
        chosen = replace(chosen, target=samples.target[:, at[0] if len(at) == 1 else at], target_names=target)
    return replace(chosen, groups=_groups(samples, columns.group_by), order=_column(samples, columns.order_by))


def _listed(target: str | Sequence[str] | None) -> list[str]:
    return [target] if isinstance(target, str) else list(target or ())


def _check_others(names: Sequence[str], columns: Columns) -> None:
    _check(names, columns.features or (), "features")
    _check(names, columns.categorical, "categorical")
    for role in ("group_by", "order_by"):
        given = getattr(columns, role)
        _check(names, [given] if given else [], role, is_list=False)


def _check(names: Sequence[str], given: Sequence[str], role: str, *, is_list: bool = True) -> None:
    for index, name in enumerate(given):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, names[:20]))}"
            at = f"/data/columns/{role}/{index}" if is_list else f"/data/columns/{role}"
            raise UnreadableError("unknown_column", f"the table has no {role} column {name!r}", hint, at=at)


def _default_target(names: Sequence[str], columns: Columns | None) -> str:
    found = [name for name in names if name.lower() in TARGET_NAMES]
    if not found:
        detail = f"no column is called {', '.join(TARGET_NAMES)}, so the target must be named"
        hint = f'set data.columns.target, for example to the last column, "{names[-1]}"'
        fix: dict[str, Any] = {"op": "add", "path": "/data/columns", "value": {"target": names[-1]}}
        if columns is not None:
            fix = {"op": "add", "path": "/data/columns/target", "value": names[-1]}
        raise UnreadableError("no_target", detail, hint, at="/data/columns/target", fix=fix)
    return found[-1]


def _categories(name: str, numbers: Array) -> tuple[list[str], Array]:
    """Different numbers as names in rising order, and each sample's position among them; NaN stays."""
    values = np.unique(numbers[~np.isnan(numbers)])
    if len(values) > MAX_CATEGORIES:
        raise too_many_categories(name)
    positions = np.where(np.isnan(numbers), np.nan, np.searchsorted(values, numbers))
    return [label_of(float(value)) for value in values], positions


def label_of(number: float) -> str:
    """Write a number as people do: `3`, not `3.0`."""
    return str(int(number)) if number == int(number) else repr(number)


def too_many_categories(name: str) -> UnreadableError:
    """Return the error for a column with too many different values."""
    detail = f"column {name!r} has more than {MAX_CATEGORIES} different values, too many for categories"
    hint = "leave it out: name the others in data.columns.features"
    return UnreadableError("too_many_categories", detail, hint, at="/data/columns/features")


def groups_of(values: Array) -> Array:
    """Number equal values alike: int64 [N]."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _groups(samples: Samples, name: str | None) -> Array | None:
    column = _column(samples, name)
    return samples.groups if column is None else groups_of(column)


def _column(samples: Samples, name: str | None) -> Array | None:
    return None if name is None else samples.inputs[:, samples.feature_names.index(name)].astype(np.float64)

"""`data.preprocess`: scikit-learn's scalers, imputers and encoders, fitted on train, kept as plain JSON.

A table passes through the steps as named columns of float64. A step works on its `columns`, where there are none on all
numeric features (encoders: on all categorical ones); `"target"` names the target. What an encoder makes of a column
stands in that column's place. The result is float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from core.datasets import fitted
from core.datasets.samples import Array, Samples
from core.errors import DataInvalid, Issue
from core.spec.job import Component

CHUNK = 1 << 16
"""Rows that are transformed at a time."""
TARGET = "target"
ENCODERS = ("OneHotEncoder", "OrdinalEncoder")
IMPUTERS = ("SimpleImputer",)


def fills_missing(steps: Sequence[Component]) -> bool:
    """Say whether one of the steps gives missing values a value."""
    return any(step.type in IMPUTERS for step in steps)


@dataclass(frozen=True)
class Step:
    """A fitted estimator and the names of the columns that it takes and makes."""

    type: str
    arguments: dict[str, Any]
    columns: list[str]
    made: list[str]
    estimator: Any
    is_target: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return type, arguments, columns and fitted numbers."""
        return {
            "type": self.type,
            "arguments": self.arguments,
            "columns": self.columns,
            "made": self.made,
            "is_target": self.is_target,
            "state": fitted.state_of(self.estimator),
        }

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """Build the step that `to_json` described."""
        estimator = fitted.restore(body["type"], body["arguments"], body["state"])
        return cls(body["type"], body["arguments"], body["columns"], body["made"], estimator, body["is_target"])


class Preprocessor:
    """Steps fitted on the training set, in the order of the spec."""

    def __init__(self, steps: Sequence[Step], names_in: Sequence[str], names_out: Sequence[str]) -> None:
        self.steps = tuple(steps)
        self.names_in = list(names_in)
        self.feature_names = list(names_out)
        """Columns that come out."""

    @classmethod
    def fit(
        cls,
        steps: Sequence[Component],
        samples: Samples,
        train: Array | None = None,
        *,
        pointer: str = "/data/preprocess",
    ) -> Self:
        """Fit the steps one after the other.

        Args:
            steps: the spec's `data.preprocess`.
            samples: the set that holds the training samples.
            train: indices of the training samples; None: all.
            pointer: where the steps stand in the spec.

        Raises:
            DataInvalid: images, unknown columns, a class target to be scaled, arguments that scikit-learn refuses.
        """
        if steps and samples.kind != "table":
            detail = (
                f"data.preprocess works on tables; this set holds {samples.kind}s of shape {samples.inputs.shape[1:]}"
            )
            hint = "use data.transforms, such as ToDtype and Normalize"
            raise DataInvalid(detail, issues=[Issue(pointer, "preprocess_not_table", detail, hint)])
        rows = slice(None) if train is None else train
        fit = _Fit(samples, rows if steps else slice(0))
        done = [fit.step(component, f"{pointer}/{index}") for index, component in enumerate(steps)]
        return cls(done, samples.feature_names, fit.names)

    def transform(self, inputs: Array) -> Array:
        """Return float32 [N, F'] of inputs [N, F]; without steps the inputs as they are.

        Raises:
            DataInvalid: a value that train did not have, or one that is still missing at the end.
        """
        if not self.steps:
            return inputs
        made = np.empty((len(inputs), len(self.feature_names)), dtype=np.float32)
        for start in range(0, len(inputs), CHUNK):
            made[start : start + CHUNK] = self._transform(inputs[start : start + CHUNK])
        missing = np.isnan(made).sum(axis=0)
        if missing.any():
            name = self.feature_names[int(np.argmax(missing))]
            detail = f"{int(missing.sum())} values are still missing after data.preprocess, most of them in {name!r}"
            hint = 'put {"type": "SimpleImputer"} before the other steps'
            raise DataInvalid(detail, issues=[Issue("/data/preprocess", "missing_values", detail, hint)])
        return made

    def _transform(self, inputs: Array) -> Array:
        table, names = np.asarray(inputs, dtype=np.float64), self.names_in
        for index, step in enumerate(self.steps):
            if step.is_target:
                continue
            at = [names.index(name) for name in step.columns]
            try:
                part = np.asarray(step.estimator.transform(table[:, at]), dtype=np.float64)
            except ValueError as error:
                detail = f"{step.type} cannot transform these samples: {error}"
                raise DataInvalid(detail, issues=[Issue(f"/data/preprocess/{index}", "preprocess", detail)]) from error
            table, names = _placed(table, names, at, part, step.made)
        return table

    def transform_target(self, target: Array) -> Array:
        """Return the target as the model learns it: float32 where a step names it, else unchanged."""
        steps = [step for step in self.steps if step.is_target]
        if not steps:
            return target
        table = np.asarray(target, dtype=np.float64).reshape(len(target), -1)
        for step in steps:
            at = [int(name) for name in step.columns]
            table = table.copy()
            table[:, at] = step.estimator.transform(table[:, at])
        return table.reshape(target.shape).astype(np.float32)

    def inverse_target(self, target: Array) -> Array:
        """Return predictions or targets in the target's own units, float64 where a step names it."""
        steps = [step for step in self.steps if step.is_target]
        if not steps:
            return target
        table = np.asarray(target, dtype=np.float64).reshape(len(target), -1)
        for step in reversed(steps):
            at = [int(name) for name in step.columns]
            table = table.copy()
            table[:, at] = step.estimator.inverse_transform(table[:, at])
        return table.reshape(target.shape)

    @property
    def scales_target(self) -> bool:
        """Whether `transform_target` changes anything."""
        return any(step.is_target for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """Return the fitted state as JSON: names and plain numbers."""
        steps = [step.to_json() for step in self.steps]
        return {"names_in": self.names_in, "names_out": self.feature_names, "steps": steps}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Self:
        """Build the preprocessor that `to_json` described; it transforms bit for bit the same."""
        return cls([Step.from_json(step) for step in body["steps"]], body["names_in"], body["names_out"])


class _Fit:
    """The training table on its way through the steps."""

    def __init__(self, samples: Samples, rows: Any) -> None:
        self.samples = samples
        self.rows = rows
        self.names = list(samples.feature_names)
        self.categorical = set(samples.categories)
        self.table = (
            np.asarray(samples.inputs[rows], dtype=np.float64) if samples.kind == "table" else samples.inputs[:0]
        )
        self.target: Array | None = None

    def step(self, component: Component, pointer: str) -> Step:
        """Fit one step and send the table through it."""
        arguments = dict(component.arguments)
        columns = arguments.pop("columns", None)
        if columns is not None and self._means_target(columns, pointer):
            return self._target_step(component.type, arguments, list(columns), pointer)
        chosen = self._columns(component.type, columns, pointer)
        at = [self.names.index(name) for name in chosen]
        part = self.table[:, at]
        estimator = self._fitted(component.type, arguments, part, pointer)
        made = self._made(estimator, chosen)
        if component.type in ENCODERS:
            self.categorical -= set(chosen)
        self.table, self.names = _placed(self.table, self.names, at, np.asarray(estimator.transform(part)), made)
        return Step(component.type, arguments, chosen, made, estimator)

    def _made(self, estimator: Any, chosen: list[str]) -> list[str]:
        """Names of what comes out, with a category's own name where it has one: `sex_F`, not `sex_0.0`."""
        made = [str(name) for name in estimator.get_feature_names_out(np.asarray(chosen, dtype=object))]
        named = {
            f"{column}_{float(position)}": f"{column}_{value}"
            for column in chosen
            for position, value in enumerate(self.samples.categories.get(column, ()))
        }
        return [named.get(name, name) for name in made]

    def _means_target(self, columns: Sequence[str], pointer: str) -> bool:
        named = [name for name in columns if name == TARGET or name in self.samples.target_names]
        if named and len(named) < len(columns):
            raise _invalid(f"{pointer}/columns", "target_and_features", "a step works on features or on the target")
        return bool(named)

    def _columns(self, kind: str, columns: Sequence[str] | None, pointer: str) -> list[str]:
        if columns is not None:
            unknown = [name for name in columns if name not in self.names]
            if unknown:
                detail = f"no column is called {unknown[0]!r} here; there are {', '.join(map(repr, self.names[:20]))}"
                raise _invalid(f"{pointer}/columns/{list(columns).index(unknown[0])}", "unknown_column", detail)
            return list(columns)
        wanted = kind in ENCODERS
        chosen = [name for name in self.names if (name in self.categorical) == wanted]
        if not chosen:
            kinds = "categorical" if wanted else "numeric"
            raise _invalid(
                pointer, "no_columns", f"{kind} has nothing to work on: no feature is {kinds}; name `columns`"
            )
        return chosen

    def _target_step(self, kind: str, arguments: dict[str, Any], columns: list[str], pointer: str) -> Step:
        if self.target is None:
            if self.samples.target is None or self.samples.classes is not None:
                detail = f"{kind} cannot work on this target: {'it holds classes' if self.samples.classes else 'none'}"
                raise _invalid(f"{pointer}/columns", "target_not_numeric", detail)
            target = np.asarray(self.samples.target[self.rows], dtype=np.float64)
            self.target = target.reshape(len(target), -1)
        every = TARGET in columns and TARGET not in self.samples.target_names
        names = self.samples.target_names if every or columns == [TARGET] else columns
        at = [self.samples.target_names.index(name) for name in names]
        estimator = self._fitted(kind, arguments, self.target[:, at], pointer)
        if not hasattr(estimator, "inverse_transform") or kind in ENCODERS:
            raise _invalid(f"{pointer}/type", "no_inverse", f"{kind} cannot be undone, so it cannot work on the target")
        self.target = self.target.copy()
        self.target[:, at] = estimator.transform(self.target[:, at])
        positions = [str(position) for position in at]
        return Step(kind, arguments, positions, positions, estimator, is_target=True)

    def _fitted(self, kind: str, arguments: dict[str, Any], part: Array, pointer: str) -> Any:
        try:
            return fitted.make(kind, arguments).fit(part)
        except fitted.UnknownStepError as error:
            raise _invalid(f"{pointer}/type", "unknown_step", str(error)) from error
        except (TypeError, ValueError) as error:
            raise _invalid(pointer, "invalid_arguments", f"{kind} cannot be fitted: {error}") from error


def _placed(table: Array, names: list[str], at: list[int], part: Array, made: list[str]) -> tuple[Array, list[str]]:
    """Put the columns made of `at` where they came from: one for one, else all in the first one's place."""
    if len(made) == len(at):
        table = table.copy()
        table[:, at] = part
        renamed = dict(zip(at, made, strict=True))
        return table, [renamed.get(position, name) for position, name in enumerate(names)]
    first = min(at)
    before = [position for position in range(first) if position not in at]
    after = [position for position in range(first, len(names)) if position not in at]
    placed = np.concatenate([table[:, before], part, table[:, after]], axis=1)
    return placed, [names[p] for p in before] + made + [names[p] for p in after]


def _invalid(pointer: str, code: str, detail: str) -> DataInvalid:
    return DataInvalid(detail, issues=[Issue(pointer, code, detail)])

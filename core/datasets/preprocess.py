"""`data.preprocess`: scikit-learn's scalers, imputers and encoders, fitted on train, kept as plain JSON.

A table passes through the steps as named columns of float64, windows of a series row by row. A step works on its
`columns`, where there are none on all numeric features (encoders: on all categorical ones); `"target"` names the
target. What an encoder makes of a column stands in that column's place. The result is float32.

A training set that is larger than the memory allows is fitted in pieces: by scikit-learn's `partial_fit` where a step
has it, else with only the step's own columns in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Self

import numpy as np

from core.datasets import fitted
from core.datasets.room import room_bytes
from core.datasets.samples import Array, Samples
from core.errors import DataInvalid, Issue
from core.spec.job import Component

CHUNK = 1 << 16
"""Samples that are transformed at a time."""
CHUNK_NUMBERS = 1 << 19
"""And numbers in them: 4 MiB as float64, of which a step makes a few copies."""
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
        if steps and not samples.feature_names:
            detail = (
                f"data.preprocess works on tables; this set holds {samples.kind}s of shape {samples.inputs.shape[1:]}"
            )
            hint = "use data.transforms, such as ToDtype and Normalize"
            raise DataInvalid(detail, issues=[Issue(pointer, "preprocess_not_table", detail, hint)])
        rows = slice(None) if train is None else train
        fit = _Fit(samples, rows if steps else slice(0))
        done = [fit.step(component, f"{pointer}/{index}") for index, component in enumerate(steps)]
        return cls(done, samples.feature_names, fit.names)

    def shape_of(self, inputs: Array) -> tuple[int, ...]:
        """Return the shape of what `transform` makes of inputs."""
        return (*inputs.shape[:-1], len(self.feature_names)) if self.steps else inputs.shape

    def transform(self, inputs: Array, out: Array | None = None) -> Array:
        """Return float32 [N, F'] of inputs [N, F], of windows [N, T, F'] of [N, T, F]; without steps as they are.

        Args:
            inputs: of the columns that the steps were fitted on.
            out: where the result is put, such as a mapped file.

        Raises:
            DataInvalid: a value that train did not have, or one that is still missing at the end.
        """
        if not self.steps:
            return inputs
        made = np.empty(self.shape_of(inputs), dtype=np.float32) if out is None else out
        missing = np.zeros(len(self.feature_names), dtype=np.int64)
        for start, part in _chunks(inputs):
            table = self.table_of(_flat(part))
            made[start : start + len(part)] = table.reshape(len(part), *made.shape[1:])
            missing += np.isnan(table).sum(axis=0)
        if missing.any():
            name = self.feature_names[int(np.argmax(missing))]
            detail = f"{int(missing.sum())} values are still missing after data.preprocess, most of them in {name!r}"
            hint = 'put {"type": "SimpleImputer"} before the other steps'
            raise DataInvalid(detail, issues=[Issue("/data/preprocess", "missing_values", detail, hint)])
        return made

    def table_of(self, inputs: Array) -> Array:
        """Return float64 [N, F'] of rows [N, F]; missing values may be left."""
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
        self.steps: list[Step] = []
        self.table: Array | None = None
        """All of it, where there is room."""
        if self.names and self._count() * samples.inputs[:1].size * 8 <= room_bytes():
            self.table = np.asarray(_flat(samples.inputs[rows]), dtype=np.float64)
        self.target: Array | None = None

    def _count(self) -> int:
        rows = self.rows
        return len(range(len(self.samples))[rows]) if isinstance(rows, slice) else len(rows)

    def _parts(self) -> Iterator[Array]:
        """Yield the training table as it is after the steps so far, at once or in pieces."""
        if self.table is not None:
            yield self.table
            return
        steps = Preprocessor(self.steps, self.samples.feature_names, self.names)
        rows = np.arange(len(self.samples))[self.rows]
        for _, at in _chunks(rows, row_size=self.samples.inputs[:1].size):
            yield steps.table_of(_flat(self.samples.inputs[at]))

    def step(self, component: Component, pointer: str) -> Step:
        """Fit one step and send the table through it."""
        arguments = dict(component.arguments)
        columns = arguments.pop("columns", None)
        if columns is not None and self._means_target(columns, pointer):
            return self._target_step(component.type, arguments, list(columns), pointer)
        chosen = self._columns(component.type, columns, pointer)
        at = [self.names.index(name) for name in chosen]
        estimator = self._fitted(component.type, arguments, (part[:, at] for part in self._parts()), pointer)
        made = self._made(estimator, chosen)
        if component.type in ENCODERS:
            self.categorical -= set(chosen)
        if self.table is None:
            nothing = np.empty((0, len(self.names))), np.empty((0, len(made)))
            _, self.names = _placed(nothing[0], self.names, at, nothing[1], made)
        else:
            part = np.asarray(estimator.transform(self.table[:, at]))
            self.table, self.names = _placed(self.table, self.names, at, part, made)
        step = Step(component.type, arguments, chosen, made, estimator)
        self.steps.append(step)
        return step

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
        estimator = self._fitted(kind, arguments, iter([self.target[:, at]]), pointer)
        if not hasattr(estimator, "inverse_transform") or kind in ENCODERS:
            raise _invalid(f"{pointer}/type", "no_inverse", f"{kind} cannot be undone, so it cannot work on the target")
        self.target = self.target.copy()
        self.target[:, at] = estimator.transform(self.target[:, at])
        positions = [str(position) for position in at]
        return Step(kind, arguments, positions, positions, estimator, is_target=True)

    def _fitted(self, kind: str, arguments: dict[str, Any], parts: Iterator[Array], pointer: str) -> Any:
        try:
            return _fit_in_parts(fitted.make(kind, arguments), parts)
        except fitted.UnknownStepError as error:
            raise _invalid(f"{pointer}/type", "unknown_step", str(error)) from error
        except (TypeError, ValueError) as error:
            raise _invalid(pointer, "invalid_arguments", f"{kind} cannot be fitted: {error}") from error


def _fit_in_parts(estimator: Any, parts: Iterator[Array]) -> Any:
    """Fit at once what comes in one part; else in turn, or with all parts joined where that is the only way."""
    first, second = next(parts), next(parts, None)
    if second is None or type(estimator).__name__ in fitted.WITHOUT_FIT:
        return estimator.fit(first)
    rest = chain([first, second], parts)
    if not hasattr(estimator, "partial_fit"):
        return estimator.fit(np.concatenate(list(rest)))
    for part in rest:
        estimator.partial_fit(part)
    return estimator


def _chunks(samples: Array, *, row_size: int | None = None) -> Iterator[tuple[int, Array]]:
    """Yield pieces of so many samples as the memory surely has room for, with the place where each begins.

    Args:
        samples: [N, …].
        row_size: numbers of a sample, where `samples` only stand for them.
    """
    step = max(1, min(CHUNK, CHUNK_NUMBERS // max(1, row_size or samples[:1].size)))
    for start in range(0, len(samples), step):
        yield start, samples[start : start + step]


def _flat(inputs: Array) -> Array:
    """Windows [N, T, F] as rows [N·T, F]; a table as it is."""
    return inputs.reshape(-1, inputs.shape[-1])


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

"""The script's preprocessing: scikit-learn's own steps, fitted on the training samples only."""

from collections.abc import Mapping
from typing import Any

from core.code import tables
from core.code.job import Job, arguments_of, refuse
from core.code.layout import Call, Page, Raw, tupled, written
from core.code.uploads import is_upload
from core.spec.job import Component
from core.spec.pointer import join

TARGET = "target"
ENCODERS = ("OneHotEncoder", "OrdinalEncoder")
LINNERUD = ("Weight", "Waist", "Pulse")
TUPLES = ("feature_range", "quantile_range", "degree")
BY_COLUMN = '''def by_column(x):
    """Return rows with their columns one after the other in memory: so are their sums made."""
    return np.asfortranarray(x.reshape(-1, x.shape[-1]))'''
NAMED = '''def placed(x, made, at):
    """Put what was made of some columns in their place."""
    made = made.reshape(*x.shape[:-1], -1)
    if made.shape[-1] == len(at):
        x[..., at] = made
        return x
    first, after = min(at), [place for place in range(min(at), x.shape[-1]) if place not in at]
    return np.concatenate([x[..., :first], made, x[..., after]], axis=-1)


def fit(step, columns):
    """Fit a step on the training rows of some columns; what it makes stands in their place."""
    global SETS, features
    at = [features.index(name) for name in columns]
    step.fit(by_column(x[TRAIN][..., at]))
    PLACED
    names = step.get_feature_names_out(np.array(columns, dtype=object))
    features = list(placed(np.array(features, dtype=object), names, at))'''


def preprocess(job: Job, page: Page, *, is_split: bool) -> None:
    """Write the steps in their order; `x` is float32 afterwards, and `target_scalers` undo those of the target."""
    steps = list(job.spec.data.preprocess)
    if not steps:
        return
    on_target = [step for index, step in enumerate(steps) if _is_for_target(job, step, index)]
    on_features = [step for step in steps if step not in on_target]
    rows = "[train]" if is_split else ""
    if on_features:
        is_named = any("columns" in step.arguments for step in on_features) or _categorical(job)
        (_by_name if is_named else _whole)(job, page, on_features, rows)
    if on_target:
        _on_target(job, page, on_target, rows)


def _whole(job: Job, page: Page, steps: list[Component], rows: str) -> None:
    """Write steps that work on all columns."""
    names = ["x", *(f"x_{name}" for name in job.own_sets)]
    page.add(*BY_COLUMN.splitlines())
    lines = ["# Preprocessing: what it learns, it learns from the training samples only"]
    lines += [f"{name} = {name}.astype(np.float64)" for name in names]
    back = ".reshape(*{name}.shape[:-1], -1)" if job.is_windowed else ""
    for step in steps:
        lines += written("step = ", estimator(step, page))
        lines += [f"step.fit(by_column(x{rows}))"]
        lines += [f"{name} = step.transform(by_column({name})){back.format(name=name)}" for name in names]
    page.add(*lines, *(f"{name} = np.ascontiguousarray({name}, np.float32)" for name in names))


def _by_name(job: Job, page: Page, steps: list[Component], rows: str) -> None:
    """Write steps that work on some of the columns, which keep their names."""
    names = ["x", *(f"x_{name}" for name in job.own_sets)]
    categorical = _categorical(job)
    page.add(*BY_COLUMN.splitlines())
    made = [f"{name} = placed({name}, step.transform(by_column({name}[..., at])), at)" for name in names]
    text = NAMED.replace("[TRAIN]", rows).replace("SETS", ", ".join(names))
    page.add(*text.replace("PLACED", "\n    ".join(made)).splitlines())
    lines = ["# Preprocessing: what it learns, it learns from the training samples only"]
    if job.spec.data.columns is None or not is_upload(job):
        lines += _feature_names(job)
    lines += [f"{name} = {name}.astype(np.float64)" for name in names]
    if categorical:
        lines += written("categorical = ", sorted(categorical))
    for index, step in enumerate(steps):
        lines += _step(job, step, index, page, categorical)
    page.add(*lines, *(f"{name} = np.ascontiguousarray({name}, np.float32)" for name in names))


def _step(job: Job, step: Component, index: int, page: Page, categorical: set[str]) -> list[str]:
    chosen = step.arguments.get("columns")
    made = estimator(step, page)
    if chosen is not None:
        _check_made(job, step, index)
        words: Any = list(chosen)
        lines = written("", Call("fit", (made, words)))
    else:
        what = "in" if step.type in ENCODERS else "not in"
        if step.type in ENCODERS or categorical:
            columns = f"[name for name in features if name {what} categorical]"
        else:
            columns = "features"
        lines = [*written("columns = ", Raw(columns)), *written("", Call("fit", (made, Raw("columns"))))]
    if step.type in ENCODERS:
        done = set(chosen) if chosen is not None else set(categorical)
        if done & categorical:
            categorical -= done
            lines += written("categorical = ", sorted(categorical))
    return lines


def _check_made(job: Job, step: Component, index: int) -> None:
    known = tables.feature_names(job)
    unknown = [name for name in step.arguments["columns"] if known is not None and name not in known]
    if unknown:
        detail = f"The step works on {unknown[0]!r}, a column that an encoder before it makes."
        raise refuse(join("/data/preprocess", index, "columns"), "made_column", detail,
                     "Leave columns out: the step then works on all numeric ones.")  # fmt: skip


def _feature_names(job: Job) -> list[str]:
    if job.spec.data.columns is not None:
        return [] if _has_features(job) else ["features = names"]
    if job.spec.data.train.type.startswith("sklearn"):
        return ["features = [str(name) for name in bunch.feature_names]"]
    return ['features = [f"x{column}" for column in range(x.shape[1])]']


def _has_features(job: Job) -> bool:
    columns = job.spec.data.columns
    return columns is not None and bool(
        columns.features is not None or columns.group_by or columns.order_by or columns.categorical
    )


def _categorical(job: Job) -> set[str]:
    """Return the features that hold categories, as far as words of the spec or the upload's profile say so."""
    return tables.categorical(job)


def estimator(step: Component, page: Page) -> Call:
    """Return the call that makes scikit-learn's transformer."""
    page.use("sklearn.impute" if step.type == "SimpleImputer" else "sklearn.preprocessing", step.type)
    given = arguments_of("preprocess", step, without=("columns",))
    made = {name: tupled(value) if name in TUPLES else value for name, value in given.items()}
    if step.type == "OneHotEncoder":
        made["sparse_output"] = False
    if step.type == "SimpleImputer":
        made = _imputer(step, made)
    if step.type == "QuantileTransformer":
        made["random_state"] = step.arguments.get("random_state") or 0
    return Call(step.type, (), made)


def _imputer(step: Component, made: Mapping[str, Any]) -> dict[str, Any]:
    kept = step.arguments.get("keep_empty_features", True)
    missing = {} if step.arguments.get("missing_values") is None else {"missing_values": made["missing_values"]}
    others = {name: value for name, value in made.items() if name not in ("missing_values", "keep_empty_features")}
    return {**missing, **others, **({"keep_empty_features": True} if kept else {})}


def _is_for_target(job: Job, step: Component, index: int) -> bool:
    columns = step.arguments.get("columns")
    names = _target_names(job)
    if columns is None or not any(name == TARGET or name in names for name in columns):
        return False
    is_all = list(columns) == [TARGET] or set(columns) >= set(names)
    if not is_all:
        detail = "A step on some of several targets is not written out."
        raise refuse(join("/data/preprocess", index, "columns"), "some_targets", detail, 'Name "target": all of them.')
    return True


def _target_names(job: Job) -> tuple[str, ...]:
    columns = job.spec.data.columns
    if columns is not None and columns.target is not None:
        return (columns.target,) if isinstance(columns.target, str) else tuple(columns.target)
    return LINNERUD if job.spec.data.train.type == "sklearn.linnerud" else tables.target_names(job)


def _on_target(job: Job, page: Page, steps: list[Component], rows: str) -> None:
    others = [f"y_{name}" for name in job.own_sets]
    by_column = "np.asfortranarray({})".format if len(_target_names(job)) > 1 else str
    lines = ["# The target is scaled too; metrics are measured in its own units"]
    lines += [f"{name} = {name}.reshape(len({name}), -1).astype(np.float64)" for name in ("y", *others)]
    names = ["target_scaler"] if len(steps) == 1 else [f"target_scaler_{at}" for at in range(1, len(steps) + 1)]
    for name, step in zip(names, steps, strict=True):
        lines += written(f"{name} = ", estimator(step, page))
        lines += [
            f"y = {name}.fit({by_column(f'y{rows}')}).transform(y)",
            *(f"{one} = {name}.transform({one})" for one in others),
        ]
    page.add(*lines)


def target_scalers(job: Job) -> list[str]:
    """Return the names of what scales the target, in the order in which they were fitted."""
    count = sum(_is_for_target(job, step, index) for index, step in enumerate(job.spec.data.preprocess))
    return ["target_scaler"] if count == 1 else [f"target_scaler_{at}" for at in range(1, count + 1)]


def own_units(job: Job) -> str:
    """Return the expression that takes `values`, a float64 tensor, back to the target's own units."""
    made = "values.numpy()"
    for name in reversed(target_scalers(job)):
        made = f"{name}.inverse_transform({made})"
    return made

"""The sets that a spec names: what is known of them, and whether they go together."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.datasets import Facts
from core.datasets import describe as describe_source
from core.datasets.preprocess import fills_missing
from core.datasets.splitting import size_of_part
from core.errors import Issue
from core.spec.chance import is_random
from core.spec.job import Component, DataSplit, JobSpec
from core.spec.pointer import join
from core.train.sets import Places, divide, load_part


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of the sets; val and test only where they are sources of their own."""

    train: Facts
    val: Facts | None
    test: Facts | None
    left_out: int = 0
    """Windows of a series that belong to no part, since they lie across a border."""


def describe(spec: JobSpec, places: Places) -> Described:
    """Look at every source that the spec names.

    Raises:
        DataInvalid: one is not there, or not what the spec says.
    """
    train = facts(spec, spec.data.train, "train", places)
    own = {
        name: facts(spec, part, name, places) if isinstance(part, Component) else None
        for name, part in (("val", spec.data.val), ("test", spec.data.test))
    }
    return Described(train, own["val"], own["test"], _left_out(spec, places))


def _left_out(spec: JobSpec, places: Places) -> int:
    """Split a series as the trainer will, to count the windows that are left out.

    Raises:
        DataInvalid: no window is left for one of the parts.
    """
    is_split = any(isinstance(part, DataSplit) for part in (spec.data.val, spec.data.test))
    if spec.data.train.arguments.get("window") is None or not is_split:
        return 0
    source = load_part(spec.data, spec.data.train, "train", places)
    parts = divide(spec.data, source, spec.seed or 0)
    return len(source) - sum(len(part) for part in (parts.train, parts.val, parts.test) if part is not None)


def facts(spec: JobSpec, source: Component, name: str, places: Places) -> Facts:
    """Return what is known of one source.

    Raises:
        DataInvalid: it is not there, or not what the spec says.
    """
    return describe_source(
        source,
        datasets_dir=places.datasets_dir,
        cache_dir=places.cache_dir,
        uploads=places.uploads,
        columns=spec.data.columns,
        max_samples=spec.data.max_samples,
        allow_missing=fills_missing(spec.data.preprocess),
        pointer=join("/data", name),
    )


def findings(spec: JobSpec, sets: Described) -> Iterator[Issue]:
    """Say where the sets do not go together."""
    for name, own in (("val", sets.val), ("test", sets.test)):
        if own is not None:
            yield from _unlike(own, sets.train, join("/data", name), _of_equal_length(spec, name))
        part = getattr(spec.data, name)
        if isinstance(part, DataSplit) and part.stratify:
            yield from _stratify(spec, sets.train, part, join("/data", name, "stratify"))


def random_in_eval(spec: JobSpec) -> Iterator[Issue]:
    """Say which transforms would make validation differ from one time to the next."""
    for index, part in enumerate(spec.data.transforms.eval if spec.data.transforms else ()):
        if is_random(part):
            pointer = join("/data/transforms/eval", index)
            detail = f"{part.type} is random: the same validation would give another result each time."
            fix = ({"op": "remove", "path": pointer},)
            yield Issue(pointer, "random_in_eval", detail, "Let it stand in train only.", fix)


def _of_equal_length(spec: JobSpec, name: str) -> str | None:
    """Say how two files of sequences become equally long, where neither of their sources says so."""
    sources = (spec.data.train, getattr(spec.data, name))
    if any(source.type != "dataset" or source.arguments.get("length") for source in sources):
        return None
    return 'Of sequences (jsonl): give both sources the same "length"; each is padded to its own longest without.'


def _unlike(own: Facts, train: Facts, pointer: str, hint: str | None) -> Iterator[Issue]:
    """Say how a set of its own differs from the training set."""
    if own.sample_shape != train.sample_shape or own.feature_names != train.feature_names:
        detail = f"Its samples have shape {own.sample_shape}, those of train {train.sample_shape}."
        if own.sample_shape == train.sample_shape:
            detail = "Its columns are not those of train, in their order."
        yield Issue(pointer, "other_columns", detail, hint if own.kind == "array" else None)
    if own.target_shape != train.target_shape:
        detail = f"Its targets have shape {own.target_shape}, those of train {train.target_shape}."
        yield Issue(pointer, "other_target", detail)
    unknown = [name for name in own.classes or () if train.classes is not None and name not in train.classes]
    if unknown:
        yield Issue(pointer, "unknown_class", f'Its class "{unknown[0]}" is not in the training set.')


def _stratify(spec: JobSpec, train: Facts, part: DataSplit, pointer: str) -> Iterator[Issue]:
    fix = ({"op": "replace", "path": pointer, "value": False},)
    columns = spec.data.columns
    if train.target_shape != () or train.target_dtype != "int64":
        yield Issue(pointer, "not_classes", "The target has no classes to stratify by.", fix=fix)
    elif columns is not None and (columns.group_by or columns.order_by):
        detail = "A split cannot keep the classes' shares and follow columns.group_by or order_by as well."
        yield Issue(pointer, "stratify_conflict", detail, fix=fix)
    elif train.class_counts is not None:
        present = sum(count > 0 for count in train.class_counts)
        size = size_of_part(train.samples, part.fraction)
        if size > train.samples - present:
            detail = (
                f"{train.samples} samples of {present} classes cannot give {size} and keep one of each to train on."
            )
            yield Issue(pointer, "too_few_per_class", detail, fix=fix)

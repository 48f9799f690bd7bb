"""From a source in a spec to samples: find who decodes it, look into the cache, take `max_samples`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.datasets.cache import Cache
from core.datasets.formats import UnreadableError
from core.datasets.roles import select
from core.datasets.samples import Array, Facts, Samples
from core.errors import DataInvalid, Issue
from core.messages import DatasetFile
from core.spec.job import Columns, Component

SUBSET_SEED = 20_240_117
"""Of the permutation that `max_samples` takes its samples from; the same for every set and job."""


class Source(Protocol):
    """Somebody who can decode a source; `takes_columns` where columns get their roles while decoding."""

    @property
    def takes_columns(self) -> bool:
        """Whether `data.columns` decides what is decoded."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what decides the decoded bytes: the cache's key."""
        ...

    def decode(self, scratch: Path, /) -> Samples:
        """Decode everything; large arrays may be put into `scratch` as `<name>.npy`."""
        ...


def load(
    source: Component,
    *,
    datasets_dir: Path,
    cache_dir: Path,
    uploads: Mapping[str, DatasetFile],
    columns: Columns | None = None,
    max_samples: int | None = None,
    allow_missing: bool = False,
    pointer: str = "/data/train",
) -> Samples:
    """Return the samples of a source, mapped from the cache.

    Args:
        source: what stands at `data.train`, `data.val` or `data.test`.
        datasets_dir: the operator's folder of torchvision's sets.
        cache_dir: decoded arrays are kept there.
        uploads: local files by `"<dataset id>@<version>"`.
        columns: roles of a table's columns.
        max_samples: use only so many: those that come first in a fixed permutation, in the source's order. That is
            the same choice every time, and one that holds all classes of a file sorted by class.
        allow_missing: keep missing values as NaN (an imputer follows) instead of refusing them.
        pointer: where the source stands in the spec, for the errors.

    Raises:
        DataInvalid: the data is not there, or not what the source says; issues point into the spec.
    """
    reader = _reader(source, datasets_dir, uploads, columns, pointer)
    return _decoded(reader, cache_dir, columns, max_samples, allow_missing=allow_missing, pointer=pointer)[0]


def describe(
    source: Component,
    *,
    datasets_dir: Path,
    cache_dir: Path,
    uploads: Mapping[str, DatasetFile],
    columns: Columns | None = None,
    max_samples: int | None = None,
    allow_missing: bool = False,
    pointer: str = "/data/train",
) -> Facts:
    """Return what `load` would hold, from the cache's notes alone where the source was decoded before.

    Raises:
        DataInvalid: as `load`.
    """
    reader = _reader(source, datasets_dir, uploads, columns, pointer)
    return _decoded(reader, cache_dir, columns, max_samples, allow_missing=allow_missing, pointer=pointer)[1]


def _decoded(
    reader: Source,
    cache_dir: Path,
    columns: Columns | None,
    max_samples: int | None,
    *,
    allow_missing: bool,
    pointer: str,
) -> tuple[Samples, Facts]:
    samples, facts = _narrowed(*Cache(cache_dir).entry(reader.identity(), reader.decode), max_samples)
    if columns is not None and not reader.takes_columns:
        try:
            samples = select(samples, columns)
        except UnreadableError as error:
            raise error.as_invalid(pointer) from error
        facts = samples.facts()
    if not allow_missing:
        _refuse_missing(facts, pointer)
    return samples, facts


def _narrowed(samples: Samples, facts: Facts, max_samples: int | None) -> tuple[Samples, Facts]:
    if max_samples is None or max_samples >= facts.samples:
        return samples, facts
    part = samples.take(subset(facts.samples, max_samples))
    return part, part.facts()


def subset(samples: int, count: int) -> Array:
    """Return `count` of the indices 0…samples-1, chosen at random but always the same, rising."""
    # Raw bits of a bit generator never change between NumPy versions; `Generator.permutation` may.
    keys = np.random.PCG64(SUBSET_SEED).random_raw(samples)
    return np.sort(np.argsort(keys, kind="stable")[:count])


def _reader(
    source: Component, datasets_dir: Path, uploads: Mapping[str, DatasetFile], columns: Columns | None, pointer: str
) -> Source:
    """Find who decodes the source; modules are imported when they are needed."""
    family, _, name = source.type.rpartition(".")
    if family == "sklearn":
        from core.datasets.bundled import Bundled

        return Bundled(name, source.arguments)
    if family == "torchvision":
        from core.datasets.folder import Folder

        return Folder(name, source.arguments, root=datasets_dir, pointer=pointer)
    if family == "synthetic":
        from core.datasets.synthetic import Synthetic

        return Synthetic(name, source.arguments, pointer=pointer)
    if source.type == "dataset":
        from core.datasets.uploaded import uploaded

        return uploaded(source.arguments, uploads, columns, pointer)
    detail = f"no data source is called {source.type!r}"
    hint = "GET /v1/components/data_sources lists them"
    raise DataInvalid(detail, issues=[Issue(f"{pointer}/type", "unknown_source", detail, hint)])


def _refuse_missing(facts: Facts, pointer: str) -> None:
    if not facts.missing:
        return
    counts = ", ".join(f"{count} in {name!r}" for name, count in list(facts.missing.items())[:5])
    detail = f"{sum(facts.missing.values())} values are missing: {counts}{' and more' * (len(facts.missing) > 5)}"
    hint = 'fill them with {"type": "SimpleImputer"} in data.preprocess, or leave the columns out in data.columns'
    raise DataInvalid(detail, issues=[Issue(pointer, "missing_values", detail, hint)])

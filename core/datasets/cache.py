"""Decoded sets on disk: one folder per identity, written once, mapped into memory by everybody afterwards.

    <cache dir>/data/<key>/{inputs,target,groups,order,spans}.npy, meta.json

A folder is written beside its place and renamed into it, so that it is there whole or not at all; of two processes that
race, the second throws its own away. `meta.json` holds sizes and checksums: what does not match is built again.

A file is not read again to be compared as long as its inode and times are those of when that was done: hashing MNIST
takes longer than all else that preflight does.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.datasets.leftovers import sweep
from core.datasets.mapping import create_mapped
from core.datasets.samples import Array, Facts, Samples, in_parts

VERSION = 3
"""Part of every key: raise it when decoding changes, and old folders are no longer found."""
CHECKED_BYTES = 64 << 20
"""Arrays up to this size are checksummed when their file is not as it was left; of larger ones the size is compared."""
ARRAYS = ("inputs", "target", "groups", "order", "spans")

Decode = Callable[[Path], Samples]
"""Decodes a source; may put large arrays as `<name>.npy` into the folder it is given."""


def key_of(identity: Mapping[str, Any]) -> str:
    """Return the folder name for what decides the decoded bytes."""
    text = json.dumps([VERSION, identity], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


class Cache:
    """Decoded sets below a folder that is safe to delete."""

    def __init__(self, cache_dir: Path) -> None:
        self.folder = cache_dir / "data"

    def entry(self, identity: Mapping[str, Any], decode: Decode) -> tuple[Samples, Facts]:
        """Return a source's mapped arrays and its facts, decoding it where they are not there or not whole."""
        place = self.folder / key_of(identity)
        entry = _open(place)
        if entry is None:
            self._build(place, decode)
            entry = _open(place)
        if entry is None:
            raise OSError(f"the cache folder {place} cannot be read back just after it was written; check the disk")
        return entry

    def _build(self, place: Path, decode: Decode) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for prefix in (".tmp-", ".old-"):
            sweep(self.folder, prefix)
        scratch = Path(tempfile.mkdtemp(prefix=".tmp-", dir=self.folder))
        try:
            _write(scratch, decode(scratch))
            _move(scratch, place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _move(scratch: Path, place: Path) -> None:
    """Put a finished folder in its place; what is whole there already stays."""
    if place.exists() and _open(place) is None:
        aside = Path(tempfile.mkdtemp(prefix=".old-", dir=place.parent))
        with contextlib.suppress(OSError):  # another process moved it first
            place.rename(aside / place.name)
        shutil.rmtree(aside, ignore_errors=True)
    try:
        scratch.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _write(folder: Path, samples: Samples) -> None:
    arrays = {name: getattr(samples, name) for name in ARRAYS if getattr(samples, name) is not None}
    files = {name: _write_array(folder / f"{name}.npy", array) for name, array in arrays.items()}
    whole = replace(samples, digest=_digest(samples))
    meta = {
        "files": files,
        "facts": json.loads(whole.facts().to_json()),
    }
    _write_synced(folder / "meta.json", json.dumps(meta).encode())


def _write_array(path: Path, array: Array) -> dict[str, Any]:
    if isinstance(array, np.memmap) and array.filename == path:
        array.flush()
    elif array.flags.c_contiguous:
        np.save(path, array, allow_pickle=False)
    else:  # turned around: never all of it in memory
        made = create_mapped(path, dtype=array.dtype, shape=array.shape)
        at = 0
        for part in in_parts(array):
            made[at : at + len(part)] = part
            at += len(part)
        del made  # written by the time that its digest is taken: both read the same pages
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return {"size_bytes": path.stat().st_size, "sha256": digest, "stamp": _stamp(path)}


def _stamp(path: Path) -> list[int]:
    """Return what changes whenever a file is written, replaced or brought here from elsewhere."""
    about = path.stat()
    return [about.st_ino, about.st_mtime_ns, about.st_ctime_ns]


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _digest(samples: Samples) -> str:
    """SHA-256 over names, classes and the arrays' bytes."""
    names = [samples.kind, samples.feature_names, samples.target_names, samples.classes, samples.categories]
    sha256 = hashlib.sha256(json.dumps(names, sort_keys=True).encode())
    for array in (samples.inputs, samples.target):
        if array is not None:
            sha256.update(f"{array.dtype.str}{array.shape}".encode())
            for part in in_parts(array):
                sha256.update(np.ascontiguousarray(part).data)
    return sha256.hexdigest()


def _open(place: Path) -> tuple[Samples, Facts] | None:
    """Map a folder's arrays; None where it is not there or not whole."""
    try:
        meta = json.loads((place / "meta.json").read_bytes())
        facts = Facts.from_json(json.dumps(meta["facts"]))
        arrays = {name: _open_array(place / f"{name}.npy", about) for name, about in meta["files"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    samples = Samples(
        inputs=arrays["inputs"],
        target=arrays.get("target"),
        feature_names=facts.feature_names,
        target_names=facts.target_names,
        classes=facts.classes,
        kind=facts.kind,
        digest=facts.digest,
        categories=facts.categories,
        groups=arrays.get("groups"),
        order=arrays.get("order"),
        spans=arrays.get("spans"),
    )
    return samples, facts


def _open_array(path: Path, about: dict[str, Any]) -> Array:
    size = path.stat().st_size
    if size != about["size_bytes"]:
        raise ValueError(f"{path} has {size} bytes instead of {about['size_bytes']}")
    if size <= CHECKED_BYTES and _stamp(path) != about["stamp"]:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != about["sha256"]:
                raise ValueError(f"{path} has another checksum than when it was written")
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array

"""NPZ and IDX uploads: arrays without names for their columns.

NPZ: inputs are called `x`, `X`, `inputs`, `images`, `data` or `features`; the target `y`, `Y`, `target`, `targets`,
`labels` or `label`. Arrays of Python objects are refused. IDX: one file, gzipped or not, or a zip of images and labels.
"""

import math
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from core.datasets import idx
from core.datasets.archives import open_archive
from core.datasets.formats import Limits, UnreadableError
from core.datasets.mapping import create_mapped
from core.datasets.room import room_bytes
from core.datasets.samples import Array, Kind, Samples, in_parts

INPUTS = ("x", "X", "inputs", "images", "data", "features")
TARGET = ("y", "Y", "target", "targets", "labels", "label")
CHANNELS = (1, 3, 4)
CHUNK_BYTES = 1 << 20
MAX_CLASSES = 10_000


def decode_npz(path: Path, limits: Limits, scratch: Path) -> Samples:
    """Decode the two arrays of an NPZ file.

    Raises:
        UnreadableError: names the array that is missing, made of objects, not finite, or of another length.
    """
    with open_archive(path, limits) as archive:
        names = [name.removesuffix(".npy") for name in archive.names]
        found = [next((name for name in known if name in names), None) for known in (INPUTS, TARGET)]
        if found[0] is None:
            detail = f"the NPZ holds {', '.join(map(repr, names[:10]))}; none of them is called {', '.join(INPUTS)}"
            raise UnreadableError("no_inputs", detail, "np.savez(file, x=inputs, y=target)")
        arrays: list[Array | None] = []
        for name, kind in zip(found, ("inputs", "target"), strict=True):
            if name is None:
                arrays.append(None)
                continue
            entry = name if name in archive.entries else f"{name}.npy"
            with archive.open(entry) as stream:
                arrays.append(_read_npy(stream, name, scratch / f"raw-{kind}.npy", limits))
    try:
        return _samples(cast("Array", arrays[0]), arrays[1], scratch / "inputs.npy")
    finally:
        for kind in ("inputs", "target"):
            (scratch / f"raw-{kind}.npy").unlink(missing_ok=True)


def decode_idx(path: Path, limits: Limits, _scratch: Path) -> Samples:
    """Decode one IDX file, or a zip of images and labels.

    Raises:
        UnreadableError: names the file that is no IDX file, or says which of the two is missing.
    """
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if not is_zip:
        try:
            return _samples(idx.read(path, max_bytes=limits.max_unpacked_bytes), None)
        except idx.IdxError as error:
            raise UnreadableError("not_idx", f"the file is no IDX file: {error}") from error
    arrays: dict[str, Array] = {}
    with open_archive(path, limits) as archive:
        for name in archive.names:
            with archive.open(name) as stream:
                try:
                    arrays[name] = idx.read_file(stream, max_bytes=limits.max_unpacked_bytes)
                except idx.IdxError as error:
                    raise UnreadableError("not_idx", f"{name!r} in the zip is no IDX file: {error}") from error
    by_rank = sorted(arrays.values(), key=lambda array: array.ndim, reverse=True)
    if len(by_rank) != 2 or by_rank[1].ndim != 1 or by_rank[0].ndim == 1:
        shapes = ", ".join(f"{name!r} {array.shape}" for name, array in arrays.items())
        hint = "pack one file of images and one of labels, such as train-images-idx3-ubyte and train-labels-idx1-ubyte"
        raise UnreadableError("not_a_pair", f"the zip holds {shapes}; an images and a labels file are needed", hint)
    return _samples(by_rank[0], by_rank[1])


def _read_npy(stream: IO[bytes], name: str, path: Path, limits: Limits) -> Array:
    """Read one array of an archive piece by piece into a file, and map it."""
    shape, is_fortran, dtype = _npy_header(stream, name)
    if math.prod(shape) * dtype.itemsize > limits.max_unpacked_bytes:
        raise UnreadableError("unpacks_too_large", f"the array {name!r} of shape {shape} is larger than allowed")
    order = shape[::-1] if is_fortran else shape
    array: Array = create_mapped(path, dtype=dtype, shape=order)
    flat = array.reshape(-1)
    step = max(1, CHUNK_BYTES // dtype.itemsize)
    for start in range(0, flat.size, step):
        part = flat[start : start + step]
        piece = stream.read(part.nbytes)
        if len(piece) < part.nbytes:
            raise UnreadableError("not_npy", f"the array {name!r} is cut off")
        part[:] = np.frombuffer(piece, dtype=dtype)
    if stream.read(1):
        raise UnreadableError("not_npy", f"the array {name!r} has bytes after its end")
    return array.T if is_fortran else array


def _npy_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(cast("Any", stream))
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(cast("Any", stream))
    except (ValueError, EOFError) as error:
        raise UnreadableError("not_npy", f"{name!r} in the NPZ is no NumPy array: {error}") from error
    if dtype.hasobject:
        detail = f"the array {name!r} holds Python objects, which are never unpickled"
        raise UnreadableError(
            "pickled_objects", detail, "store numbers or text: array.astype('float32') or astype(str)"
        )
    if dtype.kind not in "biufU" or not shape or not dtype.itemsize:
        raise UnreadableError("bad_dtype", f"the array {name!r} is {dtype} of shape {shape}; numbers [N, …] are needed")
    return shape, is_fortran, dtype


def _samples(inputs: Array, target: Array | None, place: Path | None = None) -> Samples:
    if inputs.dtype.kind == "U":
        raise UnreadableError("bad_dtype", "the inputs hold text; numbers are needed")
    if not len(inputs) or inputs.ndim < 2:
        raise UnreadableError("bad_shape", f"inputs of shape {inputs.shape}: samples first, [N, features] or [N, …]")
    if target is not None and len(target) != len(inputs):
        detail = f"there are {len(inputs)} inputs and {len(target)} targets"
        raise UnreadableError("lengths_differ", detail)
    kind, made = _inputs(inputs, place)
    names = [f"x{column}" for column in range(made.shape[1])] if kind == "table" else []
    labels, classes = (None, None) if target is None else _target(target)
    wide = labels is not None and labels.ndim == 2
    target_names = (
        [f"target{column}" for column in range(labels.shape[1])] if labels is not None and wide else ["target"]
    )
    return Samples(made, labels, names, target_names, classes, kind)


def _inputs(array: Array, place: Path | None) -> tuple[Kind, Array]:
    if array.dtype == np.uint8 and array.ndim == 3:
        return "image", array[:, None]
    if array.dtype == np.uint8 and array.ndim == 4:
        is_last = array.shape[1] not in CHANNELS and array.shape[3] in CHANNELS
        return "image", array.transpose(0, 3, 1, 2) if is_last else array
    infinite = sum(int(np.isinf(part).sum()) for part in in_parts(array)) if array.dtype.kind == "f" else 0
    if infinite:
        raise UnreadableError("not_finite", f"the inputs hold {infinite} infinite numbers")
    if array.ndim == 2:
        return "table", _as(array, np.float32, place)
    return "array", _as(array, np.int64 if array.dtype.kind in "iu" else np.float32, place)


def _as(array: Array, dtype: Any, place: Path | None) -> Array:
    """Return the array in another type; in a mapped file at `place` where it is too large for the memory."""
    if array.dtype == dtype or place is None or array.size * np.dtype(dtype).itemsize <= room_bytes():
        return array.astype(dtype, copy=False)
    made = create_mapped(place, dtype=dtype, shape=array.shape)
    at = 0
    for part in in_parts(array):
        made[at : at + len(part)] = part
        at += len(part)
    return made


def _target(array: Array) -> tuple[Array, list[str] | None]:
    """Labels int64 with their classes, or numbers float32."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind in "Ub" and array.ndim == 1:
        values, labels = np.unique(array, return_inverse=True)
        return labels.astype(np.int64), [str(value) for value in values]
    if array.dtype.kind == "U":
        raise UnreadableError("bad_dtype", f"a target of text must have one dimension, not {array.ndim}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UnreadableError(
            "not_finite", f"the target holds {int((~np.isfinite(array)).sum())} NaN or infinite numbers"
        )
    if array.dtype.kind in "iu" and array.ndim == 1:
        return array.astype(np.int64), counted_classes(array)
    return array.astype(np.float32), None


def counted_classes(labels: Array) -> list[str] | None:
    """Class names of labels that are exactly 0…K-1; None for any other integers, which may be amounts."""
    if labels.min() != 0 or not 1 <= labels.max() < MAX_CLASSES or len(np.unique(labels)) != labels.max() + 1:
        return None
    return [str(label) for label in range(int(labels.max()) + 1)]

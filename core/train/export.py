"""What a job leaves behind: weights, the spec as it ran, and all that is needed to feed the model new samples."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from core.messages import FileRef
from core.train.checkpoint import write_durably

FORMAT = "epochd-model/1"


def write_weights(folder: Path, name: str, weights: Mapping[str, Tensor]) -> FileRef:
    """Write weights as safetensors; the same weights give the same bytes.

    Each tensor is copied: tied weights share memory, which the format does not know.
    """
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}
    return _write(folder, name, save(tensors))


def write_json(folder: Path, name: str, body: Mapping[str, Any]) -> FileRef:
    """Write JSON with sorted keys; the same body gives the same bytes."""
    return _write(folder, name, json.dumps(body, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n")


def _write(folder: Path, name: str, data: bytes) -> FileRef:
    write_durably(folder / name, data)
    return FileRef(name=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))

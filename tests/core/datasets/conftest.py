"""Sources and uploads as the trainer names them."""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.datasets import Samples, load
from core.messages import DatasetFile
from core.spec.job import Columns, Component

Load = Callable[..., Samples]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Load a source given as JSON, with an empty operator's folder and a private cache."""

    def call(source: Mapping[str, Any], **more: Any) -> Samples:
        more.setdefault("datasets_dir", tmp_path / "datasets")
        more.setdefault("cache_dir", tmp_path / "cache")
        more.setdefault("uploads", {})
        if isinstance(more.get("columns"), dict):
            more["columns"] = Columns(**more["columns"])
        return load(Component.model_validate(source), **more)

    return call


@pytest.fixture
def read_upload(tmp_path: Path, read: Load) -> Load:
    """Load bytes as an upload of some format."""

    def call(content: bytes, kind: str, **more: Any) -> Samples:
        from hashlib import sha256

        digest = sha256(content).hexdigest()
        path = tmp_path / digest
        path.write_bytes(content)
        uploads = {"ds_1@1": DatasetFile(path=str(path), format=kind, sha256=digest)}
        return read({"type": "dataset", "id": "ds_1", "version": 1}, uploads=uploads, **more)

    return call


@pytest.fixture
def zipped() -> Callable[[Mapping[str, bytes]], bytes]:
    """Pack files by name."""

    def call(files: Mapping[str, bytes]) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return packed.getvalue()

    return call


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Draw an image of one colour."""
    from PIL import Image

    def call(colour: Any = 0, *, size: tuple[int, int] = (4, 3), mode: str = "L") -> bytes:
        drawn = io.BytesIO()
        Image.new(mode, size, colour).save(drawn, "PNG")
        return drawn.getvalue()

    return call

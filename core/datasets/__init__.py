"""Data sets without torch: sources, uploads, splits and preprocessing as NumPy arrays, files and indices.

Names are looked up at first use, so that `import core.datasets.uploads` costs milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.datasets.aligning import align
    from core.datasets.loading import describe, load
    from core.datasets.preprocess import Preprocessor
    from core.datasets.profiling import preview, profile
    from core.datasets.samples import Facts, Samples
    from core.datasets.splitting import Split, split

__all__ = ["Facts", "Preprocessor", "Samples", "Split", "align", "describe", "load", "preview", "profile", "split"]

_HOMES = {
    "Facts": "samples",
    "Preprocessor": "preprocess",
    "Samples": "samples",
    "Split": "splitting",
    "align": "aligning",
    "describe": "loading",
    "load": "loading",
    "preview": "profiling",
    "profile": "profiling",
    "split": "splitting",
}


def __getattr__(name: str) -> Any:
    """Import the module that defines `name` (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"core.datasets.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'core.datasets' has no attribute {name!r}")

"""`sklearn.*`: the real data sets that scikit-learn carries; they work with no network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core.datasets.samples import Samples
from core.versions import installed

NAMES = ("digits", "iris", "wine", "breast_cancer", "diabetes", "linnerud")
CLASSIFICATION = ("digits", "iris", "wine", "breast_cancer")
DIGITS_MAX = 16  # brightest pixel of sklearn's digits


class Bundled:
    """One of scikit-learn's own sets, as a table of float32, or digits as images."""

    takes_columns = False

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.name = name
        self.is_image = arguments.get("as") == "image"

    def identity(self) -> dict[str, Any]:
        """Return what decides the decoded bytes."""
        return {"sklearn": self.name, "image": self.is_image, "version": installed("scikit-learn")}

    def decode(self, _scratch: Path) -> Samples:
        """Read the set: labels are int64, other targets float32."""
        from sklearn import datasets

        bunch = getattr(datasets, f"load_{self.name}")()
        is_classes = self.name in CLASSIFICATION
        target = np.asarray(bunch.target, dtype=np.int64 if is_classes else np.float32)
        classes = [str(name) for name in bunch.target_names] if is_classes else None
        target_names = list(bunch.target_names) if self.name == "linnerud" else ["target"]
        if self.is_image:
            return Samples(_stretch(bunch.images), target, [], target_names, classes, "image")
        names = [str(name) for name in bunch.feature_names]
        return Samples(np.asarray(bunch.data, dtype=np.float32), target, names, target_names, classes)


def _stretch(images: Any) -> Any:
    """Turn brightness 0…16 [N, 8, 8] into uint8 0…255 [N, 1, 8, 8]."""
    return np.rint(np.asarray(images) * (255 / DIGITS_MAX)).astype(np.uint8)[:, None]

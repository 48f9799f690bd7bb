"""`synthetic.*`: scikit-learn's generators, with `samples` and `seed` and their own arguments."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core.datasets.samples import Array, Samples
from core.errors import DataInvalid, Issue
from core.versions import installed

CLASSIFICATION = ("moons", "circles", "blobs", "classification", "gaussian_quantiles", "hastie_10_2")
REGRESSION = ("regression", "friedman1", "friedman2", "friedman3", "s_curve", "swiss_roll", "sparse_uncorrelated")
NAMES = (*CLASSIFICATION, *REGRESSION, "multilabel_classification")
DEFAULT_SAMPLES = 100
MAX_NUMBERS = 1 << 28
"""`samples` times features may be so many: 1 GiB of float32."""


class Synthetic:
    """A generated set: `samples` (default 100) are drawn with `seed` (default 0)."""

    takes_columns = False

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pointer: str) -> None:
        self.name = name
        self.pointer = pointer
        own = dict(arguments)
        self.samples = own.pop("samples", DEFAULT_SAMPLES)
        self.seed = own.pop("seed", None) or 0
        self.arguments = own

    def identity(self) -> dict[str, Any]:
        """Return what decides the numbers."""
        arguments = {**self.arguments, "samples": self.samples, "seed": self.seed}
        return {"synthetic": self.name, "arguments": arguments, "version": installed("scikit-learn")}

    def decode(self, _scratch: Path) -> Samples:
        """Generate the set: labels are int64, other targets float32."""
        features = int(self.arguments.get("n_features") or 20)
        if self.samples * features > MAX_NUMBERS:
            detail = f"{self.samples} samples of {features} features are more than {MAX_NUMBERS} numbers"
            raise self._invalid(f"{self.pointer}/samples", detail)
        inputs, target = self._generate()
        names = [f"x{column}" for column in range(inputs.shape[1])]
        classes = None
        if self.name in CLASSIFICATION:
            labels, target = np.unique(target, return_inverse=True)
            classes = [str(int(label)) for label in labels]
        target = target.astype(np.int64 if classes else np.float32)
        target_names = ["target"] if target.ndim == 1 else [f"target{column}" for column in range(target.shape[1])]
        return Samples(inputs.astype(np.float32), target, names, target_names, classes)

    def _generate(self) -> tuple[Array, Array]:
        from sklearn import datasets

        if self.name not in NAMES:
            raise self._invalid(f"{self.pointer}/type", f"no generator is called synthetic.{self.name}")
        make: Callable[..., Any] = getattr(datasets, f"make_{self.name}")
        try:
            made = make(n_samples=self.samples, random_state=self.seed, **self.arguments)
        except (TypeError, ValueError) as error:
            raise self._invalid(self.pointer, f"synthetic.{self.name} refuses its arguments: {error}") from error
        if len(made) != 2:
            detail = f"synthetic.{self.name} returns more than inputs and target with these arguments"
            raise self._invalid(self.pointer, detail)
        return np.asarray(made[0]), np.asarray(made[1])

    def _invalid(self, pointer: str, detail: str) -> DataInvalid:
        return DataInvalid(detail, issues=[Issue(pointer, "invalid_arguments", detail)])

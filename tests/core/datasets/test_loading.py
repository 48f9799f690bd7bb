import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import datasets

from core.datasets import Samples, describe
from core.datasets.loading import subset
from core.errors import DataInvalid
from core.spec.job import Component

Load = Callable[..., Samples]
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer"])
def test_bundled_classification_equals_sklearn(name: str, read: Load) -> None:
    bunch = getattr(datasets, f"load_{name}")()
    samples = read({"type": f"sklearn.{name}"})
    assert samples.target is not None
    assert np.array_equal(samples.inputs, bunch.data.astype(np.float32))
    assert samples.target.dtype == np.int64
    assert np.array_equal(samples.target, bunch.target)
    assert samples.classes == [str(label) for label in bunch.target_names]
    assert samples.feature_names == [str(feature) for feature in bunch.feature_names]


@pytest.mark.parametrize(("name", "shape"), [("diabetes", (442,)), ("linnerud", (20, 3))])
def test_bundled_regression_has_float_targets(name: str, shape: tuple[int, ...], read: Load) -> None:
    samples = read({"type": f"sklearn.{name}"})
    assert samples.target is not None
    assert (samples.target.shape, samples.target.dtype, samples.classes) == (shape, np.float32, None)


def test_digits_as_images_are_stretched_to_255(read: Load) -> None:
    samples = read({"type": "sklearn.digits", "as": "image"})
    assert (samples.kind, samples.inputs.shape, samples.inputs.dtype) == ("image", (1797, 1, 8, 8), np.uint8)
    expected = np.round(datasets.load_digits().images / 16 * 255)
    assert np.array_equal(samples.inputs[:, 0], expected)


@pytest.mark.parametrize("name", ["moons", "circles", "blobs", "classification", "gaussian_quantiles"])
def test_generated_classes_equal_sklearn(name: str, read: Load) -> None:
    samples = read({"type": f"synthetic.{name}", "samples": 60, "seed": 9})
    inputs, target = getattr(datasets, f"make_{name}")(n_samples=60, random_state=9)
    assert samples.target is not None
    assert np.array_equal(samples.inputs, inputs.astype(np.float32))
    assert np.array_equal(samples.target, target)
    assert samples.classes == [str(label) for label in range(target.max() + 1)]


@pytest.mark.parametrize("name", ["regression", "friedman1", "friedman2", "friedman3", "s_curve", "swiss_roll"])
def test_generated_numbers_equal_sklearn(name: str, read: Load) -> None:
    samples = read({"type": f"synthetic.{name}", "samples": 60, "seed": 9})
    inputs, target = getattr(datasets, f"make_{name}")(n_samples=60, random_state=9)
    assert np.array_equal(samples.inputs, inputs.astype(np.float32))
    assert np.array_equal(samples.target, target.astype(np.float32))


def test_generator_takes_sklearns_arguments(read: Load) -> None:
    samples = read({"type": "synthetic.blobs", "samples": 30, "centers": 5, "n_features": 7})
    assert (samples.inputs.shape, len(samples.classes or ())) == ((30, 7), 5)


@pytest.mark.parametrize(
    ("source", "pointer"),
    [
        ({"type": "synthetic.moons", "noise": -1.0}, "/data/train"),
        ({"type": "synthetic.regression", "samples": 10, "coef": True}, "/data/train"),
        ({"type": "synthetic.blobs", "samples": 10**9}, "/data/train/samples"),
        ({"type": "synthetic.nothing"}, "/data/train/type"),
        ({"type": "pandas.frame"}, "/data/train/type"),
        ({"type": "torchvision.MNIST"}, "/data/train/type"),
        ({"type": "dataset", "id": "ds_7"}, "/data/train/id"),
    ],
)
def test_source_that_cannot_be_read_is_pointed_to(source: dict[str, Any], pointer: str, read: Load) -> None:
    with pytest.raises(DataInvalid) as caught:
        read(source)
    assert caught.value.issues[0].pointer == pointer


def test_missing_folder_says_where_to_put_it(read: Load, tmp_path: Path) -> None:
    with pytest.raises(DataInvalid) as caught:
        read({"type": "torchvision.MNIST"}, datasets_dir=tmp_path / "here")
    assert str(tmp_path / "here" / "MNIST" / "raw") in (caught.value.issues[0].hint or "")


def test_max_samples_takes_the_same_ones_of_all_classes_in_order(read: Load) -> None:
    whole = read({"type": "sklearn.iris"})
    part = read({"type": "sklearn.iris"}, max_samples=60)
    chosen = subset(150, 60)
    assert np.array_equal(part.inputs, whole.inputs[chosen])
    assert (np.diff(chosen) > 0).all()
    assert part.target is not None
    assert np.bincount(part.target).min() >= 10


def test_max_samples_beyond_the_set_is_the_set(read: Load) -> None:
    assert len(read({"type": "sklearn.iris"}, max_samples=9999)) == 150


def test_second_load_is_mapped_and_equal(read: Load) -> None:
    first, second = (read({"type": "sklearn.wine"}) for _ in range(2))
    assert isinstance(second.inputs, np.memmap)
    assert not second.inputs.flags.writeable
    assert np.array_equal(first.inputs, second.inputs)
    assert first.digest == second.digest


@pytest.mark.parametrize("max_samples", [None, 50])
def test_describe_knows_what_load_holds(max_samples: int | None, read: Load, tmp_path: Path) -> None:
    places: dict[str, Any] = {"datasets_dir": tmp_path, "cache_dir": tmp_path / "cache", "uploads": {}}
    source = Component(type="sklearn.iris")
    facts = describe(source, **places, max_samples=max_samples)
    assert facts == read({"type": "sklearn.iris"}, max_samples=max_samples).facts()
    assert facts.sample_shape == (4,)
    assert (facts.class_count, facts.label_min, facts.label_max) == (3, 0, 2)
    assert sum(facts.class_counts or ()) == facts.samples == (max_samples or 150)


def test_columns_choose_features_of_a_bundled_table(read: Load) -> None:
    whole = read({"type": "sklearn.wine"})
    part = read({"type": "sklearn.wine"}, columns={"features": ["hue", "alcohol"]})
    assert part.feature_names == ["hue", "alcohol"]
    assert np.array_equal(part.inputs[:, 1], whole.inputs[:, 0])


def test_columns_choose_one_of_several_targets(read: Load) -> None:
    target = read({"type": "sklearn.linnerud"}, columns={"target": "Waist"}).target
    assert target is not None
    assert target.shape == (20,)


def test_columns_of_images_are_refused(read: Load) -> None:
    with pytest.raises(DataInvalid) as caught:
        read({"type": "sklearn.digits", "as": "image"}, columns={"features": ["a"]})
    assert caught.value.issues[0].pointer == "/data/columns"


@pytest.mark.parametrize("module", ["core.datasets", "core.datasets.uploads", "core.storage"])
def test_service_imports_neither_torch_nor_the_readers(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{'torch', 'sklearn', 'pyarrow', 'PIL', 'numpy'}} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_loading_never_imports_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from core.datasets import load; from core.spec.job import Component;"
        f"load(Component(type='sklearn.iris'), datasets_dir=Path(), cache_dir=Path({str(tmp_path)!r}), uploads={{}});"
        "print('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"

import json
from typing import Any

import numpy as np
import pytest
from sklearn import impute, preprocessing

from core.datasets import Preprocessor, Samples
from core.datasets.fitted import ATTRIBUTES
from core.errors import DataInvalid
from core.spec.job import Component

RNG = np.random.default_rng(5)
TRAIN = np.arange(60)


def table(*, missing: bool = False) -> Samples:
    inputs = RNG.normal(3, 4, (100, 4)).astype(np.float32)
    inputs[:, 2] = RNG.integers(0, 3, 100)
    if missing:
        inputs[::7, 1] = np.nan
        inputs[::9, 2] = np.nan
    target = RNG.normal(50, 9, 100).astype(np.float32)
    return Samples(inputs, target, ["a", "b", "kind", "d"], ["y"], categories={"kind": ["x", "y", "z"]})


def steps(*bodies: str | dict[str, Any]) -> list[Component]:
    return [Component.model_validate({"type": body} if isinstance(body, str) else body) for body in bodies]


def reloaded(fitted: Preprocessor) -> Preprocessor:
    return Preprocessor.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StandardScaler", {}),
        ("StandardScaler", {"with_mean": False}),
        ("MinMaxScaler", {"feature_range": [-1, 1], "clip": True}),
        ("MaxAbsScaler", {}),
        ("RobustScaler", {"quantile_range": [10.0, 90.0]}),
        ("RobustScaler", {"with_centering": False}),
        ("Normalizer", {"norm": "l1"}),
        ("Binarizer", {"threshold": 2.0}),
        ("QuantileTransformer", {"n_quantiles": 20}),
    ],
)
def test_numeric_steps_equal_sklearn_fitted_on_train_only(name: str, arguments: dict[str, Any]) -> None:
    samples = table()
    fitted = Preprocessor.fit(steps({"type": name, **arguments}), samples, TRAIN)
    numeric = samples.inputs[:, [0, 1, 3]].astype(np.float64)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    oracle = getattr(preprocessing, name)(**given).fit(numeric[:60]).transform(numeric).astype(np.float32)
    made = fitted.transform(samples.inputs)
    assert made.dtype == np.float32
    assert np.array_equal(made[:, [0, 1, 3]], oracle)
    assert np.array_equal(made[:, 2], samples.inputs[:, 2])


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_reloaded_state_transforms_bit_for_bit_the_same(name: str) -> None:
    samples = table(missing=name == "SimpleImputer")
    own = {"type": name, "n_quantiles": 20} if name == "QuantileTransformer" else name
    fills = ("SimpleImputer", {"type": "SimpleImputer", "columns": ["kind"], "strategy": "most_frequent"})
    fitted = Preprocessor.fit(steps(*fills, own), samples, TRAIN)
    again = reloaded(fitted)
    assert again.feature_names == fitted.feature_names
    assert np.array_equal(again.transform(samples.inputs), fitted.transform(samples.inputs))


def test_one_hot_columns_stand_where_the_category_stood() -> None:
    samples = table()
    fitted = Preprocessor.fit(steps("OneHotEncoder"), samples, TRAIN)
    made = fitted.transform(samples.inputs)
    assert fitted.feature_names == ["a", "b", "kind_x", "kind_y", "kind_z", "d"]
    assert np.array_equal(made[:, 2:5], np.eye(3, dtype=np.float32)[samples.inputs[:, 2].astype(int)])
    assert np.array_equal(made[:, 5], samples.inputs[:, 3])


def test_steps_run_one_after_the_other() -> None:
    samples = table(missing=True)
    fill_kind = {"type": "SimpleImputer", "strategy": "most_frequent", "columns": ["kind"]}
    chain = steps({"type": "SimpleImputer", "strategy": "median"}, "StandardScaler", fill_kind, "OneHotEncoder")
    fitted = Preprocessor.fit(chain, samples, TRAIN)
    numeric = samples.inputs[:, [0, 1, 3]].astype(np.float64)
    filled = impute.SimpleImputer(strategy="median").fit(numeric[:60]).transform(numeric)
    scaled = preprocessing.StandardScaler().fit(filled[:60]).transform(filled)
    assert np.array_equal(fitted.transform(samples.inputs)[:, [0, 1, 5]], scaled.astype(np.float32))


def test_values_of_val_do_not_change_what_is_fitted() -> None:
    samples = table()
    shifted = samples.inputs.copy()
    shifted[60:] += 1000
    states = [
        Preprocessor.fit(steps("StandardScaler"), Samples(inputs, None, samples.feature_names), TRAIN).to_json()
        for inputs in (samples.inputs, shifted)
    ]
    assert states[0] == states[1]


@pytest.mark.parametrize("columns", [["target"], ["y"]])
def test_target_is_scaled_and_inverted(columns: list[str]) -> None:
    samples = table()
    fitted = reloaded(Preprocessor.fit(steps({"type": "StandardScaler", "columns": columns}), samples, TRAIN))
    assert samples.target is not None
    scaled = fitted.transform_target(samples.target)
    assert scaled.dtype == np.float32
    assert abs(scaled[:60].mean()) < 1e-5
    np.testing.assert_allclose(fitted.inverse_target(scaled), samples.target, rtol=1e-5)
    assert np.array_equal(fitted.transform(samples.inputs), samples.inputs)


def test_predictions_of_shape_n_1_are_inverted_in_that_shape() -> None:
    samples = table()
    fitted = Preprocessor.fit(steps({"type": "MinMaxScaler", "columns": ["target"]}), samples, TRAIN)
    assert fitted.inverse_target(np.zeros((5, 1), np.float32)).shape == (5, 1)


def test_no_steps_leave_the_inputs_as_they_are() -> None:
    samples = table()
    assert Preprocessor.fit([], samples).transform(samples.inputs) is samples.inputs


def refused(*bodies: str | dict[str, Any], samples: Samples | None = None) -> tuple[str, str]:
    with pytest.raises(DataInvalid) as caught:
        Preprocessor.fit(steps(*bodies), samples or table(), TRAIN)
    issue = caught.value.issues[0]
    return issue.pointer, issue.code


def test_unknown_column_is_pointed_to() -> None:
    step = {"type": "StandardScaler", "columns": ["a", "zz"]}
    assert refused("MinMaxScaler", step) == ("/data/preprocess/1/columns/1", "unknown_column")


def test_images_are_refused() -> None:
    images = Samples(np.zeros((80, 1, 2, 2), np.uint8), None, kind="image")
    assert refused("StandardScaler", samples=images) == ("/data/preprocess", "preprocess_not_table")


def test_class_names_cannot_be_scaled() -> None:
    iris = Samples(np.zeros((80, 2), np.float32), np.zeros(80, np.int64), ["a", "b"], ["y"], ["setosa", "virginica"])
    assert refused({"type": "StandardScaler", "columns": ["target"]}, samples=iris) == (
        "/data/preprocess/0/columns",
        "target_not_numeric",
    )


def test_arguments_that_sklearn_refuses_are_pointed_to() -> None:
    assert refused({"type": "SimpleImputer", "strategy": "guess"}) == ("/data/preprocess/0", "invalid_arguments")


def test_class_outside_the_list_is_refused() -> None:
    assert refused("FunctionTransformer") == ("/data/preprocess/0/type", "unknown_step")


def test_missing_values_that_no_step_fills_are_counted() -> None:
    samples = table(missing=True)
    with pytest.raises(DataInvalid, match=r"27 values are still missing .* 'b'"):
        Preprocessor.fit(steps("StandardScaler"), samples, TRAIN).transform(samples.inputs)


def test_category_that_train_did_not_have_is_named() -> None:
    samples = table()
    samples.inputs[:60, 2] = 1
    with pytest.raises(DataInvalid, match="OneHotEncoder cannot transform these samples: Found unknown categories"):
        Preprocessor.fit(steps("OneHotEncoder"), samples, TRAIN).transform(samples.inputs)


def test_quantiles_of_a_large_table_are_the_same_every_time() -> None:
    inputs = RNG.normal(size=(500, 1)).astype(np.float32)
    samples = Samples(inputs, None, ["a"])
    step = {"type": "QuantileTransformer", "n_quantiles": 10, "subsample": 50}
    states = [Preprocessor.fit(steps(step), samples).to_json() for _ in range(2)]
    assert states[0] == states[1]

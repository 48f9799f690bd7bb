"""scikit-learn's fitted transformers as plain JSON, and back without pickle.

Scalers are their public fitted attributes. Encoders and imputers are restored by fitting them on the smallest table
that gives the same state: their categories, or one row of their statistics.
"""

import math
from importlib import import_module
from typing import Any

import numpy as np

from core.datasets.samples import Array

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "StandardScaler": ("mean_", "var_", "scale_", "n_samples_seen_", "n_features_in_"),
    "MinMaxScaler": ("min_", "scale_", "data_min_", "data_max_", "data_range_", "n_samples_seen_", "n_features_in_"),
    "MaxAbsScaler": ("scale_", "max_abs_", "n_samples_seen_", "n_features_in_"),
    "RobustScaler": ("center_", "scale_", "n_features_in_"),
    "QuantileTransformer": ("quantiles_", "references_", "n_quantiles_", "n_features_in_"),
    "Normalizer": ("n_features_in_",),
    "Binarizer": ("n_features_in_",),
    "PolynomialFeatures": ("n_features_in_",),
    "OneHotEncoder": ("categories_",),
    "OrdinalEncoder": ("categories_",),
    "SimpleImputer": ("statistics_",),
}
"""What a fitted transformer is made of; no other class may be named."""
WITHOUT_FIT = ("Normalizer", "Binarizer", "PolynomialFeatures")
REFUSED = ("sparse_output", "min_frequency", "max_categories", "feature_name_combiner", "add_indicator", "copy")
"""Arguments that change what comes out in a way that this service does not carry."""
LIST_ARGUMENTS = ("feature_range", "quantile_range", "degree")
"""scikit-learn wants tuples here; JSON has lists."""


class UnknownStepError(ValueError):
    """The class is none that `data.preprocess` may name."""


def make(kind: str, arguments: dict[str, Any]) -> Any:
    """Return the unfitted transformer that the spec names.

    Raises:
        UnknownStepError: the name is not in `ATTRIBUTES`.
        TypeError: an argument is not one of the class, or one that is refused here.
    """
    if kind not in ATTRIBUTES:
        raise UnknownStepError(f"no preprocessing step is called {kind!r}; there are {', '.join(sorted(ATTRIBUTES))}")
    refused = [name for name in arguments if name in REFUSED]
    if refused:
        raise TypeError(f"the argument {refused[0]!r} cannot be used here")
    module = import_module("sklearn.impute" if kind == "SimpleImputer" else "sklearn.preprocessing")
    given = {name: _argument(name, value) for name, value in arguments.items()}
    if kind == "OneHotEncoder":
        given["sparse_output"] = False
    if kind == "SimpleImputer":
        given.setdefault("keep_empty_features", True)  # or a column would vanish that the model was built for
    if kind == "QuantileTransformer":
        given["random_state"] = given.get("random_state") or 0  # it fits on a random subset of large tables
    return getattr(module, kind)(**given)


def _argument(name: str, value: Any) -> Any:
    if name in LIST_ARGUMENTS and isinstance(value, (list, tuple)):
        return tuple(value)
    if name == "missing_values" and value is None:
        return math.nan
    return value


def state_of(estimator: Any) -> dict[str, Any]:
    """Return the fitted attributes as lists and numbers; NaN becomes null."""
    names = ATTRIBUTES[type(estimator).__name__]
    return {name: _plain(getattr(estimator, name)) for name in names if hasattr(estimator, name)}


def restore(kind: str, arguments: dict[str, Any], state: dict[str, Any]) -> Any:
    """Return a transformer with the state that `state_of` took."""
    estimator = make(kind, arguments)
    if kind in ("OneHotEncoder", "OrdinalEncoder"):
        return estimator.fit(_rows_of_categories([_array(values) for values in state["categories_"]]))
    if kind == "SimpleImputer":
        return estimator.fit(_array(state["statistics_"])[None])
    if kind in WITHOUT_FIT:
        return estimator.fit(np.zeros((1, state["n_features_in_"])))
    for name, value in state.items():
        setattr(estimator, name, _array(value) if isinstance(value, list) else value)
    return estimator


def _rows_of_categories(categories: list[Array]) -> Array:
    """A table whose columns hold exactly these values; shorter ones repeat their first."""
    longest = max(len(values) for values in categories)
    columns = [np.concatenate([values, np.repeat(values[:1], longest - len(values))]) for values in categories]
    return np.stack(columns, axis=1)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    number = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(number, float) and math.isnan(number) else number


def _array(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64)  # None becomes NaN

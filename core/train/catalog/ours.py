"""What is not torch's: our own layers and models, data sources, preprocessing, metrics."""

import inspect
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from sklearn import datasets, impute, preprocessing
from sklearn.utils._param_validation import Interval, StrOptions
from torchvision import datasets as vision_datasets

from core.train.catalog.annotations import Schema, either, json_default
from core.train.catalog.signatures import Body, first_line, parameter
from core.train.catalog.torch_parts import LAYERS
from core.train.catalog.vision import MODEL_ARGUMENTS

_BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine")
_TORCHVISION = ("CIFAR10", "FashionMNIST", "MNIST")
_SYNTHETIC = (
    "blobs", "circles", "classification", "friedman1", "friedman2", "friedman3", "gaussian_quantiles", "hastie_10_2",
    "moons", "multilabel_classification", "regression", "s_curve", "sparse_uncorrelated", "swiss_roll",
)  # fmt: skip
_PREPROCESS = (
    preprocessing.StandardScaler, preprocessing.MinMaxScaler, preprocessing.MaxAbsScaler, preprocessing.RobustScaler,
    preprocessing.QuantileTransformer, preprocessing.Normalizer, preprocessing.Binarizer,
    preprocessing.PolynomialFeatures, preprocessing.OneHotEncoder, preprocessing.OrdinalEncoder, impute.SimpleImputer,
)  # fmt: skip
_NOT_IN_A_STEP = frozenset({
    "copy", "dtype", "sparse_output", "feature_name_combiner", "add_indicator", "min_frequency", "max_categories",
})  # fmt: skip
"""Arguments that change what comes out in a way that the service does not carry."""
_NOT_IN_A_SOURCE = frozenset({
    "random_state", "n_samples", "return_centers", "return_X_y", "return_indicator", "return_distributions", "coef",
    "sparse",
})  # fmt: skip
"""Arguments that have a word of their own here (`samples`, `seed`) or change what is returned."""
_AVERAGE: Schema = {"enum": ["binary", "macro", "micro", "weighted"]}


def models() -> dict[str, Body]:
    """Models that are written out layer by layer."""
    names: Schema = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    node: Schema = {
        "x-component": "layers",
        "properties": {"name": {"type": "string"}, "inputs": names},
        "required": ["name", "inputs"],
    }
    nodes: Schema = {"type": "array", "items": node, "minItems": 1}
    return {
        "Sequential": _entry("Layers one after the other", layers={**LAYERS, "minItems": 1}, **MODEL_ARGUMENTS),
        "Graph": _entry(
            "Layers with named inputs and outputs", inputs=names, nodes=nodes, outputs=names, **MODEL_ARGUMENTS
        ),
    }


def layers() -> dict[str, Body]:
    """Layers that torch writes as code."""
    some = {**LAYERS, "minItems": 1}
    branch: Schema = {"anyOf": [some, {"x-component": "layers"}]}
    branches: Schema = {"type": "array", "items": branch, "minItems": 1}
    return {
        "ext.Residual": _entry("`shortcut(x) + layers(x)`", layers=some, shortcut=parameter({**LAYERS})),
        "ext.Parallel": _entry("Branches over the same input, joined along the channels", branches=branches),
        "ext.Add": _entry("The sum of a graph node's inputs"),
        "ext.Multiply": _entry("The product of a graph node's inputs, element by element"),
        "ext.Concatenate": _entry(
            "A graph node's inputs one after the other along `dim`", dim=parameter({"type": "integer"}, default=1)
        ),
        "ext.LastTimestep": _entry("The last step of a sequence, also of a recurrent layer's output"),
    }


def data_sources() -> dict[str, Body]:
    """Bundled, downloaded, uploaded and made-up data."""
    view = {"as": parameter({"enum": ["image", "table"]}, default="table")}
    found = {
        f"sklearn.{name}": _entry(first_line(getattr(datasets, f"load_{name}")), **(view if name == "digits" else {}))
        for name in _BUNDLED
    }
    train = parameter({"type": "boolean"}, default=True)
    for name in _TORCHVISION:
        found[f"torchvision.{name}"] = _entry(first_line(getattr(vision_datasets, name)), train=train)
    version = parameter({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]})
    upload: Schema = {"type": "string", "pattern": "^ds_[0-9a-zA-Z]+$"}
    header = parameter({"anyOf": [{"type": "boolean"}, {"type": "null"}]})
    least: Schema = {"type": "integer", "minimum": 1}
    length = parameter({"anyOf": [least, {"type": "null"}]})
    sizes = {"length": least, "stride": least, "horizon": {"type": "integer", "minimum": 0}}
    window = parameter({"anyOf": [{"type": "object", "properties": sizes, "required": ["length"]}, {"type": "null"}]})
    words = (
        "An upload; without `version` the newest; `header` says whether a CSV file's first row holds names, `length` "
        "cuts and pads sequences, `window` cuts a table along `columns.order_by` into series"
    )
    found["dataset"] = _entry(words, id=upload, version=version, header=header, length=length, window=window)
    for name in _SYNTHETIC:
        found[f"synthetic.{name}"] = _synthetic(getattr(datasets, f"make_{name}"))
    return found


def preprocess() -> dict[str, Body]:
    """Steps of scikit-learn that are fitted on the training set."""
    columns = {"columns": parameter({"type": "array", "items": {"type": "string"}, "minItems": 1})}
    return {
        cls.__name__: {
            "help": first_line(cls),
            "parameters": _listed({**_sklearn(cls, cls._parameter_constraints, _NOT_IN_A_STEP), **columns}),
        }
        for cls in _PREPROCESS
    }


def metrics() -> dict[str, Body]:
    """What is computed beside the loss."""
    average = parameter(_AVERAGE, default="macro")
    one_vs_rest = parameter({"enum": ["macro", "weighted"]}, default="macro")
    return {
        "accuracy": _entry(
            "Share of samples whose class is among the `top_k` most likely ones",
            top_k=parameter({"type": "integer", "minimum": 1}, default=1),
        ),
        "f1": _entry("Harmonic mean of precision and recall", average=average),
        "precision": _entry("Share of the predicted members of a class that are ones", average=average),
        "recall": _entry("Share of the members of a class that are predicted", average=average),
        "auroc": _entry("Area under the receiver operating characteristic", average=one_vs_rest),
        "log_loss": _entry("Mean negative logarithm of the probability given to the true class"),
        "confusion_matrix": _entry("Counts by true class (rows) and predicted class (columns)"),
        "mse": _entry("Mean squared error, in the square of the target's units"),
        "mae": _entry("Mean absolute error, in the target's units"),
        "rmse": _entry("Root of the mean squared error, in the target's units"),
        "r2": _entry("Share of the target's variance that is explained"),
    }


def _entry(help_line: str, **parameters: Body | Schema) -> Body:
    """Return an entry; a bare schema is a required parameter."""
    made = {name: body if "schema" in body else parameter(body, required=True) for name, body in parameters.items()}
    return {"help": help_line, **({"parameters": _listed(made)} if made else {})}


def _listed(parameters: dict[str, Body]) -> list[Body]:
    return [{"name": name, **body} for name, body in parameters.items()]


def _synthetic(function: Any) -> Body:
    """Return the arguments of a `make_*` function, with `samples` and `seed` for its own two words."""
    constraints = function._skl_parameter_constraints  # noqa: SLF001 - scikit-learn's only machine-readable types
    own = _sklearn(function, constraints, _NOT_IN_A_SOURCE)
    samples = parameter({"type": "integer", "minimum": 1}, default=100)
    seed = parameter({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]})
    return {"help": first_line(function), "parameters": _listed({"samples": samples, **own, "seed": seed})}


def _sklearn(target: Callable[..., Any], constraints: dict[str, Any], left_out: frozenset[str]) -> dict[str, Body]:
    found: dict[str, Body] = {}
    for name, option in inspect.signature(target).parameters.items():
        if name in left_out:
            continue
        allowed = constraints[name] if isinstance(constraints.get(name), list) else []
        schema = either([known for item in allowed if (known := _constraint(item)) is not None])
        try:
            default = json_default(option.default)
        except ValueError:
            default = None
        found[name] = parameter(schema if schema is not None else {}, default=default)
    return found


def _constraint(item: Any) -> Schema | None:
    """Return the schema of one of scikit-learn's alternatives for an argument; none where JSON has no form for it."""
    if isinstance(item, Interval):
        return _interval(item)
    if isinstance(item, StrOptions):
        return {"enum": sorted(str(option) for option in vars(item)["options"])}
    if type(item).__name__ == "MissingValues":
        return {"type": ["number", "string", "null"]}
    known: dict[Any, Schema] = {
        "random_state": {"type": ["integer", "null"]},
        "boolean": {"type": "boolean"},
        "array-like": {"type": "array"},
        Real: {"type": "number"},
        Integral: {"type": "integer"},
        float: {"type": "number"},
        tuple: {"type": "array"},
        list: {"type": "array"},
        None: {"type": "null"},
    }
    return known.get(item) if isinstance(item, (str, type)) or item is None else None


def _interval(interval: Any) -> Schema:
    schema: Schema = {"type": "integer" if interval.type is Integral else "number"}
    if interval.left is not None and interval.left != float("-inf"):
        schema["minimum" if interval.closed in ("left", "both") else "exclusiveMinimum"] = interval.left
    if interval.right is not None and interval.right != float("inf"):
        schema["maximum" if interval.closed in ("right", "both") else "exclusiveMaximum"] = interval.right
    return schema

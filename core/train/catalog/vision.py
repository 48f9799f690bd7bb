"""Transforms and models of torchvision."""

import enum
import inspect
import re
from typing import Any, get_type_hints

import torchvision
from torchvision.transforms import v2

from core.train.catalog.annotations import DTYPES, NULL, Schema, json_default, schema_of
from core.train.catalog.signatures import LEFT_OUT, Body, entry, first_line, parameter, refusal

_BOXES = "it changes bounding boxes or key points; samples are images with one target"
_SEVERAL = "it makes several images of one"
_TARGETS = "it mixes targets as well as images"
_TENSORS = "samples are tensors already"
_NO_FORM = "it takes what JSON cannot express"
_REFUSED_TRANSFORMS: dict[str, tuple[str, str | None]] = {
    "ClampBoundingBoxes": (_BOXES, None),
    "ClampKeyPoints": (_BOXES, None),
    "ConvertBoundingBoxFormat": (_BOXES, None),
    "RandomIoUCrop": (_BOXES, "RandomResizedCrop"),
    "SanitizeBoundingBoxes": (_BOXES, None),
    "SanitizeKeyPoints": (_BOXES, None),
    "SetClampingMode": (_BOXES, None),
    "FiveCrop": (_SEVERAL, "CenterCrop"),
    "TenCrop": (_SEVERAL, "CenterCrop"),
    "CutMix": (_TARGETS, None),
    "MixUp": (_TARGETS, None),
    "Lambda": ("it takes a Python function, which JSON cannot express", None),
    "LinearTransformation": (_NO_FORM, "Normalize"),
    "PILToTensor": (_TENSORS, "ToImage"),
    "ToPILImage": (_TENSORS, "ToImage"),
}
_NOT_CLASSIFIERS = "it does not answer with one output per image"

_OPTIONS_OF_WEIGHTS = frozenset({"aux_logits", "transform_input"})
"""Named in builders for the case of pretrained weights only."""
_INTERPOLATION: Schema = {"enum": sorted(mode.value for mode in v2.InterpolationMode)}
_LAYERS_BY_NAME: Schema = {"type": "object", "additionalProperties": {"x-component": "layers"}}
_INITIALIZER: Schema = {"anyOf": [{"x-component": "initializers"}, {"type": "null"}]}
MODEL_ARGUMENTS = {
    "freeze": parameter({"type": "array", "items": {"type": "string"}}),
    "weight_init": parameter(_INITIALIZER),
    "bias_init": parameter(_INITIALIZER),
}
"""What every model takes besides its own arguments."""


def transforms() -> dict[str, Body]:
    """`torchvision.transforms.v2`."""
    nested: Schema = {"type": "array", "items": {"x-component": "transforms"}}
    known: dict[str, Schema | None] = {"interpolation": _INTERPOLATION, "transforms": nested, "labels_getter": None}
    found: dict[str, Body] = {}
    for name, cls in sorted(vars(v2).items()):
        if not inspect.isclass(cls) or not issubclass(cls, v2.Transform) or cls is v2.Transform:
            continue
        if name in _REFUSED_TRANSFORMS:
            found[name] = refusal(cls, *_REFUSED_TRANSFORMS[name])
            continue
        own = inspect.signature(cls).parameters
        change = {key: schema for key, schema in known.items() if key in own}
        if "dtype" in own:
            change["dtype"] = {"enum": DTYPES}
        found[name] = entry(cls, change=change, keep=("dtype",))
    return found


def models() -> dict[str, Body]:
    """`torchvision.models`: the image classifiers; the others are refused by name."""
    classifiers = set(torchvision.models.list_models(module=torchvision.models))
    found: dict[str, Body] = {}
    for name in torchvision.models.list_models():
        builder = torchvision.models.get_model_builder(name)
        is_usable = name in classifiers
        found[f"torchvision.{name}"] = _model(name, builder) if is_usable else refusal(builder, _NOT_CLASSIFIERS)
    return found


def _model(name: str, builder: Any) -> Body:
    weights = sorted({"DEFAULT", *torchvision.models.get_model_weights(name).__members__})
    parameters = {
        "num_classes": parameter({"type": "integer", "minimum": 1}, inferred=True),
        "weights": parameter({"anyOf": [{"enum": weights}, {"type": "null"}]}),
        **_options(builder),
        "replace": parameter(_LAYERS_BY_NAME),
        **MODEL_ARGUMENTS,
    }
    return {"help": first_line(builder), "parameters": [{"name": key, **body} for key, body in parameters.items()]}


def _options(builder: Any) -> dict[str, Body]:
    """Return the switches and numbers that a builder hands through to its class."""
    cls = get_type_hints(builder).get("return")
    if not inspect.isclass(cls):
        return {}
    found: dict[str, Body] = {}
    fixed = _fixed_by(builder) | LEFT_OUT | {"num_classes"}
    for name, option in inspect.signature(cls).parameters.items():
        schema = schema_of(get_type_hints(cls.__init__).get(name, option.annotation))
        if option.default is option.empty or name in fixed or not schema or schema == NULL:
            continue
        if schema.keys() == {"type"} and not isinstance(option.default, enum.Enum):
            found[name] = parameter(schema, default=json_default(option.default))
    return found


def _fixed_by(builder: Any) -> set[str]:
    """Return the words that a builder's code uses itself: an option among them would be given twice."""
    function = inspect.unwrap(builder)
    code = inspect.getsource(function).replace(function.__doc__ or "", "")
    words = set(re.findall(r"[a-z_]+", code)) - _OPTIONS_OF_WEIGHTS
    for name in function.__code__.co_names:
        shared = function.__globals__.get(name)
        if inspect.isfunction(shared) and shared.__module__ == function.__module__:
            words |= set(inspect.signature(shared).parameters)
    return words

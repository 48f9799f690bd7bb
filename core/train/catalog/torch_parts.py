"""Layers, losses, optimizers, schedulers and initialisers of torch."""

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from core.train.catalog.annotations import Schema
from core.train.catalog.signatures import Body, entry, parameter, refusal

INFERRED = frozenset({
    "in_features", "in_channels", "num_features", "num_channels", "input_size", "normalized_shape", "embed_dim",
    "d_model", "in1_features", "in2_features",
})  # fmt: skip
"""Sizes that equal the last (or channel) dimension of what comes in."""

LAYERS: Schema = {"type": "array", "items": {"x-component": "layers"}}
CLASS_WEIGHTS: Schema = {
    "anyOf": [{"type": "null"}, {"enum": ["balanced"]}, {"type": "array", "items": {"type": "number"}, "minItems": 1}]
}

_CALLABLES: dict[str, Schema | None] = {"custom_encoder": None, "custom_decoder": None}
_UNANNOTATED: dict[str, Schema | None] = {
    "embed_dim": {"type": "integer"},
    "num_heads": {"type": "integer"},
    "kdim": {"type": ["integer", "null"]},
    "vdim": {"type": ["integer", "null"]},
}
_LOSS = ("Loss", "Loss2d")
_LAZY = "sizes that are left out are inferred anyway"
_NO_CALLABLE = "it takes a Python function, which JSON cannot express"
_HOLDS = "it is a container for Python code, not a layer"
_BASE = "it is a base class"
_INDICES = "it takes the indices of a pooling layer, which layers do not hand on"
_REFUSED_LAYERS: dict[str, tuple[str, str | None]] = {
    "Module": (_BASE, None),
    "Container": (_HOLDS, "Sequential"),
    "ModuleList": (_HOLDS, "Sequential"),
    "ModuleDict": (_HOLDS, "ext.Parallel"),
    "ParameterList": (_HOLDS, None),
    "ParameterDict": (_HOLDS, None),
    "RNNBase": (_BASE, "RNN"),
    "RNNCellBase": (_BASE, "RNNCell"),
    "DataParallel": ("several GPUs are asked for with `execution.gpus`", None),
    "SyncBatchNorm": ("it needs a process group", "BatchNorm2d"),
    **dict.fromkeys(("MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"), (_INDICES, "Upsample")),
}
_MORE_INPUTS = "it takes more than the model's output and the target"
_OWN_WEIGHTS = "it has weights of its own, which belong into the model"
_REFUSED_LOSSES: dict[str, tuple[str, str | None]] = {
    "AdaptiveLogSoftmaxWithLoss": (_OWN_WEIGHTS, "CrossEntropyLoss"),
    "LinearCrossEntropyLoss": (_OWN_WEIGHTS, "CrossEntropyLoss"),
    "CosineEmbeddingLoss": (_MORE_INPUTS, None),
    "CTCLoss": (_MORE_INPUTS, None),
    "GaussianNLLLoss": (_MORE_INPUTS, None),
    "MarginRankingLoss": (_MORE_INPUTS, None),
    "TripletMarginLoss": (_MORE_INPUTS, None),
    "TripletMarginWithDistanceLoss": (_NO_CALLABLE, None),
    "NLLLoss2d": ("it is deprecated in torch", "NLLLoss"),
}


def layers() -> dict[str, Body]:
    """`torch.nn` without its losses."""
    found = {cls.__name__: _layer(cls) for cls in _modules() if not cls.__name__.endswith(_LOSS)}
    found["Sequential"] = {"help": "Layers one after the other", "parameters": [_named("layers", LAYERS)]}
    return found


def losses() -> dict[str, Body]:
    """The `*Loss` classes of `torch.nn`."""
    return {cls.__name__: _loss(cls) for cls in _modules() if cls.__name__.endswith(_LOSS)}


def optimizers() -> dict[str, Body]:
    """`torch.optim` with `param_groups`."""
    group: Schema = {
        "type": "object",
        "properties": {"match": {"type": "string", "format": "regex"}},
        "required": ["match"],
        "x-arguments": True,
    }
    groups = {"param_groups": parameter({"type": "array", "items": group})}
    return {
        cls.__name__: entry(cls, add=groups)
        for cls in _classes(torch.optim, torch.optim.Optimizer)
        if cls is not torch.optim.Optimizer
    }


def lr_schedulers() -> dict[str, Body]:
    """`torch.optim.lr_scheduler` with `interval`, `monitor` and the words `epochs` and `steps`."""
    interval = {"interval": parameter({"enum": ["epoch", "step"]}, default="epoch")}
    monitor = {"monitor": parameter({"type": "string"}, default="val_loss")}
    count: Schema = {"anyOf": [{"type": "integer"}, {"enum": ["epochs", "steps"]}]}
    found: dict[str, Body] = {}
    for cls in _classes(lr_scheduler, lr_scheduler.LRScheduler):
        if cls is lr_scheduler.LRScheduler or cls.__name__.startswith("_"):
            continue
        own = inspect.signature(cls).parameters
        change: dict[str, Schema | None] = {name: count for name in ("T_max", "total_iters") if name in own}
        if "total_steps" in own:
            change["total_steps"] = {"anyOf": [*count["anyOf"], {"type": "null"}]}
        add = {**interval, **(monitor if cls is lr_scheduler.ReduceLROnPlateau else {})}
        found[cls.__name__] = entry(cls, change=change, add=add)
    for name in ("LambdaLR", "MultiplicativeLR"):
        found[name] = refusal(getattr(lr_scheduler, name), _NO_CALLABLE, "SequentialLR")
    return found


def initializers() -> dict[str, Body]:
    """`torch.nn.init`: the functions that fill a tensor."""
    return {
        name: entry(function)
        for name, function in sorted(vars(nn.init).items())
        if name.endswith("_") and not name.startswith("_") and inspect.isfunction(function)
    }


def _layer(cls: type[nn.Module]) -> Body:
    name = cls.__name__
    if name.startswith("Lazy"):
        return refusal(cls, _LAZY, name.removeprefix("Lazy"))
    if name in _REFUSED_LAYERS:
        return refusal(cls, *_REFUSED_LAYERS[name])
    return entry(cls, change=_UNANNOTATED if cls is nn.MultiheadAttention else _CALLABLES, inferred=INFERRED)


def _loss(cls: type[nn.Module]) -> Body:
    if cls.__name__ in _REFUSED_LOSSES:
        return refusal(cls, *_REFUSED_LOSSES[cls.__name__])
    reductions = ["mean", "sum", *(["batchmean"] if cls is nn.KLDivLoss else [])]
    weight = {name: CLASS_WEIGHTS for name in ("weight", "pos_weight") if name in inspect.signature(cls).parameters}
    return entry(cls, change={"reduction": {"enum": reductions}, **weight})


def _modules() -> Iterator[type[nn.Module]]:
    return _classes(nn, nn.Module)


def _classes(module: ModuleType, base: type[Any]) -> Iterator[type[Any]]:
    for name, found in sorted(vars(module).items()):
        if inspect.isclass(found) and issubclass(found, base) and not name.startswith("_"):
            yield found


def _named(name: str, schema: Schema) -> Body:
    return {"name": name, **parameter(schema, required=True)}

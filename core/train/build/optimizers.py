"""`torch.optim` with parameter groups by regular expression; what is frozen is left out."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from core.errors import SpecInvalid
from core.spec.job import JobSpec
from core.spec.pointer import join
from core.train.build.muon import MuonWithAdamW
from core.train.components import condensed, invalid, refused, torch_arguments

ONLY_ON_DEVICE = ("fused", "capturable")
"""Arguments whose check needs parameters with memory."""


def optimizer(spec: JobSpec, model: nn.Module) -> Optimizer:
    """Build the optimizer over the parameters that are trained.

    What no group matches comes first, with the optimizer's own arguments; then the groups in their order. A parameter
    that several groups match belongs to the first of them.

    Raises:
        SpecInvalid: a group that matches nothing, or what torch says about the arguments.
    """
    arguments = torch_arguments(spec.optimizer.arguments)
    posted: tuple[dict[str, Any], ...] = arguments.pop("param_groups", None) or ()
    if any(parameter.is_meta for parameter in model.parameters()):
        arguments = {name: value for name, value in arguments.items() if name not in ONLY_ON_DEVICE}
    groups = _groups(model, posted)
    try:
        return _maker(spec.optimizer.type, groups)(groups, **arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        raise _translated(error, spec) from error


def _maker(name: str, groups: list[dict[str, Any]]) -> Callable[..., Optimizer]:
    """Return torch's class; for Muon over more than matrices, Muon together with AdamW."""
    is_mixed = any(weight.ndim != 2 for group in groups for weight in group["params"])
    return MuonWithAdamW if name == "Muon" and is_mixed else getattr(torch.optim, name)


def _groups(model: nn.Module, posted: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    left = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not left:
        raise invalid("/model/freeze", "all_frozen", "Nothing is left to train: the model has no trained parameters.")
    names = list(left)
    made: list[dict[str, Any]] = []
    for index, group in enumerate(posted):
        pattern = re.compile(group["match"])
        chosen = [name for name in left if pattern.search(name)]
        if not chosen:
            raise _unmatched(index, group["match"], names)
        own = {key: value for key, value in torch_arguments(group).items() if key != "match"}
        made.append({"params": [left.pop(name) for name in chosen], **own})
    return [{"params": list(left.values())}, *made] if left else made


def _unmatched(index: int, pattern: str, names: list[str]) -> SpecInvalid:
    at = join("/optimizer/param_groups", index, "match")
    some = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    return invalid(
        at, "matches_nothing", f'No trained parameter is left that matches "{pattern}".', f"There are {some}."
    )


def _translated(error: Exception, spec: JobSpec) -> SpecInvalid:
    name = spec.optimizer.type
    if "per-parameter options" in str(error):
        detail = f"{name} treats all parameters alike."
        fix = {"op": "remove", "path": "/optimizer/param_groups"}
        return invalid("/optimizer/param_groups", "no_groups", detail, "Leave param_groups out.", fix)
    if name == "Muon" and "2D" in condensed(error):
        detail = "Muon is for matrices (AdamW takes the rest), and no trained parameter of this model is one."
        fix = {"op": "replace", "path": "/optimizer", "value": {"type": "AdamW"}}
        return invalid("/optimizer/type", "muon_2d", detail, "Use AdamW.", fix)
    return SpecInvalid([refused(error, spec.optimizer, "/optimizer")])

"""The script's loss: torch's, with the target in the shape that it wants."""

import re
from typing import Any

from core.code.job import PLAIN, Job, arguments_of
from core.code.layout import WIDTH, Call, Page, Raw, indented, literal, tupled, written
from core.spec.job import Component

OF_CLASSES = ("CrossEntropyLoss", "NLLLoss", "MultiMarginLoss")
SIGNED = ("SoftMarginLoss", "HingeEmbeddingLoss")
"""Losses that call the classes -1 and 1."""
BINARY = ("BCELoss", "BCEWithLogitsLoss")
WEIGHTS = ("weight", "pos_weight")
INDICES = '''def as_places(target):
    """Turn yes-or-no labels [B, C] into the places of the ones, filled up with -1."""
    count = target.shape[1]
    places = torch.arange(count, device=target.device).expand_as(target)
    ordered = torch.where(target > 0.5, places, count).sort(dim=1).values
    return torch.where(ordered == count, -1, ordered)'''


def loss(job: Job, page: Page) -> None:
    """Write `loss_fn(output, target)`, and `penalty()` where there is one."""
    terms = job.losses
    lines = _class_weights(job)
    if len(terms) == 1 and _is_plain(job, terms[0]):
        page.add(*lines, *written("loss_fn = ", _module(job, terms[0]), suffix=_to(job)))
    else:
        _function(job, page, lines)
    if job.spec.regularization is not None:
        _penalty(job, page)


def is_balanced(job: Job) -> bool:
    """Whether class weights are computed."""
    has_labels = job.task in ("classification", "binary")
    return has_labels and any("balanced" in (term.arguments.get(name) for name in WEIGHTS) for term in job.losses)


def _class_weights(job: Job) -> list[str]:
    if not is_balanced(job):
        return []
    return [
        "# Classes weigh n / (classes * n_c): rare ones more",
        "counts = torch.bincount(y_train.reshape(-1).long(), minlength=classes).double()",
        "class_weights = (counts.sum() / (classes * counts.clamp(min=1))).float()",
    ]


def _is_plain(job: Job, term: Component) -> bool:
    """Whether torch's module can be called as it is."""
    is_whole = _coefficient(term) == 1.0 and job.spec.precision == PLAIN
    is_own = term.type in SIGNED or term.type == "MultiLabelMarginLoss" or _is_weighed_by_element(job, term)
    return is_whole and not is_own


def _is_weighed_by_element(job: Job, term: Component) -> bool:
    return term.type in BINARY and term.arguments.get("weight") == "balanced" and is_balanced(job)


def _coefficient(term: Component) -> float:
    return float(term.arguments.get("coefficient", getattr(term, "coefficient", 1.0)))


def _module(job: Job, term: Component) -> Call:
    given = arguments_of("losses", term, without=("coefficient",))
    made = {name: _argument(job, term, name, value) for name, value in given.items()}
    return Call(f"nn.{term.type}", (), {name: value for name, value in made.items() if value is not None})


def _argument(job: Job, term: Component, name: str, value: Any) -> Any:
    if name not in WEIGHTS or value is None:
        return tupled(value)
    if value != "balanced":
        return Call("torch.tensor", ([float(one) for one in value],))
    if not is_balanced(job) or (name == "weight" and _is_weighed_by_element(job, term)):
        return None
    return Raw("class_weights[1:] / class_weights[:1]" if name == "pos_weight" else "class_weights")


def _to(job: Job) -> str:
    return ".to(device)" if job.is_on_gpu else ""


def _function(job: Job, page: Page, lines: list[str]) -> None:
    names: list[str] = []
    body: list[str] = []
    for term in job.losses:
        stem = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", term.type).lower()
        name = stem if stem not in names else f"{stem}_{len(names) + 1}"
        names.append(name)
        lines += written(f"{name} = ", _module(job, term), suffix=_to(job))
        body += _weighed(job, term, name)
    terms = [_term(job, term, name) for term, name in zip(job.losses, names, strict=True)]
    page.add(*lines)
    if any(term.type == "MultiLabelMarginLoss" for term in job.losses):
        page.add(*INDICES.splitlines())
    one_line = f"    return {' + '.join(terms)}"
    tall = [f"    loss = {terms[0]}", *(f"    loss = loss + {term}" for term in terms[1:]), "    return loss"]
    made = [one_line] if len(one_line) <= WIDTH else tall
    page.add(
        "def loss_fn(output, target):",
        '    """Return the loss of a batch."""' if len(terms) == 1 else '    """Return the sum of the losses."""',
        *(f"    {line}" for line in body),
        *made,
    )


def _weighed(job: Job, term: Component, name: str) -> list[str]:
    if not _is_weighed_by_element(job, term):
        return []
    return [f"{name}.weight = class_weights[target.long()].reshape(output.shape)"]


def _term(job: Job, term: Component, name: str) -> str:
    target = "target" if job.spec.precision == PLAIN else "target.to(output.dtype)"
    if term.type in OF_CLASSES:
        target = "target"
    elif term.type == "MultiLabelMarginLoss":
        target = "as_places(target)"
    elif term.type in SIGNED:
        target = f"2 * {target} - 1"
    coefficient = _coefficient(term)
    factor = "" if coefficient == 1.0 else f"{literal(coefficient)} * "
    return f"{factor}{name}(output, {target})"


def _penalty(job: Job, page: Page) -> None:
    part = job.spec.regularization
    if part is None or not (part.l1 or part.l2):
        return
    condition = "parameter.requires_grad"
    if part.exclude:
        condition += f" and not any(part in name for part in {literal(tuple(part.exclude))})"
    terms = []
    if part.l1:
        terms.append(f"[{literal(float(part.l1))} * weight.abs().sum() for weight in penalized]")
    if part.l2:
        terms.append(f"[{literal(float(part.l2))} * weight.square().sum() for weight in penalized]")
    words = " + ".join(word for word, value in (("l1 * sum|w|", part.l1), ("l2 * sum w^2", part.l2)) if value)
    parts = ["parameter", "for name, parameter in model.named_parameters()", f"if {condition}"]
    flat = f"penalized = [{' '.join(parts)}]"
    page.add(*([flat] if len(flat) <= WIDTH else ["penalized = [", *indented(parts), "]"]))
    page.add(
        "def penalty():",
        f'    """Return {words} over these weights as they are."""',
        f"    terms = {terms[0]}",
        *(f"    terms += {term}" for term in terms[1:]),
        "    return torch.stack(terms).sum()",
    )


def has_penalty(job: Job) -> bool:
    """Whether weights are penalized in the loss."""
    part = job.spec.regularization
    return part is not None and bool(part.l1 or part.l2)

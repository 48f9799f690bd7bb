"""The script's transforms, and the sets as tensors: fixed ones are applied once, random ones to every batch."""

import re
from typing import Any

from core.code.job import Job, arguments_of
from core.code.layout import Call, Page, Raw, literal, tupled, written
from core.code.preprocessing import target_scalers
from core.code.uploads import upload
from core.spec import component
from core.spec.chance import BY_CHANCE, BY_ELEMENT, is_random
from core.spec.job import Component, DataSplit

LABELS = "classification"


def tensors(job: Job, page: Page, *, is_split: bool) -> None:
    """Write the sets as tensors `x_train, y_train`, `x_val, y_val`, … as they reach the loop."""
    names = [name for name in ("val", "test") if job.has(name)]
    _functions(job, page)
    lines = ["# The sets as tensors"]
    lines += _target_lines(job)
    rows = "train" if is_split else None
    lines += ["x, y = torch.from_numpy(x), torch.from_numpy(y)"]
    lines += ["x_train, y_train = x[train], y[train]" if rows else "x_train, y_train = x, y"]
    for name in names:
        if isinstance(getattr(job.spec.data, name), DataSplit):
            lines += [f"x_{name}, y_{name} = x[{name}], y[{name}]"]
        else:
            lines += [f"x_{name}, y_{name} = torch.from_numpy(x_{name}), torch.from_numpy(y_{name})"]
    lines += _applied(job, names)
    if job.is_on_gpu:
        lines += [f"{part}_{name} = {part}_{name}.to(device)" for name in ("train", *names) for part in ("x", "y")]
        lines += ["x_train_eval = x_train_eval.to(device)"] if job.uses_train_eval else []
    page.add(*lines)


def _target_lines(job: Job) -> list[str]:
    if job.task == LABELS:
        return []
    shape = "" if target_scalers(job) else ".reshape(len({name}), -1)"
    names = ("y", *(f"y_{name}" for name in job.own_sets))
    return [f"{name} = {name}{shape.format(name=name)}.astype(np.float32)" for name in names]


def _applied(job: Job, names: list[str]) -> list[str]:
    """Apply what draws nothing to whole sets, once."""
    lines: list[str] = []
    for_train, for_eval = _whole(job, "train"), _whole(job, "eval")
    if job.uses_train_eval:
        lines += [f"x_train_eval = {for_eval.format('x_train')}"]
    if not job.is_augmented and for_train != "{}":
        lines += [f"x_train = {for_train.format('x_train')}"]
    if for_eval != "{}":
        lines += [f"x_{name} = {for_eval.format(f'x_{name}')}" for name in names]
    return lines


def _whole(job: Job, name: str) -> str:
    """Return what is done to a set without random draws, as a format of the set's name."""
    parts = job.transforms(name)
    if parts:
        is_shared = name == "eval" and not job.is_augmented and parts == job.transforms("train")
        return f"{'train' if is_shared else name}_transform({{}})"
    return "{}.float()" if _is_pixels(job) and not job.has_transforms(name) else "{}"


def _is_pixels(job: Job) -> bool:
    """Whether samples are images, which are kept as uint8 until a transform changes that."""
    source = job.spec.data.train
    if source.type == "dataset":
        return upload(job, "train").format == "images" or upload(job, "train").profile.get("kind") == "image"
    return source.type.startswith("torchvision.") or source.arguments.get("as") == "image"


def _functions(job: Job, page: Page) -> None:
    train, judged = job.transforms("train"), job.transforms("eval")
    if train or judged:
        page.use("torchvision.transforms", "v2")
    if job.is_augmented:
        _augment(job, train, page)
    elif train:
        page.add(*written("train_transform = ", composed(train)))
    if judged and (job.is_augmented or judged != train):
        page.add(*written("eval_transform = ", composed(judged)))


def composed(parts: list[Component]) -> Call:
    """Return fixed transforms as one."""
    made = [transform(part) for part in parts]
    return made[0] if len(made) == 1 else Call("v2.Compose", (made,))


def _augment(job: Job, parts: list[Component], page: Page) -> None:
    """Write `augment`, which draws for every sample by itself."""
    names: list[str] = []
    lines: list[str] = []
    body: list[str] = []
    for part in parts:
        stem = re.sub(r"(?<!^)(?<![A-Z])(?=[A-Z])", "_", part.type).lower()
        name = stem if stem not in names else f"{stem}_{sum(other.startswith(stem) for other in names) + 1}"
        names.append(name)
        lines += written(f"{name} = ", transform(part))
        body += _step(part, name)
    page.add("# Random transforms: every sample draws for itself", *lines)
    page.use("torch")
    page.add(
        "def augment(images, epoch, batch):",
        '    """Transform a batch; its draws depend on (seed, epoch, batch) and disturb no others."""',
        f"    with torch.random.fork_rng({'' if job.is_on_gpu else 'devices=[]'}):",
        '        torch.manual_seed(derive("transforms", epoch, batch))',
        *(f"        {line}" for line in body),
        "    return images",
    )


def _step(part: Component, name: str) -> list[str]:
    if part.type in BY_CHANCE:
        return [
            f"taken = torch.rand(len(images)) < {literal(float(part.arguments.get('p', 0.5)))}",
            "taken = taken.to(images.device).reshape(-1, *[1] * (images.ndim - 1))",
            f"images = torch.where(taken, {name}(images), images)",
        ]
    if not is_random(part) or part.type in BY_ELEMENT:
        return [f"images = {name}(images)"]
    return [f"images = torch.stack([{name}(image) for image in images])"]


def transform(part: Component) -> Call:
    """Return the call that makes torchvision's object."""
    if part.type == "ToTensor":  # deprecated; on a tensor it is this
        return Call("v2.ToDtype", (Raw("torch.float32"),), {"scale": True})
    given = arguments_of("transforms", part)
    if part.type in BY_CHANCE:
        given["p"] = 1.0
    made = {name: _argument(name, value) for name, value in given.items()}
    if "transforms" in made:
        made["transforms"] = [transform(component(item)) for item in part.arguments["transforms"]]
    first = next(iter(made), None)
    if first in ("dtype", "size", "mean", "transforms", "degrees", "padding"):
        return Call(f"v2.{part.type}", (made.pop(first),), made)
    return Call(f"v2.{part.type}", (), made)


def _argument(name: str, value: Any) -> Any:
    if isinstance(value, str) and name == "dtype":
        return Raw(f"torch.{value}")
    if isinstance(value, str) and name in ("interpolation", "policy"):
        kind = "InterpolationMode" if name == "interpolation" else "AutoAugmentPolicy"
        return Raw(f"v2.{kind}({literal(value)})")
    if name in ("mean", "std"):
        return list(value) if isinstance(value, (list, tuple)) else value
    return tupled(value)

"""`torchvision.transforms.v2` on batches: what is fixed for the whole batch at once, what is random for each sample.

Random draws come from torch's global generator, so that whoever seeds it repeats them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import AutoAugmentPolicy, InterpolationMode

from core.spec.chance import BY_CHANCE, BY_ELEMENT, NESTING, NOTHING_TO_DO, is_random
from core.spec.job import Component
from core.train.build.augmentation import EachSample
from core.train.components import component_of, torch_arguments

Apply = Callable[[Tensor], Tensor]


class Transforms:
    """A list of transforms as one function of a batch ``[B, ...]``."""

    def __init__(self, components: Sequence[Component | str | Mapping[str, Any]]) -> None:
        listed = [component_of(component) for component in components]
        self.is_random = any(is_random(component) for component in listed)
        self.steps: list[Apply] = [step(component) for component in listed]

    def __call__(self, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Transform a batch; each sample gets random numbers of its own.

        Args:
            batch: ``batch[B, ...]``.
            generator: where random numbers are taken from; none: torch's global generator.
        """
        if generator is not None:
            seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
            devices = [batch.device] if batch.device.type == "cuda" else []
            with torch.random.fork_rng(devices):
                torch.manual_seed(seed)
                return self(batch)
        count = len(batch)
        for apply in self.steps:
            batch = apply(batch)
            if len(batch) != count:
                raise ValueError("it would take samples out of the batch")
        return batch


def transforms(components: Sequence[Component | str | Mapping[str, Any]]) -> Transforms:
    """Build what is done to batches.

    Raises:
        TypeError, ValueError: what torchvision says about the arguments.
    """
    return Transforms(components)


def step(component: Component) -> Apply:
    """Build one transform as a function of a batch."""
    name, arguments = component.type, component.arguments
    if name in NOTHING_TO_DO:
        return _unchanged
    if name == "Compose":
        return Transforms(arguments["transforms"])
    if name in BY_CHANCE:
        return _ByChance(make(component_of({**arguments, "type": name, "p": 1.0})), float(arguments.get("p", 0.5)))
    if not is_random(component) or name in BY_ELEMENT:
        return make(component)
    return EachSample(make(component))


def make(component: Component) -> v2.Transform:
    """Build torchvision's object.

    Raises:
        TypeError, ValueError: what torchvision says about the arguments.
    """
    if component.type == "ToTensor":  # deprecated in v2; on a tensor it is this
        return v2.ToDtype(torch.float32, scale=True)
    arguments = {name: _argument(name, value) for name, value in torch_arguments(component.arguments).items()}
    if component.type in NESTING:
        arguments["transforms"] = [make(component_of(item)) for item in component.arguments["transforms"]]
    return getattr(v2, component.type)(**arguments)


def _argument(name: str, value: Any) -> Any:
    words: dict[str, Callable[[str], Any]] = {
        "dtype": lambda word: getattr(torch, word),
        "interpolation": InterpolationMode,
        "policy": AutoAugmentPolicy,
    }
    return words[name](value) if name in words and isinstance(value, str) else value


def _unchanged(batch: Tensor) -> Tensor:
    return batch


class _ByChance:
    """One and the same change, made to each sample with probability `p`."""

    def __init__(self, always: Apply, p: float) -> None:
        self.always, self.p = always, p

    def __call__(self, batch: Tensor) -> Tensor:
        is_taken = torch.rand(len(batch)) < self.p
        at = is_taken.to(batch.device).reshape(-1, *[1] * (batch.ndim - 1))
        return torch.where(at, self.always(batch), batch)

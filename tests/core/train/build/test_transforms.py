"""Transforms on batches: fixed ones as torchvision's, random ones with draws of their own for each sample."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from core.spec import catalog
from core.spec.chance import FIXED, is_random
from core.spec.job import Component
from core.train import build

ARGUMENTS: dict[str, dict[str, Any]] = {
    "CenterCrop": {"size": 12},
    "Compose": {"transforms": ["RandomHorizontalFlip", {"type": "Pad", "padding": 1}]},
    "ConvertImageDtype": {"dtype": "float32"},
    "ElasticTransform": {"sigma": 1.0},
    "GaussianBlur": {"kernel_size": 3},
    "JPEG": {"quality": [50, 90]},
    "Normalize": {"mean": [0.5], "std": [0.5]},
    "Pad": {"padding": 2},
    "RandomAdjustSharpness": {"sharpness_factor": 2},
    "RandomAffine": {"degrees": 30, "translate": [0.1, 0.2], "scale": [0.8, 1.2], "shear": 5},
    "RandomApply": {"transforms": [{"type": "GaussianBlur", "kernel_size": 3}]},
    "RandomChoice": {"transforms": ["RandomHorizontalFlip", "RandomVerticalFlip"]},
    "RandomCrop": {"size": 12, "padding": 2},
    "RandomOrder": {"transforms": ["RandomHorizontalFlip", "RandomVerticalFlip"]},
    "RandomPosterize": {"bits": 2},
    "RandomResizedCrop": {"size": 12},
    "RandomRotation": {"degrees": 30},
    "RandomSolarize": {"threshold": 128},
    "Resize": {"size": [8, 8]},
    "ToDtype": {"dtype": "float32", "scale": True},
    "GaussianNoise": {"sigma": 0.1},
}
VIDEOS = ("UniformTemporalSubsample",)
SIZE_VARIES = ("RandomResize", "RandomShortestSize", "RandomZoomOut", "ScaleJitter")
"""Their images differ in size, so they make no batch."""
ON_FLOATS = ("Normalize", "GaussianNoise")


def images(count: int = 8, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 16, 16), dtype=torch.uint8, generator=generator)


def component(name: str, **more: Any) -> Component:
    return Component(type=name, **{**ARGUMENTS.get(name, {}), **more})


def apply(name: str, batch: Tensor, seed: int = 0) -> Tensor:
    return build.transforms([component(name)])(batch, torch.Generator().manual_seed(seed))


NAMES = [name for name in catalog.names("transforms") if name not in SIZE_VARIES + VIDEOS]


@pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_every_transform_takes_a_batch_and_repeats_by_seed(name: str) -> None:
    batch = images().float() / 255 if name in ON_FLOATS else images()
    before = torch.get_rng_state()
    first, again = apply(name, batch), apply(name, batch)
    assert len(first) == len(batch)
    assert torch.equal(first, again)
    assert type(first) is Tensor
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "name",
    ["RandomHorizontalFlip", "RandomVerticalFlip", "RandomAffine", "RandomRotation", "RandomCrop", "RandomResizedCrop",
     "GaussianNoise", "ColorJitter", "RandomErasing", "TrivialAugmentWide"],
)  # fmt: skip
def test_random_transforms_differ_by_sample_and_by_seed(name: str) -> None:
    one = images(1).float() / 255 if name in ON_FLOATS else images(1)
    batch = one.expand(16, -1, -1, -1)
    arguments = {"brightness": 0.5} if name == "ColorJitter" else {}
    transforms = build.transforms([component(name, **arguments)])
    made = transforms(batch, torch.Generator().manual_seed(1))
    assert len(made.flatten(1).unique(dim=0)) > 1
    assert not torch.equal(made, transforms(batch, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("name", sorted(FIXED & set(ARGUMENTS)))
def test_fixed_transforms_are_torchvisions(name: str) -> None:
    batch = images().float() / 255 if name in ON_FLOATS else images()
    arguments = {key: getattr(torch, value) if key == "dtype" else value for key, value in ARGUMENTS[name].items()}
    assert torch.equal(apply(name, batch), getattr(v2, name)(**arguments)(batch))


def test_to_tensor_and_normalize_give_torchvisions_values() -> None:
    batch = images(channels=1)
    steps = ["ToTensor", {"type": "Normalize", "mean": [0.5], "std": [0.5]}]
    assert torch.allclose(build.transforms(steps)(batch), (batch / 255 - 0.5) / 0.5, atol=1e-6)


def test_flips_take_about_their_share() -> None:
    batch = images(1).expand(1000, -1, -1, -1)
    made = build.transforms([component("RandomHorizontalFlip", p=0.25)])(batch, torch.Generator().manual_seed(3))
    is_flipped = (made == batch.flip(-1)).flatten(1).all(dim=1)
    assert bool(((made == batch).flatten(1).all(dim=1) | is_flipped).all())
    assert 200 < int(is_flipped.sum()) < 300


def test_gray_images_become_three_equal_channels() -> None:
    batch = images(channels=1)
    assert torch.equal(build.transforms(["RGB"])(batch), batch.expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (component("Resize"), False),
        (component("GaussianBlur"), True),
        (component("GaussianBlur", sigma=1.0), False),
        (component("JPEG", quality=80), False),
        (component("Compose"), True),
        (component("Compose", transforms=["RGB"]), False),
        (component("RandomCrop"), True),
    ],
    ids=str,
)
def test_what_draws_is_known(transform: Component, *, expected: bool) -> None:
    assert is_random(transform) is expected


def test_frames_are_taken_from_videos_and_not_samples_from_the_batch() -> None:
    transforms = build.transforms([component("UniformTemporalSubsample", num_samples=2)])
    assert tuple(transforms(torch.zeros(3, 8, 1, 4, 4)).shape) == (3, 2, 1, 4, 4)
    with pytest.raises(ValueError, match="out of the batch"):
        transforms(torch.zeros(8, 1, 4, 4))

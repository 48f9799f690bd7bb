"""Random transforms of a batch at once give what torchvision gives sample by sample, draws and pixels, bit for bit."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F  # noqa: N812

from core.train.build.augmentation import EachSample

BILINEAR = v2.InterpolationMode.BILINEAR
AT_ONCE: dict[str, v2.Transform] = {
    "affine": v2.RandomAffine(30, translate=(0.2, 0.1), scale=(0.7, 1.3), shear=10),
    "affine, only turned": v2.RandomAffine(10),
    "affine, bilinear, one color, center": v2.RandomAffine(
        (5, 50), shear=(-5, 5, 3, 9), interpolation=BILINEAR, fill=0.5, center=[2.0, 3.0]
    ),
    "affine, color by channel": v2.RandomAffine(40, scale=(0.4, 0.6), fill=[1, 2, 3]),
    "affine, no color": v2.RandomAffine(40, translate=(0.5, 0.5), interpolation=BILINEAR, fill=None),
    "rotation": v2.RandomRotation(45),
    "rotation, bilinear, colors": v2.RandomRotation((-200, 200), interpolation=BILINEAR, fill=[0.1, 0.2, 0.3]),
    "rotation around a corner": v2.RandomRotation(20, center=[0.0, 0.0], fill=7),
    "rotation by a quarter": v2.RandomRotation((90, 90)),
    "rotation by a half": v2.RandomRotation((-180, -180)),
    "rotation by nothing": v2.RandomRotation((0, 0)),
    "crop": v2.RandomCrop((9, 7)),
    "crop of a padded image": v2.RandomCrop((12, 10), padding=3, fill=9),
    "crop with colors": v2.RandomCrop(12, padding=(1, 2, 3, 4), fill=[1, 2, 3]),
    "crop, mirrored": v2.RandomCrop(10, padding=2, padding_mode="reflect"),
    "crop, symmetric": v2.RandomCrop((14, 10), padding=2, padding_mode="symmetric"),
    "crop larger than the image": v2.RandomCrop(18, pad_if_needed=True),
    "crop of all rows": v2.RandomCrop((12, 4)),
    "crop of everything": v2.RandomCrop((12, 10)),
    "erasing": v2.RandomErasing(p=0.7, value=3),
    "erasing in colors": v2.RandomErasing(p=0.6, value=[1, 2, 3]),
    "erasing with noise": v2.RandomErasing(p=0.9, value="random"),
    "erasing that finds no place": v2.RandomErasing(p=1.0, scale=(0.9, 0.9), ratio=(9.0, 9.0)),
}


def images(dtype: torch.dtype, height: int = 12, width: int = 10) -> Tensor:
    pixels = torch.randint(0, 256, (24, 3, height, width), generator=torch.Generator().manual_seed(3))
    return pixels.to(torch.uint8) if dtype == torch.uint8 else pixels.to(dtype) / 255


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", list(AT_ONCE))
def test_a_batch_at_once_is_one_sample_after_the_other(name: str, dtype: torch.dtype) -> None:
    transform, batch = AT_ONCE[name], images(dtype)
    before, at_once = batch.clone(), EachSample(transform)
    torch.manual_seed(8)
    one_by_one = torch.stack([transform(sample) for sample in batch])
    drawn = torch.rand(1)
    torch.manual_seed(8)
    made = at_once(batch)
    assert at_once.kernel is not None
    assert torch.equal(made, one_by_one)
    assert made.dtype == one_by_one.dtype
    assert made.is_contiguous()
    assert torch.equal(torch.rand(1), drawn)  # it has drawn as often
    assert torch.equal(batch, before)


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, 270.0])
def test_turns_that_keep_every_pixel_are_exact_on_squares(angle: float) -> None:
    batch = images(torch.uint8, 9, 9)
    made = EachSample(v2.RandomRotation((angle, angle)))(batch)
    assert torch.equal(made, F.rotate(batch, angle))
    assert torch.equal(made, torch.rot90(batch, int(angle) // 90, (-2, -1)))


@pytest.mark.parametrize(
    "transform", [v2.RandomAffine(20, fill=[1, 2]), v2.RandomCrop(20)], ids=lambda it: type(it).__name__
)
def test_what_torchvision_refuses_is_refused(transform: v2.Transform) -> None:
    batch = images(torch.float32)
    with pytest.raises(ValueError, match=r"fill|larger than"):
        transform(batch[0])
    with pytest.raises(ValueError, match=r"fill|larger than"):
        EachSample(transform)(batch)


def test_a_range_from_more_to_less_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from 30\.0 to 10\.0"):
        EachSample(v2.RandomRotation((30, 10)))(images(torch.float32))


@pytest.mark.parametrize(
    ("transform", "batch"),
    [
        (v2.RandomResizedCrop(8), images(torch.float32)),
        (v2.ColorJitter(brightness=0.5, contrast=0.5), images(torch.float32)),
        (v2.RandomAffine(20), images(torch.float32).reshape(4, 6, 3, 12, 10)),  # videos: one draw for all frames
        (v2.RandomCrop(6), images(torch.float32)[:, 0]),
    ],
    ids=["resized crop", "colors", "videos", "without channels"],
)
def test_the_others_are_made_sample_by_sample(transform: v2.Transform, batch: Tensor) -> None:
    torch.manual_seed(2)
    expected: list[Any] = [transform(sample) for sample in batch]
    torch.manual_seed(2)
    assert torch.equal(EachSample(transform)(batch), torch.stack(expected))

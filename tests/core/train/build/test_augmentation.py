"""Random transforms of a batch at once give what torchvision gives sample by sample, draws and pixels, bit for bit."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F  # noqa: N812

from core.train.build.augmentation import EachSample
from tests.repetitions import examples

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
    "rotation by next to nothing": v2.RandomRotation((-1e-17, -1e-17), interpolation=BILINEAR),
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


def ranges(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda pair: (min(pair), max(pair)))


shares = st.floats(0, 1)
leanings = ranges(-80, 80)
SHEARS = st.none() | leanings | st.tuples(leanings, leanings).map(lambda pair: (*pair[0], *pair[1]))
CENTERS = st.none() | st.lists(st.floats(-20, 20), min_size=2, max_size=2)
FILLS = st.none() | st.sampled_from([0, 0.0, -0.0, 7, 0.5]) | st.lists(st.floats(-2, 300), min_size=2, max_size=2)
MODES = st.sampled_from([v2.InterpolationMode.NEAREST, BILINEAR])
AFFINE = st.builds(
    v2.RandomAffine, ranges(-400, 400), translate=st.none() | st.tuples(shares, shares),
    scale=st.none() | ranges(0.01, 5), shear=SHEARS, interpolation=MODES, fill=FILLS, center=CENTERS,
)  # fmt: skip
ROTATION = st.builds(
    v2.RandomRotation, ranges(-400, 400) | st.integers(-8, 8).map(lambda quarters: (90.0 * quarters,) * 2),
    interpolation=MODES, fill=FILLS, center=CENTERS,
)  # fmt: skip
CROP = st.builds(
    v2.RandomCrop, st.tuples(st.integers(1, 25), st.integers(1, 25)), padding=st.none() | st.integers(0, 4),
    pad_if_needed=st.just(True),
)  # fmt: skip


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) and torch.equal(one.signbit(), other.signbit())


@given(
    transform=AFFINE | ROTATION | CROP,
    size=st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 20)),
    dtype=st.sampled_from([torch.uint8, torch.float32, torch.float64]),
    seed=st.integers(0, 2**32),
)
@examples(200, 5000)
def test_any_arguments_and_sizes_give_torchvisions_bits(
    transform: v2.Transform, size: tuple[int, int, int], dtype: torch.dtype, seed: int
) -> None:
    samples, height, width = size
    torch.manual_seed(seed)
    pixels = torch.randint(-255 if dtype.is_signed else 0, 256, (samples, 2, height, width)).to(dtype)
    torch.manual_seed(seed)
    one_by_one = torch.stack([transform(sample) for sample in pixels])
    drawn = torch.rand(1)
    torch.manual_seed(seed)
    assert same_bits(EachSample(transform)(pixels), one_by_one)
    assert torch.equal(torch.rand(1), drawn)


def test_windows_of_images_with_more_places_than_are_drawn_at_once_are_torchvisions() -> None:
    transform, batch = v2.RandomCrop(1), torch.arange(17_011).expand(3, 1, 16_381, -1)  # 16,381 * 17,011 > 2**28
    torch.manual_seed(4)
    one_by_one = torch.stack([transform(sample) for sample in batch])
    torch.manual_seed(4)
    assert torch.equal(EachSample(transform)(batch), one_by_one)


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, 270.0])
def test_turns_that_keep_every_pixel_are_exact_on_squares(angle: float) -> None:
    batch = images(torch.uint8, 9, 9)
    made = EachSample(v2.RandomRotation((angle, angle)))(batch)
    assert torch.equal(made, F.rotate(batch, angle))
    assert torch.equal(made, torch.rot90(batch, int(angle) // 90, (-2, -1)))


@pytest.mark.parametrize(
    "transform",
    [v2.RandomAffine(20, fill=[1, 2]), v2.RandomCrop(20), v2.RandomAffine(20, scale=(1e-50, 1e-50))],
    ids=["colors", "crop", "scale"],
)
def test_what_torchvision_refuses_is_refused(transform: v2.Transform) -> None:
    batch = images(torch.float32)
    with pytest.raises(ValueError, match=r"fill|larger than|scale"):
        transform(batch[0])
    with pytest.raises(ValueError, match=r"fill|larger than|scale"):
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

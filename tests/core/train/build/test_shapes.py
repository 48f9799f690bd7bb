"""Shapes and complaints are torch's own, though nothing is computed."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from core.train.build.shapes import ShapesOnly


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d, (2, 3)),
        (nn.BatchNorm1d, (2, 3, 5)),
        (nn.BatchNorm2d, (2, 3, 5, 4)),
        (nn.BatchNorm3d, (1, 3, 2, 5, 4)),
    ],
)
@pytest.mark.parametrize("is_training", [True, False])
def test_shapes_are_those_of_real_tensors(layer: type[nn.Module], shape: tuple[int, ...], is_training: bool) -> None:
    real = layer(3).train(is_training)(torch.ones(shape))

    with torch.device("meta"), ShapesOnly():
        fake = layer(3).train(is_training)(torch.ones(shape))

    assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())
    assert fake.is_meta


@pytest.mark.parametrize(("features", "shape"), [(3, (1, 3)), (4, (2, 3)), (4, (2, 3, 5, 5))])
def test_complaints_are_those_about_real_tensors(features: int, shape: tuple[int, ...]) -> None:
    layer = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    with pytest.raises((ValueError, RuntimeError)) as real:
        layer(features)(torch.ones(shape))

    with pytest.raises(real.type) as fake, torch.device("meta"), ShapesOnly():
        layer(features)(torch.ones(shape))

    assert str(fake.value) == str(real.value)


FLOAT_LAYERS = [nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid]


def outcome(layer: Callable[[], nn.Module], shape: tuple[int, ...], device: str, dtype: torch.dtype) -> object:
    """Return what comes out, or what torch says against what comes in."""
    x = torch.ones(shape, dtype=dtype, device=device)
    try:
        with torch.device(device):
            made = layer()(x.transpose(-1, 0) if x.ndim > 2 else x)
    except (RuntimeError, TypeError, ValueError) as error:
        return str(error)
    return made.shape, made.dtype, made.stride()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("layer", FLOAT_LAYERS)
def test_activations_give_and_refuse_what_they_do_without(layer: type[nn.Module], dtype: torch.dtype) -> None:
    theirs = outcome(layer, (2, 3, 4, 5), "meta", dtype)
    with ShapesOnly():
        assert outcome(layer, (2, 3, 4, 5), "meta", dtype) == theirs
    if dtype.is_floating_point:
        assert theirs == outcome(layer, (2, 3, 4, 5), "cpu", dtype)


@pytest.mark.parametrize("shape", [(2, 4), (0, 4), (2, 5), (1, 4), (4, 3, 2), (5, 3, 2), (4,), (5,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_layers_give_and_refuse_what_they_do_without(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer = partial(nn.Linear, 4, 3)
    theirs = outcome(layer, shape, "meta", dtype)
    with ShapesOnly():
        assert outcome(layer, shape, "meta", dtype) == theirs
    if dtype == torch.float32 and not isinstance(theirs, str):
        assert theirs == outcome(layer, shape, "cpu", dtype)


def test_initial_values_are_asked_for_and_not_drawn() -> None:
    with torch.device("meta"), ShapesOnly():
        weight = nn.init.kaiming_normal_(nn.Linear(4, 2).weight)
        with pytest.raises(ValueError, match="fewer than 2 dimensions"):
            nn.init.xavier_uniform_(torch.empty(3))

    assert weight.shape == (2, 4)
    assert weight.is_meta


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (2, 3), "padding": (0, 2), "dilation": (1, 2)},
        {"padding": "same"},
        {"groups": 2},
        {"bias": False},
        {"kernel_size": 7},
        {"kernel_size": 5, "padding": 1, "dilation": 2},
        {"in_channels": 6},
    ],
    ids=str,
)
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolutions_give_and_refuse_what_they_do_without(
    layer: type[nn.Module], arguments: dict[str, Any], dtype: torch.dtype
) -> None:
    make = partial(layer, **{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **arguments})
    for shape in ((5, 6, 4, 2), (2, 5, 6, 4), (4, 6, 6), (0, 6, 6, 4)):  # `outcome` changes first and last
        theirs = outcome(make, shape, "meta", dtype)
        with ShapesOnly():
            assert outcome(make, shape, "meta", dtype) == theirs

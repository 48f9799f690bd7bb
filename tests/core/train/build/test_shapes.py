"""Shapes and complaints are torch's own, though nothing is computed."""

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


def test_initial_values_are_asked_for_and_not_drawn() -> None:
    with torch.device("meta"), ShapesOnly():
        weight = nn.init.kaiming_normal_(nn.Linear(4, 2).weight)
        with pytest.raises(ValueError, match="fewer than 2 dimensions"):
            nn.init.xavier_uniform_(torch.empty(3))

    assert weight.shape == (2, 4)
    assert weight.is_meta

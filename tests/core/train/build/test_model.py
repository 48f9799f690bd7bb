"""Models from specs: sizes inferred, weights those of a plain script, parts frozen and replaced."""

from typing import Any

import pytest
import torch
from torch import nn

from core.errors import SpecInvalid
from core.spec import parse_object
from core.spec.job import JobSpec
from core.train import build
from core.train.build.layers import LastTimestep, Parallel, Residual
from core.train.build.model import NORMS
from tests.core.train.specs import DIGITS


def spec_of(layers: list[Any], **more: Any) -> JobSpec:
    return parse_object({**DIGITS, "model": {"type": "Sequential", "layers": layers, **more}})


def vision(name: str, **more: Any) -> JobSpec:
    return parse_object({**DIGITS, "model": {"type": f"torchvision.{name}", **more}})


def test_weights_are_those_of_a_plain_script() -> None:
    layers = [{"type": "Linear", "out_features": 32}, "ReLU", {"type": "Linear", "out_features": 10}]
    model = build.model(spec_of(layers), (64,), seed=7)
    torch.manual_seed(7)
    plain = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True))


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build.model(spec_of([{"type": "Linear", "out_features": 3}]), (4,), seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_another_seed_gives_other_weights() -> None:
    spec = spec_of([{"type": "Linear", "out_features": 3}])
    first, same, other = (build.model(spec, (4,), seed=seed)[0].weight for seed in (1, 1, 2))  # pyrefly: ignore
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


INFERRED: list[tuple[list[Any], tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ([{"type": "Linear", "out_features": 3}], (5,), (3,), {"in_features": 5}),
    ([{"type": "Conv1d", "out_channels": 3, "kernel_size": 3}], (2, 9), (3, 7), {"in_channels": 2}),
    ([{"type": "Conv2d", "out_channels": 3, "kernel_size": [3, 5]}], (2, 9, 9), (3, 7, 5), {"in_channels": 2}),
    ([{"type": "Conv3d", "out_channels": 3, "kernel_size": 3}], (2, 9, 9, 9), (3, 7, 7, 7), {"in_channels": 2}),
    ([{"type": "ConvTranspose2d", "out_channels": 3, "kernel_size": 2}], (2, 4, 4), (3, 5, 5), {"in_channels": 2}),
    (["BatchNorm1d"], (5,), (5,), {"num_features": 5}),
    (["BatchNorm2d"], (5, 4, 4), (5, 4, 4), {"num_features": 5}),
    ([{"type": "GroupNorm", "num_groups": 2}], (4, 3, 3), (4, 3, 3), {"num_channels": 4}),
    (["LayerNorm"], (5, 7), (5, 7), {"normalized_shape": 7}),
    ([{"type": "LayerNorm", "normalized_shape": [5, 7]}], (5, 7), (5, 7), {"normalized_shape": [5, 7]}),
    ([{"type": "LSTM", "hidden_size": 6, "batch_first": True}], (5, 3), (5, 6), {"input_size": 3}),
    ([{"type": "GRU", "hidden_size": 6, "batch_first": True, "bidirectional": True}], (5, 3), (5, 12), {}),
    ([{"type": "LSTM", "hidden_size": 6, "proj_size": 2, "batch_first": True}], (5, 3), (5, 2), {"input_size": 3}),
    ([{"type": "GRUCell", "hidden_size": 6}], (3,), (6,), {"input_size": 3}),
    ([{"type": "TransformerEncoderLayer", "nhead": 2, "batch_first": True}], (5, 4), (5, 4), {"d_model": 4}),
    ([{"type": "Embedding", "num_embeddings": 9, "embedding_dim": 4}], (5,), (5, 4), {}),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(("layers", "shape", "output", "sizes"), INFERRED, ids=lambda value: str(value)[:40])
def test_sizes_and_shapes_are_what_torch_makes_of_them(
    layers: list[Any], shape: tuple[int, ...], output: tuple[int, ...], sizes: dict[str, Any]
) -> None:
    spec = spec_of(layers)
    inferred = build.infer(spec, shape)
    assert inferred.issues == []
    assert inferred.model["layers"][0].items() >= sizes.items()
    assert inferred.layers[-1].output_shape == output
    model = build.model(spec, shape, seed=0)
    is_lookup = isinstance(model.get_submodule("0"), nn.Embedding)
    x = torch.ones((2, *shape), dtype=torch.int64 if is_lookup else torch.float32)
    assert tuple(model(x).shape) == (2, *output)
    assert sum(weight.numel() for weight in model.parameters()) == sum(row.parameters for row in inferred.layers)


def test_layers_within_layers_get_their_sizes() -> None:
    inner = {"type": "TransformerEncoderLayer", "nhead": 2, "batch_first": True}
    encoder = {"type": "TransformerEncoder", "encoder_layer": inner, "num_layers": 2, "norm": "LayerNorm"}
    spec = spec_of([encoder, "ext.LastTimestep", {"type": "Linear", "out_features": 3}])
    assert tuple(build.model(spec, (5, 8), seed=0)(torch.ones(2, 5, 8)).shape) == (2, 3)


def test_a_residual_block_adds() -> None:
    block = Residual([nn.Linear(3, 3)])
    x = torch.randn(4, 3)
    assert torch.equal(block(x), x + block.layers(x))


def test_a_residual_block_adds_its_shortcut() -> None:
    block = Residual([nn.Linear(3, 5)], [nn.Linear(3, 5)])
    x = torch.randn(4, 3)
    assert torch.equal(block(x), block.shortcut(x) + block.layers(x))


def test_branches_are_joined_along_the_features() -> None:
    branches = Parallel([nn.Linear(3, 2), nn.Identity()])
    x = torch.randn(4, 3)
    assert torch.equal(branches(x)[:, 2:], x)


def test_the_last_step_of_a_recurrent_layer_is_its_last_hidden_state() -> None:
    lstm = nn.LSTM(3, 4, batch_first=True)
    sequence, (hidden, _) = lstm(torch.randn(2, 7, 3))
    assert torch.equal(LastTimestep()((sequence, hidden)), hidden[-1])


def test_recurrent_layers_hand_on_their_sequence() -> None:
    recurrent = {"type": "LSTM", "hidden_size": 4, "batch_first": True}
    spec = spec_of([recurrent, recurrent, "ext.LastTimestep", {"type": "Linear", "out_features": 2}])
    assert tuple(build.model(spec, (6, 3), seed=0)(torch.randn(5, 6, 3)).shape) == (5, 2)


INITIALISERS = [
    "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_", "normal_", "uniform_", "trunc_normal_",
    "orthogonal_", {"type": "constant_", "val": 0.5}, "ones_", "zeros_",
]  # fmt: skip


@pytest.mark.parametrize("initialiser", INITIALISERS, ids=str)
def test_initial_weights_are_those_of_torch_init(initialiser: Any) -> None:
    layers = [{"type": "Conv2d", "out_channels": 3, "kernel_size": 3}, "BatchNorm2d", "Flatten"]
    layers += [{"type": "Linear", "out_features": 2}]
    model = build.model(spec_of(layers, weight_init=initialiser, bias_init="zeros_"), (1, 5, 5), seed=3)
    torch.manual_seed(3)
    plain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2))
    arguments = dict(initialiser) if isinstance(initialiser, dict) else {"type": initialiser}
    fill = getattr(nn.init, arguments.pop("type"))
    for part in plain:
        if isinstance(part, nn.Conv2d | nn.Linear):
            fill(part.weight, **arguments)
            nn.init.zeros_(part.bias)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True))


def test_scales_of_norms_keep_their_ones() -> None:
    model = build.model(spec_of(["LayerNorm", "BatchNorm1d"], weight_init="zeros_", bias_init="ones_"), (4,), seed=0)
    norms = [part for part in model.modules() if isinstance(part, NORMS)]
    assert [bool(part.weight.eq(1).all()) for part in norms] == [True, True]  # pyrefly: ignore


def test_a_spec_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecInvalid) as refused:
        build.model(spec_of([{"type": "Linear", "in_features": 3, "out_features": 2}]), (5,), seed=0)
    assert refused.value.issues[0].pointer == "/model/layers/0/in_features"


def test_frozen_parts_have_no_gradient() -> None:
    layers = [{"type": "Linear", "out_features": 3}, {"type": "Linear", "out_features": 2}]
    model = build.model(spec_of(layers, freeze=["0", "1.bias"]), (4,), seed=0)
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == ["1.weight"]


def test_a_prefix_is_a_whole_name() -> None:
    layers = [{"type": "Linear", "out_features": 2}] * 11
    model = build.model(spec_of(layers, freeze=["1"]), (2,), seed=0)
    assert model.get_parameter("10.weight").requires_grad


def test_a_torchvision_model_is_torchvisions() -> None:
    from torchvision.models import resnet18

    model = build.model(vision("resnet18"), (3, 32, 32), classes=7, seed=5)
    torch.manual_seed(5)
    plain = resnet18(num_classes=7)
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(model.state_dict().values(), plain.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [("squeezenet1_1", 64), ("mobilenet_v3_small", 64), ("vit_b_32", 224), ("googlenet", 64), ("densenet121", 64)],
)
def test_other_torchvision_models_answer_with_the_classes(name: str, size: int) -> None:
    inferred = build.infer(vision(name), (3, size, size), classes=4)
    assert inferred.issues == []
    assert inferred.output is not None
    assert tuple(inferred.output.shape) == (2, 4)
    assert inferred.model["num_classes"] == 4


def test_replaced_parts_get_the_sizes_that_reach_them() -> None:
    replace = {"conv1": {"type": "Conv2d", "out_channels": 64, "kernel_size": 3, "padding": 1}}
    replace["fc"] = {"type": "Linear", "out_features": 5}
    spec = vision("resnet18", replace=replace)
    model = build.model(spec, (1, 16, 16), seed=0)
    assert tuple(model(torch.zeros(2, 1, 16, 16)).shape) == (2, 5)


def test_two_thousand_layers_are_followed() -> None:
    inferred = build.infer(spec_of([{"type": "Linear", "out_features": 2}] * 2000), (2,))
    assert inferred.issues == []
    assert len(inferred.layers) == 2000


@pytest.mark.parametrize(("dim", "shape"), [(None, (5, 4)), (0, (4,)), (-3, (5, 4))])
def test_softmax_over_the_batch_is_refused_with_a_fix(dim: int | None, shape: tuple[int, ...]) -> None:
    layer = {"type": "Softmax"} if dim is None else {"type": "Softmax", "dim": dim}
    inferred = build.infer(spec_of([layer]), shape)
    (issue,) = inferred.issues
    assert (issue.pointer, issue.code) == ("/model/layers/0/dim", "batch_is_dim")
    assert issue.fix is not None
    assert issue.fix[0]["value"] == (-1 if dim is not None else {"type": "Softmax", "dim": -1})


def test_softmax_of_features_is_over_the_features() -> None:
    assert build.infer(spec_of(["Softmax"]), (4,)).model["layers"][0]["dim"] == 1

"""Every layer of the catalog in a model that is trained for one step, with as few arguments as it takes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.spec import catalog, parse_object
from core.train import build
from core.train.build.expectations import SEVERAL_INPUTS
from tests.core.train.specs import DIGITS

LEAST: dict[str, Any] = {
    "output_size": 2, "kernel_size": 2, "padding": 1, "value": 0.5, "out_channels": 3, "out_features": 3, "groups": 2,
    "size": 3, "num_embeddings": 7, "embedding_dim": 4, "hidden_size": 4, "num_groups": 2, "norm_type": 2.0,
    "num_heads": 2, "upscale_factor": 2, "downscale_factor": 2, "threshold": 0.1, "nhead": 2, "num_layers": 1,
    "dim": 1, "unflattened_size": [2, 4], "layers": [{"type": "Linear", "out_features": 8}],
    "branches": [{"type": "Linear", "out_features": 8}],
    "encoder_layer": {"type": "TransformerEncoderLayer", "nhead": 2, "batch_first": True},
    "decoder_layer": {"type": "TransformerDecoderLayer", "nhead": 2, "batch_first": True},
}  # fmt: skip
"""A value for every argument that some layer cannot do without."""
MORE: dict[str, dict[str, Any]] = {
    "Fold": {"output_size": 4},
    "FractionalMaxPool2d": {"output_size": 2},
    "FractionalMaxPool3d": {"output_size": 2},
    "Upsample": {"scale_factor": 2},
    "UpsamplingBilinear2d": {"scale_factor": 2},
    "UpsamplingNearest2d": {"scale_factor": 2},
}
"""What torch asks for though its signature does not."""
OF_SEQUENCES = (
    "RNN", "LSTM", "GRU", "MultiheadAttention", "TransformerEncoderLayer", "TransformerDecoderLayer", "Transformer"
)  # fmt: skip
SHAPES: dict[str, tuple[int, ...]] = {
    "1d": (4, 8), "2d": (4, 6, 6), "3d": (4, 6, 6, 6), "Fold": (8, 9), "Unfold": (4, 6, 6), "Softmax2d": (4, 6, 6),
    "PixelShuffle": (4, 6, 6), "PixelUnshuffle": (4, 6, 6), "ChannelShuffle": (4, 6, 6), "Upsample": (4, 6, 6),
    "GroupNorm": (4, 6), "LocalResponseNorm": (4, 6, 6), "Embedding": (5,), "EmbeddingBag": (5,),
    "CosineSimilarity": (4, 8), "PairwiseDistance": (4, 8), "ext.LastTimestep": (5, 8), "Unflatten": (8,),
    "MultiheadAttention": (5, 8), "Transformer": (5, 8), "RNN": (5, 8), "LSTM": (5, 8), "GRU": (5, 8),
}  # fmt: skip
NAMES = [name for name in catalog.names("layers") if (entry := catalog.find("layers", name)) and not entry.refused]
FLAT: tuple[int, ...] = (8,)


def shape_of(name: str) -> tuple[int, ...]:
    """Return the shape of a sample that the layer takes."""
    found = next((SHAPES[key] for key in (name, name[-2:]) if key in SHAPES), None)
    return found or (SHAPES["Transformer"] if name.startswith("Transformer") else FLAT)


def least(name: str) -> dict[str, Any]:
    """Return the layer with the arguments that it cannot do without."""
    entry = catalog.find("layers", name)
    assert entry is not None
    needed = {parameter.name: LEAST[parameter.name] for parameter in entry.parameters if parameter.required}
    batch_first = {"batch_first": True} if name in OF_SEQUENCES else {}
    return {"type": name, **needed, **batch_first, **MORE.get(name, {})}


def model_of(name: str) -> dict[str, Any]:
    """Return a model with the layer in it: a graph where it takes several inputs."""
    end = [{"type": "Flatten"}, {"type": "Linear", "out_features": 3}]
    fewest = SEVERAL_INPUTS.get(name, (0, 0))[0]
    if not fewest:
        return {"type": "Sequential", "layers": [least(name), *end]}
    nodes = [{"name": "it", "inputs": ["x"] * fewest, **least(name)}]
    return {
        "type": "Graph", "inputs": ["x"], "outputs": ["end"],
        "nodes": [*nodes, {"name": "end", "inputs": ["it"], "type": "Sequential", "layers": end}],
    }  # fmt: skip


def samples(name: str) -> Tensor:
    """Return a batch of six."""
    shape = (6, *shape_of(name))
    return torch.randint(0, 7, shape) if name.startswith("Embedding") else torch.rand(shape) + 0.25


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_takes_part_in_a_step(name: str) -> None:
    torch.manual_seed(0)
    spec, x = parse_object({**DIGITS, "model": model_of(name)}), samples(name)
    model = build.model(spec, tuple(x.shape[1:]), seed=1)
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0, 1, 2]))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert any(not torch.equal(before[key], value) for key, value in model.named_parameters())


def test_what_cannot_be_a_layer_says_why_in_one_line() -> None:
    refused = [entry for name in catalog.names("layers") if (entry := catalog.find("layers", name)) and entry.refused]
    assert len(refused) + len(NAMES) == len(catalog.names("layers"))
    assert all(entry.refused and "\n" not in entry.refused and len(entry.refused) > 10 for entry in refused)

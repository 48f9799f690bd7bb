"""What the catalog says of arguments and defaults, held against the libraries themselves."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms import v2

from core.spec import catalog
from core.spec.catalog import Entry, Parameter

INSTALLED = {name: ".".join(version(name).split(".")[:2]) for name in catalog.versions()}
pytestmark = pytest.mark.skipif(
    catalog.versions() != INSTALLED,
    reason=f"the catalog was derived from {catalog.versions()}, installed are {INSTALLED}",
)


def defaults(entry: Entry) -> dict[str, Any]:
    return {parameter.name: parameter.default for parameter in entry.parameters if parameter.default is not None}


def usable(kind: str, prefix: str = "") -> list[Entry]:
    """Return the library's own entries that can be built without any argument of the user."""
    found = [entry for entry in catalog.entries(kind) if entry.refused is None and entry.name.startswith(prefix)]
    return [entry for entry in found if "ext." not in entry.name and not any(map(must_be_given, entry.parameters))]


def must_be_given(parameter: Parameter) -> bool:
    return parameter.required or (parameter.inferred and parameter.name != "num_classes")


def weights() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(2, 2))]


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(weights(), lr=0.1, momentum=0.9)


BUILDERS: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "layers": lambda name, arguments: getattr(nn, name)(**arguments),
    "losses": lambda name, arguments: getattr(nn, name)(**arguments),
    "optimizers": lambda name, arguments: getattr(torch.optim, name)(weights(), **arguments),
    "initializers": lambda name, arguments: getattr(nn.init, name)(torch.zeros(2, 2, 2), **arguments),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_components_are_built_from_the_defaults_of_the_catalog(kind: str) -> None:
    names = [entry.name for entry in usable(kind) if entry.name != "eye_"]  # eye_ wants two dimensions
    assert names
    for name in names:
        entry = catalog.find(kind, name)
        assert entry is not None
        BUILDERS[kind](name, defaults(entry))


def test_schedulers_are_built_from_the_defaults_of_the_catalog() -> None:
    for entry in usable("lr_schedulers"):
        arguments = {name: value for name, value in defaults(entry).items() if name not in ("interval", "monitor")}
        getattr(torch.optim.lr_scheduler, entry.name)(optimizer(), **arguments)


@pytest.mark.filterwarnings("ignore:The transform `ToTensor:UserWarning")
def test_transforms_are_built_from_the_defaults_of_the_catalog() -> None:
    for entry in usable("transforms"):
        arguments = defaults(entry)
        if entry.name == "AutoAugment":
            arguments["policy"] = v2.AutoAugmentPolicy(arguments["policy"])
        if "dtype" in arguments:
            arguments["dtype"] = getattr(torch, arguments["dtype"])
        getattr(v2, entry.name)(**arguments)


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_models_are_built_from_the_defaults_of_the_catalog() -> None:
    # One of each family, on meta: no memory and no time for initial weights (regnet computes with its tensors).
    families = {"alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t",
                "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "resnext50_32x4d",
                "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11", "vit_b_16",
                "wide_resnet50_2"}  # fmt: skip
    names = {entry.name.removeprefix("torchvision."): entry for entry in usable("models", "torchvision.")}
    assert families <= names.keys()
    with torch.device("meta"):
        for name in families:
            torchvision.models.get_model(name, num_classes=2, **defaults(names[name]))

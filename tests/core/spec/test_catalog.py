"""The committed catalog: that it is what is installed says, and that it answers."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from core.spec import catalog
from core.spec.matching import mismatches


def installed(package: str) -> str:
    return ".".join(version(package).split(".")[:2])


def test_the_catalog_is_what_the_installed_packages_say() -> None:
    recorded = catalog.versions()
    other = {name: installed(name) for name in recorded if installed(name) != recorded[name]}
    if other:
        pytest.skip(f"the catalog was derived from {dict(recorded)}, installed are {other}")
    command = [sys.executable, "-m", "core.train.catalog", "--check"]
    check = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout) == (0, ""), "run `python -m core.train.catalog`\n" + check.stderr


def test_the_kinds_are_named() -> None:
    assert catalog.kinds() == [
        "layers", "losses", "optimizers", "lr_schedulers", "initializers", "transforms", "metrics", "models",
        "data_sources", "preprocess",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "required", "inferred"),
    [
        ("layers", "Linear", ["out_features"], ("in_features",)),
        ("layers", "Conv2d", ["out_channels", "kernel_size"], ("in_channels",)),
        ("layers", "BatchNorm2d", [], ("num_features",)),
        ("layers", "GroupNorm", ["num_groups"], ("num_channels",)),
        ("layers", "LayerNorm", [], ("normalized_shape",)),
        ("layers", "LSTM", ["hidden_size"], ("input_size",)),
        ("layers", "MultiheadAttention", ["num_heads"], ("embed_dim",)),
        ("layers", "ReLU", [], ()),
        ("layers", "ext.Residual", ["layers"], ()),
        ("losses", "CrossEntropyLoss", [], ()),
        ("optimizers", "SGD", [], ()),
        ("lr_schedulers", "StepLR", ["step_size"], ()),
        ("initializers", "constant_", ["val"], ()),
        ("transforms", "Normalize", ["mean", "std"], ()),
        ("models", "torchvision.resnet18", [], ("num_classes",)),
        ("data_sources", "dataset", ["id"], ()),
        ("preprocess", "StandardScaler", [], ()),
        ("metrics", "accuracy", [], ()),
    ],
)
def test_an_entry_says_what_is_required_and_what_is_inferred(
    kind: str, name: str, required: list[str], inferred: tuple[str, ...]
) -> None:
    entry = catalog.find(kind, name)
    assert entry is not None
    assert [parameter.name for parameter in entry.parameters if parameter.required] == required
    assert entry.inferred == inferred


def test_defaults_are_the_librarys() -> None:
    entry = catalog.find("optimizers", "AdamW")
    assert entry is not None
    defaults = {parameter.name: parameter.default for parameter in entry.parameters}
    assert (defaults["lr"], defaults["betas"], defaults["weight_decay"]) == (0.001, [0.9, 0.999], 0.01)


@pytest.mark.parametrize("kind", catalog.kinds())
def test_every_entry_has_a_line_of_help_and_a_sound_schema(kind: str) -> None:
    for entry in catalog.entries(kind):
        assert entry.help
        assert "\n" not in entry.help
        assert entry.as_json()["name"] == entry.name
        for parameter in entry.parameters:
            assert parameter.annotation
            assert parameter.schema.keys() <= {
                "type", "enum", "anyOf", "items", "minItems", "maxItems", "minimum", "maximum", "exclusiveMinimum",
                "exclusiveMaximum", "pattern", "properties", "additionalProperties", "x-component",
            }, (entry.name, parameter)  # fmt: skip


@pytest.mark.parametrize("kind", catalog.kinds())
def test_every_default_matches_its_schema(kind: str) -> None:
    for entry in catalog.entries(kind):
        for parameter in entry.parameters:
            found = mismatches(parameter.default, parameter.schema, f"/{parameter.name}", lambda *_: iter(()))
            assert parameter.default is None or not list(found), (entry.name, parameter)


@pytest.mark.parametrize("kind", catalog.kinds())
def test_what_stands_instead_of_a_refused_name_can_be_used(kind: str) -> None:
    instead = [entry.instead for entry in catalog.entries(kind) if entry.instead]
    assert set(instead) <= set(catalog.names(kind))


@pytest.mark.parametrize("kind", catalog.kinds())
def test_no_callable_device_or_tensor_is_an_argument(kind: str) -> None:
    given = {parameter.name for entry in catalog.entries(kind) for parameter in entry.parameters}
    assert not given & {"params", "optimizer", "last_epoch", "device", "lr_lambda", "scale_fn", "norm_layer", "tensor"}


def test_unknown_names_and_kinds_are_none() -> None:
    assert catalog.find("layers", "linear") is None
    assert catalog.find("planets", "Mars") is None
    assert catalog.entries("planets") == []

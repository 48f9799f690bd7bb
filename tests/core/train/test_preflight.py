"""Preflight over the examples, and what its report says."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.spec import parse_object
from core.train import preflight
from tests.core.train.specs import DIABETES, DIGITS, EXAMPLES, IMAGES, changed, checked, example

EPOCHS = {"type": "CosineAnnealingLR", "T_max": "epochs"}
NAMES = sorted(path.name for path in EXAMPLES.glob("*.json"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def with_data(body: dict[str, Any], mnist: Path | None) -> dict[str, Any]:
    if "torchvision" in json.dumps(body["data"]) and mnist is None:
        pytest.skip("needs the MNIST of EPOCHD_TEST_DATA")
    return body


@pytest.fixture(scope="module")
def datasets() -> Path | None:
    import os

    root = Path(os.environ.get("EPOCHD_TEST_DATA", EXAMPLES.parent.parent / "shared" / "data"))
    return root if (root / "MNIST").is_dir() else None


@pytest.mark.parametrize("name", NAMES)
def test_an_example_can_run(cache: Path, datasets: Path | None, name: str) -> None:
    report = checked(with_data(example(name), datasets), cache, datasets_dir=datasets)
    assert report.errors == ()
    assert report.warnings == ()
    assert report.as_json()["ok"] is True


@pytest.mark.parametrize("name", NAMES)
def test_a_resolved_spec_parses_and_resolves_to_itself(cache: Path, datasets: Path | None, name: str) -> None:
    report = checked(with_data(example(name), datasets), cache, datasets_dir=datasets)
    again = checked(report.resolved_spec, cache, datasets_dir=datasets)
    assert again.errors == ()
    assert again.resolved_spec == report.resolved_spec
    assert again.summary == report.summary


def test_the_summary_of_a_simple_net_is_what_the_formulas_say(cache: Path) -> None:
    body = changed(DIGITS, ("replace", "/model/layers/0/out_features", 128))
    summary = checked(body, cache).summary
    assert summary["parameters"] == summary["trainable_parameters"] == 64 * 128 + 128 + 128 * 10 + 10
    assert summary["flops_per_sample"] == 2 * (64 * 128 + 128 * 10)
    assert summary["steps_per_epoch"] == -(-1438 // 64)
    assert summary["memory_bytes"] > 4 * summary["parameters"]
    assert summary["layers"] == [
        {
            "pointer": "/model/layers/0",
            "type": "Linear",
            "input_shape": [64],
            "output_shape": [128],
            "parameters": 8320,
        },
        {"pointer": "/model/layers/1", "type": "ReLU", "input_shape": [128], "output_shape": [128], "parameters": 0},
        {
            "pointer": "/model/layers/2",
            "type": "Linear",
            "input_shape": [128],
            "output_shape": [10],
            "parameters": 1290,
        },
    ]


def test_the_784_128_10_net_has_101770_parameters(cache: Path, datasets: Path | None) -> None:
    body = with_data(example("mnist-mlp.json"), datasets)
    assert checked(body, cache, datasets_dir=datasets).summary["parameters"] == 101_770


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "accumulate", "steps"),
    [("full", False, 1, 1), (1, False, 1, 354), (64, False, 1, 6), (64, True, 1, 5), (64, False, 4, 2)],
)
def test_steps_are_counted_as_the_loop_counts_them(
    cache: Path, *, batch_size: int | str, drop_last: bool, accumulate: int, steps: int
) -> None:
    body = {**DIABETES, "batch_size": batch_size, "drop_last": drop_last, "accumulate_grad_batches": accumulate}
    assert checked(body, cache).summary["steps_per_epoch"] == steps


def test_the_resolved_spec_has_sizes_defaults_task_seed_and_numbers_for_words(cache: Path) -> None:
    body = changed(DIGITS, ("remove", "/seed", None), ("add", "/lr_scheduler", EPOCHS), ("add", "/early_stopping", {}))
    resolved = checked(body, cache).resolved_spec
    assert resolved["model"]["layers"][2] == {"type": "Linear", "in_features": 32, "out_features": 10, "bias": True}
    assert resolved["optimizer"]["momentum"] == 0
    assert resolved["loss"]["reduction"] == "mean"
    assert resolved["lr_scheduler"]["T_max"] == 3
    assert resolved["early_stopping"]["mode"] == "min"
    assert resolved["task"] == "classification"
    assert resolved["metrics"] == [{"type": "accuracy"}]
    assert isinstance(resolved["seed"], int)
    assert resolved["execution"]["device"] == "auto"


def test_two_specs_without_a_seed_get_different_ones(cache: Path) -> None:
    body = changed(DIGITS, ("remove", "/seed", None))
    assert checked(body, cache).resolved_spec["seed"] != checked(body, cache).resolved_spec["seed"]


def test_the_width_after_encoding_is_that_of_the_training_part(cache: Path) -> None:
    body = changed(DIABETES, ("add", "/data/preprocess", [{"type": "PolynomialFeatures", "degree": 2}]))
    assert checked(body, cache).resolved_spec["model"]["layers"][0]["in_features"] == 66


def test_a_plateau_follows_its_metric_in_the_right_direction(cache: Path) -> None:
    plateau = {"type": "ReduceLROnPlateau", "monitor": "val_accuracy"}
    resolved = checked(changed(DIGITS, ("add", "/lr_scheduler", plateau)), cache).resolved_spec
    assert resolved["lr_scheduler"]["mode"] == "max"


def test_the_layers_of_a_residual_block_stand_at_their_own_pointers(cache: Path) -> None:
    rows = checked(example("cnn-augmented.json"), cache).summary["layers"]
    pointers = [row["pointer"] for row in rows]
    assert "/model/layers/4/layers/3" in pointers
    assert "/model/layers/4/shortcut/0" in pointers


def test_frozen_parameters_are_not_trainable(cache: Path) -> None:
    summary = checked(example("resnet18-digits.json"), cache).summary
    assert summary["parameters"] - summary["trainable_parameters"] == 147_968  # two basic blocks of 64 channels


def test_a_model_that_cannot_be_built_has_no_summary(cache: Path) -> None:
    body = changed(IMAGES, ("replace", "/model/layers/0/kernel_size", 9))
    answer = checked(body, cache).as_json()
    assert answer["ok"] is False
    assert answer["summary"] is None
    assert answer["resolved_spec"] is None


class Recorded:
    """A channel that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def receive(self, timeout: float | None = 0) -> dict[str, Any] | None:
        return None

    @property
    def closed(self) -> bool:
        return False


def request(body: dict[str, Any], cache: Path) -> dict[str, Any]:
    return {
        "spec": body,
        "datasets_dir": str(cache / "datasets"),
        "cache_dir": str(cache),
        "uploads": {},
        "max_parameters": 10**9,
    }


def test_a_child_answers_with_one_message_of_json(cache: Path) -> None:
    channel = Recorded()
    preflight.main(channel, request(DIGITS, cache))
    (answer,) = channel.sent
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert answer["type"] == "preflight"
    assert answer["ok"] is True


def test_a_child_answers_for_a_spec_that_does_not_parse(cache: Path) -> None:
    channel = Recorded()
    preflight.main(channel, request(changed(DIGITS, ("replace", "/optimizer/type", "Adamm")), cache))
    (answer,) = channel.sent
    assert answer["ok"] is False
    assert answer["errors"][0]["pointer"] == "/optimizer/type"


def test_checking_leaves_torch_as_it_was(cache: Path) -> None:
    import torch

    before = torch.get_rng_state()
    checked(example("cnn-augmented.json"), cache)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_default_device() == torch.device("cpu")


def test_parsing_a_resolved_spec_keeps_its_words(cache: Path) -> None:
    report = checked(DIGITS, cache)
    assert parse_object(report.resolved_spec).epochs == 3

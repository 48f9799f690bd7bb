"""Scripts written from jobs end with the jobs' weights, bit for bit, and print the jobs' numbers."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.core.code.scripts import Runner, Trained, assert_repeats
from tests.core.code.varieties import VARIETIES

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("EPOCHD_TEST_DATA", ROOT.parent / "shared" / "data"))


def example(name: str, **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((ROOT / "examples" / f"{name}.json").read_text(encoding="utf-8"))
    return body | changes


def check(spec: dict[str, Any], folder: Path, runner: Runner, *arguments: str) -> str:
    job = Trained(spec, folder, datasets_dir=DATA)
    text = job.script()
    said = runner.run(folder, text, *arguments)
    assert_repeats(job, text, said, folder)
    return text


@pytest.mark.parametrize(
    ("name", "epochs", "samples"),
    [
        ("digits-early-stopping", 60, None),
        ("diabetes-regression", 200, None),
        ("cnn-augmented", 2, 300),
        ("resnet18-digits", 1, 150),
    ],
)
def test_an_example_is_repeated_bit_for_bit(
    name: str, epochs: int, samples: int | None, tmp_path: Path, runner: Runner
) -> None:
    spec = example(name, epochs=epochs, execution={"threads": 1})
    if samples is not None:
        spec["data"]["max_samples"] = samples  # these take minutes as they are; the lines are the same
    check(spec, tmp_path, runner)


@pytest.mark.parametrize("name", list(VARIETIES))
def test_a_job_is_repeated_bit_for_bit(name: str, tmp_path: Path, runner: Runner) -> None:
    check(VARIETIES[name], tmp_path, runner)

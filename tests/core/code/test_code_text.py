"""What scripts look like: clean, the same for the same job, with nothing in them that the job does not use."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.code import script
from core.spec import parse_object
from core.train import preflight
from tests.core.code.varieties import IMAGES, IRIS, MOONS, VARIETIES

ROOT = Path(__file__).parents[3]
RUFF = Path(sys.executable).with_name("ruff")
STRICT = "B,C4,E,F,FURB,I,N,PIE,PLE,PLW,RET,RUF,SIM,UP,W"
EXAMPLES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "examples").glob("*.json")}


def resolved(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    found = preflight.check(
        parse_object(spec), datasets_dir=folder, cache_dir=folder / "cache", uploads={}, max_parameters=10**8
    )
    assert not found.errors, found.errors
    return found.resolved_spec


def written(spec: dict[str, Any], folder: Path) -> str:
    return script(resolved(spec, folder))


def test_scripts_are_clean_and_laid_out_as_ruff_does(tmp_path: Path) -> None:
    offline = {name: spec for name, spec in EXAMPLES.items() if name != "mnist-mlp"}
    for name, spec in {**offline, **VARIETIES}.items():
        (tmp_path / f"{name.replace(' ', '_').replace(',', '')}.py").write_text(written(spec, tmp_path / "data"))
    options = ["--isolated", "--no-cache", "--line-length", "100"]
    ignored = ["--ignore", "B023,PLW0603,PLW2901,RET504,SIM102"]  # steps by name, and state at the top of a script
    for command in (["check", "--select", STRICT, *ignored], ["format", "--check", "--diff"]):
        done = subprocess.run([RUFF, *command, *options, str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_same_job_gives_the_same_text(tmp_path: Path) -> None:
    spec = resolved(IRIS, tmp_path)
    assert script(spec) == script(json.loads(json.dumps(spec)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"early_stopping": {"patience": 3}}, ["wait", "if not math.isfinite(row"]),
        ({"ema": {"decay": 0.9}}, ["AveragedModel", "average"]),
        ({"swa": {"start_epoch": 2}}, ["judged", "AveragedModel"]),
        ({"gradient_clipping": {"max_norm": 1.0}}, ["clip_grad_norm_"]),
        ({"accumulate_grad_batches": 2}, ["group"]),
        ({"lr_scheduler": {"type": "StepLR", "step_size": 2}}, ["scheduler"]),
        ({"max_steps": 5}, ["MAX_STEPS", "step += 1"]),
        ({"regularization": {"l1": 0.1}}, ["penalty"]),
        ({"precision": "bf16-mixed"}, ["autocast"]),
        ({"deterministic": True}, ["use_deterministic_algorithms"]),
        ({"compile": True}, ["torch.compile"]),
    ],
)
def test_only_what_the_job_uses_appears(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    plain, with_it = written(MOONS, tmp_path), written(MOONS | changes, tmp_path)
    for word in words:
        assert word not in plain.replace('if not math.isfinite(row["train_loss"])', "")
        assert word in with_it


def test_the_script_of_a_compiled_job_does_not_promise_its_bits(tmp_path: Path) -> None:
    plain, compiled = written(MOONS, tmp_path), written(MOONS | {"compile": True}, tmp_path)
    assert "exactly those of the job" in plain
    assert "exactly those of the job" not in compiled
    assert "the last bits differ" in compiled


def test_a_name_cannot_leave_the_docstring(tmp_path: Path) -> None:
    text = written(MOONS | {"name": 'x"""\nimport os\\ \u202e'}, tmp_path)
    assert text.startswith('"""x import os, as plain PyTorch.\n')


def test_a_script_of_usual_size_is_read_in_a_few_minutes(tmp_path: Path) -> None:
    for name in ("digits-early-stopping", "diabetes-regression", "cnn-augmented", "resnet18-digits"):
        assert 80 <= len(written(EXAMPLES[name], tmp_path).splitlines()) <= 250


def test_a_job_of_a_gpu_moves_model_and_data_there_and_keeps_its_generator_apart(tmp_path: Path) -> None:
    text = written({**IMAGES, "execution": {"device": "gpu"}}, tmp_path)
    for line in ("model.to(device)", "x_train = x_train.to(device)", "y_val = y_val.to(device)", "fork_rng():"):
        assert line in text

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.service import ROOT, example


def demo(folder: Path, spec: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "epochd", "demo", str(folder / "spec.json")]
    environment = os.environ | {"TMPDIR": str(folder), "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_the_demo_trains_shows_the_result_and_leaves_nothing(tmp_path: Path) -> None:
    done = demo(tmp_path, example("digits-early-stopping") | {"epochs": 3})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "epoch 3/3" in done.stdout
    assert "accuracy" in done.stdout
    assert "did not stop it: patience used" in done.stdout
    assert not list(tmp_path.glob("epochd-demo-*"))


def test_a_demo_that_fails_says_what_the_service_said_and_exits_as_the_watch_does(tmp_path: Path) -> None:
    done = demo(tmp_path, {"epochs": 3})
    assert done.returncode == 2
    assert "/model" in done.stderr
    assert "the service said:\nepochd api ready on" in done.stdout

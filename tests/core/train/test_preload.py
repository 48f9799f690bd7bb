"""The template's imports run nothing: no thread, no operator; a child forked after them can use two threads."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(script: str) -> str:
    env = {"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_preloading_starts_no_thread() -> None:
    script = "import os, core.train.preload; print(len(os.listdir('/proc/self/task')))"
    assert run(script) == "1"


def test_preloading_imports_what_a_job_needs() -> None:
    script = """
import sys, core.train.preload
wanted = {"torch._dynamo", "torchvision.transforms.v2", "core.train.run", "core.train.preflight"}
print(sorted(wanted - set(sys.modules)))
"""
    assert run(script) == "[]"


def test_a_child_of_the_preloaded_process_can_compute_with_two_threads() -> None:
    script = """
import os, core.train.preload
import torch
pid = os.fork()
if pid == 0:
    torch.set_num_threads(2)
    total = float((torch.ones(2000, 200) @ torch.ones(200, 2000)).sum())
    os._exit(0 if total == 8e8 and len(os.listdir("/proc/self/task")) >= 2 else 3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run(script) == "0"

"""The template's imports run nothing: no thread, no operator; a child forked after them can use two threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, os, sys
import core.train.preload
import torch

threads = len(os.listdir("/proc/self/task"))
modules = sorted(sys.modules)
pid = os.fork()
if pid == 0:
    torch.set_num_threads(2)
    total = float((torch.ones(2000, 200) @ torch.ones(200, 2000)).sum())
    os._exit(0 if total == 8e8 and len(os.listdir("/proc/self/task")) >= 2 else 3)
child = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps({"threads": threads, "modules": modules, "child": child}))
"""
WANTED = {"torch._dynamo", "torchvision.transforms.v2", "core.train.run", "core.train.preflight"}


def test_preloading_imports_what_a_job_needs_without_a_thread_and_its_child_computes_with_two() -> None:
    env = {"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["threads"] == 1
    assert set(found["modules"]) >= WANTED
    assert found["child"] == 0

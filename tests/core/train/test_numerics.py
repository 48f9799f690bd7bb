import builtins
import io
import platform
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.train import numerics
from core.train.rng import rng_state, seed_all, set_rng_state
from core.train.seeds import derive, generator

CPU = torch.device("cpu")


def test_a_tiny_model_gets_one_thread_and_a_large_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2, 3}, raising=False)
    assert numerics.choose_threads(64 * 10_000) == 1
    assert numerics.choose_threads(64 * 1e9) == 4


def test_a_containers_share_of_the_processors_is_all_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    share, real = "/sys/fs/cgroup/cpu.max", builtins.open

    def opened(path: Any, *args: Any, **more: Any) -> Any:
        return io.StringIO("250000 100000\n") if path == share else real(path, *args, **more)

    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(64)), raising=False)
    monkeypatch.setattr("os.path.exists", lambda path: path == share)
    monkeypatch.setattr(builtins, "open", opened)
    assert numerics.choose_threads(64 * 1e9) == 3


def test_without_a_gpu_auto_is_the_cpu() -> None:
    assert numerics.device_of("cpu", "auto") == CPU
    assert numerics.device_of("cuda:0", "cpu") == CPU


def test_the_fingerprint_names_what_decides_the_bits() -> None:
    fingerprint = numerics.fingerprint(CPU, 3)
    assert list(fingerprint) == ["device", "threads", "isa", "cpu", "cpu_flags", "torch", "torchvision"]
    assert fingerprint == numerics.fingerprint(CPU, 3)
    assert fingerprint["threads"] == 3
    assert fingerprint["isa"] == torch.backends.cpu.get_cpu_capability()


def test_processors_of_one_instruction_set_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "CPU_INFO", tmp_path / "cpuinfo")
    text = (
        "processor\t: 0\ncpu family\t: 6\nmodel\t\t: {}\nmodel name\t: Xeon\nstepping\t: 8\nflags\t\t: fpu {}avx2\n\n"
    )
    found = []
    for model, flags in ((143, "amx_bf16 "), (143, ""), (85, "")):
        numerics.CPU_INFO.write_text(text.format(model, flags) * 2)
        found.append(numerics.processor())
    assert found[0] == {"cpu": "Xeon 6 143 8", "cpu_flags": "amx_bf16 avx2"}
    assert found[1] == {"cpu": "Xeon 6 143 8", "cpu_flags": "avx2"}
    assert found[2] == {"cpu": "Xeon 6 85 8", "cpu_flags": "avx2"}


def test_without_the_facts_of_linux_a_processor_is_its_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numerics, "CPU_INFO", tmp_path / "missing")
    assert numerics.processor() == {"cpu": platform.machine(), "cpu_flags": ""}


def draw() -> tuple[float, float, float, float]:
    return torch.rand(()).item(), random.random(), float(np.random.rand()), float(np.random.standard_normal())


def test_all_generators_go_on_where_they_were(tmp_path: object) -> None:
    seed_all(3)
    draw()
    state = rng_state(CPU)
    expected = [draw() for _ in range(3)]
    seed_all(4)
    set_rng_state(state, CPU)
    assert [draw() for _ in range(3)] == expected


def test_seeds_differ_by_purpose_and_repeat() -> None:
    seeds = [derive(7, "order", 1), derive(7, "order", 2), derive(7, "transforms", 1), derive(8, "order", 1)]
    assert len(set(seeds)) == 4
    assert derive(7, "order", 1) == seeds[0]
    assert torch.equal(torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "a")))

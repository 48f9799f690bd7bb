import random

import numpy as np
import pytest
import torch

from core.train import numerics
from core.train.rng import rng_state, seed_all, set_rng_state
from core.train.seeds import derive, generator

CPU = torch.device("cpu")


def test_a_tiny_model_gets_one_thread_and_a_large_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2, 3}, raising=False)
    assert numerics.choose_threads(64 * 10_000) == 1
    assert numerics.choose_threads(64 * 1e9) == 4


def test_without_a_gpu_auto_is_the_cpu() -> None:
    assert numerics.device_of("cpu", "auto") == CPU
    assert numerics.device_of("cuda:0", "cpu") == CPU


def test_the_fingerprint_names_what_decides_the_bits() -> None:
    fingerprint = numerics.fingerprint(CPU, 3)
    assert list(fingerprint) == ["device", "threads", "isa", "torch", "torchvision"]
    assert fingerprint["threads"] == 3
    assert fingerprint["isa"] == torch.backends.cpu.get_cpu_capability()


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

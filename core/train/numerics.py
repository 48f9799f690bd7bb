"""What decides the bits: device, threads, processor, versions."""

import os
import platform
from pathlib import Path
from typing import Any

import joblib
import torch

from core.versions import installed

CPU_INFO = Path("/proc/cpuinfo")
VECTOR_FLAGS = ("amx", "avx", "f16c", "fma", "sse4", "asimd", "bf16", "i8mm", "sve")
"""What the names of vector instructions begin with; oneDNN and MKL choose their kernels by them."""
TINY_FLOPS = 50_000_000
"""Below so many operations a batch, starting a second thread costs more than it brings."""


def device_of(order_device: str, wanted: str) -> torch.device:
    """Return the device to train on: the one that the order lends, unless the spec wants the CPU."""
    is_usable = order_device.startswith("cuda") and wanted != "cpu" and torch.cuda.is_available()
    return torch.device(order_device if is_usable else "cpu")


def choose_threads(flops_per_batch: float) -> int:
    """Return how many threads suit a model: one for a tiny one, else as many as this process may use processors.

    A container's share of the processor's time counts like so many processors.
    """
    return 1 if flops_per_batch < TINY_FLOPS else joblib.cpu_count()


def settle(threads: int, *, is_deterministic: bool) -> None:
    """Set the process's threads and, where asked, deterministic algorithms; once, before the first operator."""
    torch.set_num_threads(threads)
    if is_deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(mode=True)
        torch.backends.cudnn.benchmark = False


def fingerprint(device: torch.device, threads: int) -> dict[str, Any]:
    """Return what must be equal for two runs of one spec and seed to give the same bits on a CPU.

    torch's `isa` says which of its own kernels run. The libraries below it look closer: they choose by single
    instructions and by the sizes of the caches, for which `cpu` stands.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "threads": threads,
        "isa": torch.backends.cpu.get_cpu_capability(),
        **processor(),
        "torch": torch.__version__,
        "torchvision": installed("torchvision"),
    }


def processor() -> dict[str, str]:
    """Return the processor's name with its numbers, and its vector instructions, as Linux tells them."""
    facts: dict[str, str] = {}
    if CPU_INFO.is_file():
        first, _, _ = CPU_INFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")
        facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    numbers = [
        facts[name] for name in ("cpu family", "model", "stepping", "CPU implementer", "CPU part") if name in facts
    ]
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return {
        "cpu": " ".join([facts.get("model name") or platform.machine(), *numbers]),
        "cpu_flags": " ".join(sorted(flag for flag in flags if flag.startswith(VECTOR_FLAGS))),
    }

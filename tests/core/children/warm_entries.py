"""What the children of test_warming.py run."""

import hashlib
import os
import random
from typing import Any

import numpy as np
import torch

from core.channel import Channel


def state(channel: Channel, request: dict[str, Any]) -> None:
    """Tell what a computation could depend on, then compute with two threads; stay until nobody listens."""
    before = {
        "torch": _digest(torch.get_rng_state().numpy().tobytes()),
        "numpy": _digest(repr(np.random.get_state()).encode()),
        "dtype": str(torch.get_default_dtype()),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "modes": torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack(),
        "cuda": torch.cuda.is_initialized(),
        "environ": dict(os.environ),
        "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
    }
    torch.set_num_threads(2)
    total = float((torch.ones(2000, 200) @ torch.ones(200, 2000)).sum())
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    channel.send({"pid": os.getpid(), "before": before, "total": total, "threads": threads, "chance": random.random()})
    while not channel.closed:
        channel.receive(0.05)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

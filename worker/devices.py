"""The accelerators of this host, and which of them an attempt gets. NVML is asked, torch is not imported."""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import structlog

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as NVML sees it."""

    name: str
    index: int
    """NVML's number, in the order of the PCI bus."""
    uuid: str
    memory_bytes: int

    def as_json(self) -> dict[str, Any]:
        """Return what `/v1/workers` shows."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one attempt computes on."""

    device: str
    """torch's name inside the trainer: `cpu` or `cuda:0`, for a trainer sees its own GPU only."""
    env: dict[str, str]
    label: str
    """What people read in the list of attempts."""


CPU = Assignment("cpu", {"CUDA_VISIBLE_DEVICES": ""}, "cpu")


def visible_devices() -> tuple[Device, ...]:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` leaves; none where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.info("devices.none", reason=str(error))
        return ()
    try:
        found = tuple(_describe(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()
    return chosen(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def _describe(nvml: Any, index: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Device(nvml.nvmlDeviceGetName(handle), index, nvml.nvmlDeviceGetUUID(handle), int(memory.total))


def chosen(found: tuple[Device, ...], variable: str | None) -> tuple[Device, ...]:
    """Return the devices that the variable names, in its order; CUDA stops reading at the first unknown one."""
    if variable is None:
        return found
    picked: list[Device] = []
    for word in (part.strip() for part in variable.split(",")):
        device = next((one for one in found if word and (word == str(one.index) or one.uuid.startswith(word))), None)
        if device is None:
            break
        picked.append(device)
    return tuple(picked)


class Devices:
    """Hands GPUs out to attempts, the least used one first."""

    def __init__(self, devices: tuple[Device, ...]) -> None:
        self.all = devices
        self._lock = threading.Lock()
        self._users = dict.fromkeys(devices, 0)

    @contextlib.contextmanager
    def assigned(self, wanted: str) -> Iterator[Assignment]:
        """Lend a device for an attempt.

        Args:
            wanted: `execution.device` of the spec: `auto`, `cpu` or `gpu`. Without a GPU here all mean the CPU.
        """
        if wanted == "cpu" or not self.all:
            yield CPU
            return
        with self._lock:
            device = min(self._users, key=lambda one: (self._users[one], one.index))
            self._users[device] += 1
        try:
            yield Assignment("cuda:0", {"CUDA_VISIBLE_DEVICES": device.uuid}, f"cuda:{device.index}")
        finally:
            with self._lock:
                self._users[device] -= 1

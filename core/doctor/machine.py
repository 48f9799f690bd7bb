"""This machine: versions, limits of the process, GPUs. torch is not imported."""

import os
import platform
import resource
import sys
from collections.abc import Iterator
from typing import Any

from core.doctor.findings import Finding, error, ok, warning
from core.doctor.versions import pair, torch_build
from core.settings import GIB, MIB, Settings
from core.spec import catalog
from core.versions import installed_or_none

OLDEST_TORCH = (2, 11)
FEW_FILES = 1024
SMALL_SHARED_BYTES = 64 * MIB
SHARED = "/dev/shm"  # noqa: S108 - looked at, not written to


def look(settings: Settings) -> Iterator[Finding]:
    """Check versions, limits and GPUs."""
    yield _python()
    build = torch_build()
    yield judged_torch(installed_or_none("torch"), catalog.versions()["torch"])
    yield _open_files()
    yield from _shared_memory()
    yield _gpus(settings, build)


def _python() -> Finding:
    ours = installed_or_none("epochd") or "from a checkout"
    found = f"Python {platform.python_version()}, epochd {ours}, {os.cpu_count()} cores, {platform.machine()}."
    return ok("machine.python", found, python=platform.python_version(), epochd=ours, cores=os.cpu_count())


def judged_torch(version: str | None, catalogued: str) -> Finding:
    """Judge the installed torch against the oldest that works, and the one whose names the catalog has."""
    check, wanted = "machine.torch", ".".join(map(str, OLDEST_TORCH))
    if version is None:
        return error(check, "torch is not installed.", f"Install torch {wanted} or newer, and torchvision with it.")
    numbers = {"torch": version, "torchvision": installed_or_none("torchvision"), "catalog": catalogued}
    if pair(version) < OLDEST_TORCH:
        return error(check, f"torch {version} is too old.", f"Install torch {wanted} or newer.", **numbers)
    if pair(version) != pair(catalogued):
        advice = "Jobs that name what is not in this one are refused at their start; `make generate` derives it anew."
        return warning(check, f"torch {version}; the catalog has the names of {catalogued}.", advice, **numbers)
    return ok(check, f"torch {version}, as the catalog; torchvision {numbers['torchvision']}.", **numbers)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    check, found = "machine.open_files", f"A process may open {soft:,} files (up to {hard:,})."
    if soft >= FEW_FILES:
        return ok(check, found, soft=soft, hard=hard)
    return warning(check, found, "Raise it (`ulimit -n`, LimitNOFILE=): every waiting client is one.", soft=soft)


def _shared_memory() -> Iterator[Finding]:
    if sys.platform != "linux" or not os.path.isdir(SHARED):  # noqa: PTH112 - a constant
        return
    about = os.statvfs(SHARED)
    size_bytes = about.f_blocks * about.f_frsize
    check, found = "machine.shared_memory", f"{SHARED} has {size_bytes / MIB:,.0f} MiB."
    if size_bytes > SMALL_SHARED_BYTES:
        yield ok(check, found, size_bytes=size_bytes)
    else:
        advice = "Loader processes hand batches over in it: give the container more (`--shm-size=1g`)."
        yield warning(check, found, advice, size_bytes=size_bytes)


def _gpus(settings: Settings, build: dict[str, Any]) -> Finding:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as failure:
        return judged_gpus([], None, None, build, wants_gpu="gpu" in settings.queues, reason=str(failure))
    try:
        names = [_described(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        driver, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2()
    except pynvml.NVMLError as failure:
        advice = "The driver is loaded and does not answer: look at `nvidia-smi` and the kernel's log."
        return error("machine.gpu", f"The NVIDIA driver says: {failure}", advice)
    finally:
        pynvml.nvmlShutdown()
    return judged_gpus(names, str(driver), int(cuda), build, wants_gpu="gpu" in settings.queues)


def _described(nvml: Any, index: int) -> str:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return f"{nvml.nvmlDeviceGetName(handle)} ({memory.total / GIB:.0f} GiB, {memory.free / GIB:.0f} free)"


def judged_gpus(
    names: list[str], driver: str | None, cuda: int | None, build: dict[str, Any], *, wants_gpu: bool, reason: str = ""
) -> Finding:
    """Judge the GPUs against torch and what this machine shall do.

    Args:
        names: of the GPUs.
        driver: its version.
        cuda: the newest CUDA that it runs, 1000·major + 10·minor.
        build: what torch's `version.py` says.
        wants_gpu: whether this machine's worker serves the queue `gpu`.
        reason: why there is none.
    """
    check, numbers = "machine.gpu", {"gpus": names, "driver": driver, "torch_cuda": build.get("cuda")}
    if not names:
        if wants_gpu:
            advice = "Jobs of that queue will train on the CPU: install the driver, or take `gpu` out of EPOCHD_QUEUES."
            return warning(check, f"EPOCHD_QUEUES has gpu and there is no GPU ({reason or 'none listed'}).", advice)
        return ok(check, f"No GPU ({reason or 'none listed'}); the CPU trains.", **numbers)
    found = f"{', '.join(names)}; driver {driver}."
    if build.get("cuda") is None:
        advice = "Install the CUDA build of torch: this one trains on the CPU beside an idle GPU."
        return error(check, f"{found} torch {build.get('__version__')} is built without CUDA.", advice, **numbers)
    if cuda is not None and cuda // 1000 < pair(str(build["cuda"]))[0]:
        words = f"{found} It runs CUDA {cuda // 1000}.{cuda % 1000 // 10}, torch is built for {build['cuda']}."
        return error(check, words, "Update the driver, or install a torch that is built for it.", **numbers)
    return ok(check, f"{found} torch is built for CUDA {build['cuda']}.", **numbers)

"""Whether the kernel killed for want of memory: its counters say so, per control group (v2 and v1) or machine."""

from pathlib import Path


class OomCounter:
    """Counts the kernel's out-of-memory kills in this process's control group and on this machine."""

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        self._files = (*_group_files(proc, cgroups), proc / "vmstat")
        self._last = self.read()

    def read(self) -> int:
        """Return the sum of all counters that can be read."""
        return sum(_oom_kills(file) for file in self._files)

    def has_grown(self) -> bool:
        """Say whether there were kills since the counter was made or last asked."""
        before, self._last = self._last, self.read()
        return self._last > before


def _group_files(proc: Path, cgroups: Path) -> list[Path]:
    files: list[Path] = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files.append(cgroups / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            files.append(cgroups / "memory" / path.lstrip("/") / "memory.oom_control")
    return files


def _oom_kills(file: Path) -> int:
    for line in _text(file).splitlines():
        word, _, count = line.partition(" ")
        if word == "oom_kill":
            return int(count)
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""

"""A private mount namespace: small disks that can be full, and a control group whose counters a test writes."""

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.service import ROOT, WITH_US, wait_until

CGROUPS = Path("/sys/fs/cgroup")
USER = () if os.geteuid() == 0 else ("--user",)
MAP = ("--map-root-user",) if USER else ()
KEEP = ("--preserve-credentials",) if USER else ()


def _are_possible() -> bool:
    command = ["unshare", *USER, *MAP, "--mount", "mount", "-t", "tmpfs", "none", str(CGROUPS)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


ARE_POSSIBLE = _are_possible()
needs_room = pytest.mark.skipif(
    not ARE_POSSIBLE, reason="private mounts are refused here: they need root or user namespaces"
)


class Room:
    """Mounts that only those see who run `within` it; they are gone with its one process.

    Args:
        disks: folders, and the bytes that fit on the disk mounted there.
    """

    def __init__(self, disks: dict[Path, int]) -> None:
        mounts = [f"mount -t tmpfs -o size={size} none '{place}'" for place, size in disks.items()]
        mounts += [f"mount -t tmpfs none {CGROUPS}", "echo ready"]
        for place in disks:
            place.mkdir(parents=True, exist_ok=True)
        self._keeper = subprocess.Popen(
            [*WITH_US, "unshare", *USER, *MAP, "--mount", "sh", "-c", f"{' && '.join(mounts)} && exec sleep infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"ready\n", "no private mounts: unshare --mount was refused"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.kill()
        self._keeper.communicate()

    @property
    def within(self) -> tuple[str, ...]:
        """What a command that shall run in it begins with."""
        return ("nsenter", "--target", str(self._keeper.pid), *USER, *KEEP, "--mount", "env", f"--chdir={ROOT}")

    def path(self, place: Path) -> Path:
        """Return where this process finds a path of the room's."""
        return Path(f"/proc/{self._keeper.pid}/root") / place.relative_to("/")

    @contextlib.contextmanager
    def filled(self, disk: Path) -> Iterator[None]:
        """Keep a disk full for as long as the block lasts."""
        filler = self.path(disk) / "filler"
        fill(filler)
        try:
            yield
        finally:
            filler.unlink()

    def count_oom_kill(self, kills: int) -> None:
        """Let the kernel's counters say so many kills, in this process's groups, of either version."""
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            folder = (CGROUPS / "memory" if controllers else CGROUPS) / path.lstrip("/")
            for name in ("memory.events", "memory.oom_control"):
                file = self.path(folder / name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"oom {kills}\noom_kill {kills}\n")


def fill(filler: Path) -> None:
    """Write a file until nothing fits any more, and nothing that another process gives back meanwhile."""

    def is_full() -> bool:
        try:
            with filler.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 12))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        time.sleep(0.01)
        return os.statvfs(filler.parent).f_bavail == 0

    wait_until(is_full)

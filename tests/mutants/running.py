"""Runs tests in copies of the repository: the copy is imported, never the checkout or the installed package."""

import compileall
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil

from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 240.0
"""Of one run; a defect may well be one that hangs."""
PLUGINS = (
    "-p", "tests.mutants.witness", "-p", "no:cacheprovider",
    "-p", "no:schemathesis", "-p", "no:hypothesispytest", "-p", "no:xdist",
)  # fmt: skip
"""What is not needed here is left out: its imports were half of the work of a run."""
BROKEN = ("ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError", "NameError")
"""A test that fails for one of these has seen a change that does not run, not a defect."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of some tests gave."""

    status: int
    """pytest's exit status; 124 where it took too long."""
    failed: tuple[str, ...]
    """Tests that failed in their own body, for a reason of their own."""
    seconds: float
    output: str

    @property
    def has_passed(self) -> bool:
        """Whether all tests passed."""
        return self.status == 0


def copy_checkout(folder: Path) -> None:
    """Copy what git knows or would add, as it is now, to `folder`."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in sorted(set(filter(None, names))):
        source, place = ROOT / name, folder / name
        if source.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
    compileall.compile_dir(folder, quiet=2)  # once, not in every copy of the copy


def run_copy(sound: Path, folder: Path, tests: Sequence[str], mutant: Mutant | None = None) -> Run:
    """Copy `sound` to `folder`, plant a defect there, run some tests, and remove the copy.

    Raises:
        NotPlantable: the defect's text is not there any more.
    """
    shutil.copytree(sound, folder)
    try:
        if mutant is not None:
            mutant.plant(folder)
        return run_tests(folder, tests)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_tests(folder: Path, tests: Sequence[str]) -> Run:
    """Run some tests of a copy with this interpreter; whatever they leave running is ended."""
    place = folder / ".run"
    place.mkdir()
    report, log = place / "report.xml", place / "log"
    command = [
        sys.executable, "-m", "pytest", "-q", *PLUGINS, "-o", "timeout=120",
        "--basetemp", str(place / "tmp"), "--junitxml", str(report), *tests,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            status = 124
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        finally:
            end_leftovers(folder)
    failed = tuple(failures(report)) if report.is_file() else ()
    return Run(status, failed, time.monotonic() - begun, log.read_text(errors="replace"))


def failures(report: Path) -> Iterable[str]:
    """Yield the tests of a JUnit report whose body failed: neither an error around it nor code that does not run."""
    for case in ET.parse(report).getroot().iter("testcase"):
        for failure in case.findall("failure"):
            kind = (failure.get("message") or "").partition(":")[0].strip()
            if not kind.endswith(BROKEN):
                yield f"{case.get('classname')}::{case.get('name')}"


def end_leftovers(folder: Path) -> None:
    """End the processes that a run left behind: those that import from its copy or work in it."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and _belongs_to(process, str(folder)):
                process.kill()


def _belongs_to(process: psutil.Process, folder: str) -> bool:
    paths = process.environ().get("PYTHONPATH", "").split(os.pathsep)
    return folder in paths or f"{process.cwd()}/".startswith(f"{folder}/")

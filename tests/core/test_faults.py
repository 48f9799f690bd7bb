import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core import faults

PASS_TWICE = "from core.faults import hit; hit('claim.written'); print('once', flush=True); hit('claim.written')"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(faults, "_folder", lambda: tmp_path)
    return tmp_path


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, faults.VARIABLE: str(folder)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_point_that_is_not_armed_lets_pass(folder: Path) -> None:
    faults.hit("claim.written")
    assert list(folder.iterdir()) == []


def test_armed_point_raises_once(folder: Path) -> None:
    (folder / "claim.written").write_text("raise\n")
    with pytest.raises(faults.FaultInjected, match=r"claim\.written"):
        faults.hit("claim.written")
    faults.hit("claim.written")
    assert (folder / "claim.written.fired").read_text() == str(os.getpid())


def test_every_raises_each_time(folder: Path) -> None:
    (folder / "claim.written").write_text("every raise ENOSPC")
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            faults.hit("claim.written")


def test_exit_ends_the_process_at_the_point(tmp_path: Path) -> None:
    (tmp_path / "claim.written").write_text("exit")
    ended = run(tmp_path, PASS_TWICE)
    assert (ended.returncode, ended.stdout) == (faults.EXIT_CODE, "")


def test_exit_code_may_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "claim.written").write_text("exit 0")
    ended = run(tmp_path, PASS_TWICE)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_signal_ends_the_process_once(tmp_path: Path) -> None:
    (tmp_path / "claim.written").write_text("signal SEGV")
    assert run(tmp_path, PASS_TWICE).returncode == -signal.SIGSEGV
    assert run(tmp_path, PASS_TWICE).stdout == "once\n"


def test_waiting_point_goes_on_when_told(folder: Path) -> None:
    (folder / "claim.written").write_text("wait")
    (folder / "claim.written.go").touch()
    faults.hit("claim.written")
    assert (folder / "claim.written.fired").exists()


def test_unknown_fault_is_refused(folder: Path) -> None:
    (folder / "claim.written").write_text("explode")
    with pytest.raises(ValueError, match=r"claim\.written: no fault is called 'explode'"):
        faults.hit("claim.written")


def test_nothing_is_read_without_the_variable() -> None:
    code = "from core import faults; faults.hit('claim.written'); print(faults._folder())"
    environment = {name: value for name, value in os.environ.items() if name != faults.VARIABLE}
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "None\n"

"""Nobody lives on alone: a child looks for its parent once more, and takes along whom it started itself."""

import os
import signal
import subprocess
import sys

import pytest

from tests.core.test_process import first, is_running, make_template
from tests.service import eventually

PROGRAM = "import os; from core.template import die_with; die_with(os.{parent}()); print('lives', flush=True)"


@pytest.mark.parametrize(("parent", "status", "words"), [("getppid", 0, "lives\n"), ("getpid", 1, "")])
def test_child_lives_only_below_the_parent_it_knows(parent: str, status: int, words: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(parent=parent)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (status, words)


def test_processes_of_a_child_end_with_it() -> None:
    with make_template() as template, template.spawn("child_entries.hang", {}) as child:
        grandchild = int(str(first(child)["grandchild"]))
        assert is_running(grandchild)
        os.kill(child.pid, signal.SIGKILL)  # it alone, as the kernel does when memory runs out
        assert child.wait(30.0) is not None
        assert eventually(lambda: not is_running(grandchild))

"""A child that is born while its parent ends has missed the signal: it looks once more, and ends by itself."""

import subprocess
import sys

import pytest

PROGRAM = "import os; from core.template import die_with; die_with(os.{parent}()); print('lives', flush=True)"


@pytest.mark.parametrize(("parent", "status", "words"), [("getppid", 0, "lives\n"), ("getpid", 1, "")])
def test_child_lives_only_below_the_parent_it_knows(parent: str, status: int, words: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(parent=parent)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (status, words)

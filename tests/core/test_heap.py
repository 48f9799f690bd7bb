import ctypes
import subprocess
import sys

import pytest

from tests.service import ROOT

CHILD = """
import ctypes, sys, threading
from core.heap import share_one_arena

if sys.argv[1] == "shared":
    share_one_arena()
all_there = threading.Barrier(4)

def allocate():
    block = ctypes.create_string_buffer(4096)
    all_there.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_stats"), reason="only glibc has arenas")
@pytest.mark.parametrize(("how", "arenas"), [("shared", 1), ("as it comes", 5)])
def test_threads_share_one_arena(how: str, arenas: int) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, how], cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stderr.count("Arena ") == arenas

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


PAGES = """
import ctypes, resource, sys
from core.heap import give_back_blocks, keep_blocks

for call in sys.argv[1:]:
    {"keep": keep_blocks, "give back": give_back_blocks}[call]()
PR_SET_THP_DISABLE = 41
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)  # one fault would fill 2 MiB
malloc = ctypes.CDLL(None).malloc
free = ctypes.CDLL(None).free
malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for size in (1 << 20, 48 << 20) * 3:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = malloc(size)
    ctypes.memset(block, 1, size)
    free(block)
filled = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()
print(filled / size)
"""
needs_glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_stats"), reason="another C library")


@needs_glibc
@pytest.mark.parametrize(
    ("calls", "filled"), [(["keep"], 0), (["keep", "give back"], 1), ([], 1)], ids=["kept", "kept no more", "by itself"]
)
def test_a_block_that_was_freed_needs_no_new_pages(calls: list[str], filled: float) -> None:
    child = subprocess.run([sys.executable, "-c", PAGES, *calls], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(child.stdout) == pytest.approx(filled, abs=0.05)


@needs_glibc
@pytest.mark.parametrize(("how", "arenas"), [("shared", 1), ("as it comes", 5)])
def test_threads_share_one_arena(how: str, arenas: int) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, how], cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stderr.count("Arena ") == arenas

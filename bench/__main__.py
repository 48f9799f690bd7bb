"""Every benchmark, one after the other: half an hour on two cores that do nothing else.

    .venv/bin/python -m bench [name …]     # loop, epochs, start, load, growth, tracking; none: all

Each is a program of its own (`python -m bench.<name> --help`). What a run prints, JSON and a table, is kept in
`.cache/bench/`.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache" / "bench"
LONGEST_SECONDS = 900
RUNS = {
    "start": ("preflight", "jobs", "jobs --engine postgresql", "many --engine postgresql", "api", "sets"),
    "loop": (
        "--rivals plain --threads 2",
        "--rivals plain,keras-jax --threads 1 --jobs mlp,tabular --rounds 3",
        "--rivals classic,lightning,skorch,keras-torch,keras-jax --threads 2 --jobs mlp,tabular --rounds 1",
        "--rivals lightning,skorch,keras-torch,keras-jax --threads 2 --jobs cnn,resnet18 --rounds 1",
        "--rivals plain,keras-jax --threads 2 --jobs cnn --epochs 90 --rounds 3",
        "--rivals plain --threads 2 --jobs tabular --copies 2 --rounds 1",
    ),
    "epochs": ("--jobs short --threads 1 --rounds 3",),
    "load": ("polls --rounds 3", "posts"),
    "tracking": ("",),
    "growth": ("--engine sqlite", "--engine postgresql"),
}
"""Who is far behind, or depends on the neighbors' luck, has fewer rounds than five. By themselves only: `load
queue` and `load memory`, `start many` and `tracking` on SQLite."""


def main() -> int:
    """Run them; the exit status is how many did not end well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*RUNS, []], default=[], metavar="name")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works, not to measure")
    asked = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in asked.names or RUNS:
        for arguments in RUNS[name]:
            failed += not run(name, [*arguments.split(), *(["--quick"] if asked.quick else [])])
    return failed


def run(name: str, arguments: list[str]) -> bool:
    """Run one, keep what it printed; return whether it ended well."""
    begun = time.monotonic()
    print(f"=== {' '.join([name, *arguments])}", flush=True)
    file = FOLDER / f"{'-'.join([name, *(word.strip('-') for word in arguments)])}.md"
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            printed, _ = program.communicate(timeout=LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            program.terminate()
            printed, _ = program.communicate()
    file.write_text(printed)
    print(
        printed,
        f"--- {time.monotonic() - begun:.0f} s, exit {program.returncode}, in {file.relative_to(ROOT)}",
        flush=True,
    )
    return program.returncode == 0


if __name__ == "__main__":
    sys.exit(main())

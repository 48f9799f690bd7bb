"""`python -m tests.mutants [name…] [-j 2]`: plants each defect of the list in a copy and sees whether tests fail.

copy the checkout; all tests that are named in the list have to pass there
for each defect: copy again, plant it, run its tests; at least one has to fail
print who was caught by what; the exit status is 1 where one survived, 2 where the list does not fit the code
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant, NotPlantable
from tests.mutants.running import Run, copy_checkout, run_copy

TESTS_FAILED = 1
"""pytest's own word for it: everything was collected, and something failed."""


def main(arguments: Sequence[str]) -> int:
    """Run the list, or the named part of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Plant defects; tests must see them.")
    parser.add_argument("names", nargs="*", help="defects of the list; none: all of them")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="runs at the same time (2)")
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    unknown = set(options.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        say(f"no such defect: {', '.join(sorted(unknown))}")
        return 2
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="epochd-mutants-") as name:
        folder = Path(name).resolve()
        sound = folder / "sound"
        copy_checkout(sound)
        status = sound_passes(chosen, sound, folder, options.jobs) or hunt(chosen, sound, folder, options.jobs)
    say(f"{len(chosen)} defects, {time.monotonic() - begun:.0f} s")
    return status


def sound_passes(chosen: Sequence[Mutant], sound: Path, folder: Path, jobs: int) -> int:
    """Run all killers on the code as it is; return 2 where one fails."""
    tests = sorted({test for mutant in chosen for test in mutant.killers})
    files = sorted({test.partition("::")[0] for test in tests})
    parts = [[test for test in tests if test.partition("::")[0] in files[part::jobs]] for part in range(jobs)]
    begun = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        calls = [pool.submit(run_copy, sound, folder / f"part-{i}", part) for i, part in enumerate(parts) if part]
        runs = [call.result() for call in calls]
    failed = [run for run in runs if not run.has_passed]
    for run in failed:
        say(f"the sound code fails its own tests (status {run.status}):\n{run.output[-6000:]}")
    if not failed:
        say(f"{len(tests)} tests pass on the sound code, {time.monotonic() - begun:.0f} s")
    return 2 if failed else 0


def hunt(chosen: Sequence[Mutant], sound: Path, folder: Path, jobs: int) -> int:
    """Try every defect and print the table; return the exit status."""
    status = 0
    with ThreadPoolExecutor(jobs) as pool:
        calls = {
            pool.submit(run_copy, sound, folder / mutant.name, mutant.killers, mutant): mutant for mutant in chosen
        }
        for call in as_completed(calls):
            mutant = calls[call]
            try:
                run = call.result()
            except NotPlantable as stale:
                say(f"STALE     {stale}")
                status = 2
                continue
            if is_caught(run):
                say(f"caught    {mutant.name:38} {run.seconds:5.1f} s  {run.failed[0]}")
                continue
            word = "SURVIVED" if run.has_passed else "UNCLEAR"
            say(f"{word:9} {mutant.name:38} {run.seconds:5.1f} s  {mutant.breaks}")
            if not run.has_passed:
                say(f"no test failed for a reason of its own (status {run.status}):\n{run.output[-3000:]}")
            status = status or 1
    return status


def is_caught(run: Run) -> bool:
    """Whether a test failed because of what it tests; a run that did not end is no verdict."""
    return run.status == TESTS_FAILED and bool(run.failed)


def say(line: str) -> None:
    """Print a line at once: a list takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

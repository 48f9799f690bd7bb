"""Runs scripts in forks of one warm process that can import nothing of this project: `python -I runner.py`.

A line of its input is the JSON list `[folder, argument, …]`; the script is `train.py` in that folder, what it says goes
to `output.txt` beside it. A line of its output is the exit status.
"""

import json
import os
import runpy
import sys
import traceback
import warnings

OURS = ("api", "core", "epochd", "migrations", "tests", "worker")


class Refusal:
    """Finds no module of this project, whatever the path."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] in OURS:
            raise ImportError(f"a script must not need {name}")


def run(folder: str, arguments: list[str]) -> None:
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status = 0
    try:
        warnings.simplefilter("error")
        sys.argv = ["train.py", *arguments]
        runpy.run_path("train.py", run_name="__main__")
    except BaseException:  # noqa: BLE001 - told by the status
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    sys.meta_path.insert(0, Refusal())  # type: ignore[arg-type]
    import numpy as np  # noqa: F401
    import sklearn.datasets
    import sklearn.impute
    import sklearn.preprocessing  # noqa: F401
    import torch
    import torchvision  # noqa: F401
    from torchvision.transforms import v2  # noqa: F401

    torch.set_num_threads(1)  # a fork has no other threads
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1).step()  # imports what the first optimizer needs
    for line in sys.stdin:
        folder, *arguments = json.loads(line)
        child = os.fork()
        if not child:
            run(folder, arguments)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

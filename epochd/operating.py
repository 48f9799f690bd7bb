"""What needs the deployment itself, not its HTTP API: programs of the service, started as processes on this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict

from epochd.errors import ClientError

Program = Literal["core.doctor", "core.retention", "core.backup"]
Status = Literal["ok", "warning", "error"]


class Finding(TypedDict):
    """One thing that the doctor looked at."""

    check: str
    status: Status
    found: str
    advice: str | None
    numbers: dict[str, Any]


class Refused(ClientError):
    """The program did not do what was asked; it has said why."""


def report_of(program: Program, arguments: Sequence[str], data_dir: Path | None) -> dict[str, Any]:
    """Run a program that prints one JSON object.

    Raises:
        Refused: it ended without one.
    """
    with _started(program, arguments, data_dir) as process:
        said, complaint = process.communicate()
    if not said:
        raise Refused(complaint.strip() or f"{program} ended with exit status {process.returncode}")
    return json.loads(said)


def findings_of(arguments: Sequence[str], data_dir: Path | None) -> Iterator[Finding]:
    """Run the doctor; yield each finding as it comes.

    Raises:
        Refused: it ended without having looked at everything.
    """
    with _started("core.doctor", arguments, data_dir, takes_stderr=False) as process:
        assert process.stdout is not None  # noqa: S101 - for ourselves
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode not in (0, 1):
        raise Refused(f"the doctor ended with exit status {process.returncode}")


@contextmanager
def _started(
    program: Program, arguments: Sequence[str], data_dir: Path | None, *, takes_stderr: bool = True
) -> Generator[subprocess.Popen[str]]:
    own = {} if data_dir is None else {"EPOCHD_DATA_DIR": str(data_dir)}
    with subprocess.Popen(
        [sys.executable, "-m", program, *arguments],
        env=os.environ | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if takes_stderr else None,
        text=True,
    ) as process:
        yield process

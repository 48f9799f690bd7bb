"""A service that lives for one job, in a temporary folder on a free port of loopback."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 120.0
"""For the service to answer: a cold disk reads much at the first start."""
STOP_SECONDS = 60.0
POLL_SECONDS = 0.2
READY = "epochd is ready at "
LOG = "up.log"
LOG_CHARACTERS = 4000


def run_demo(file: Path, say: Callable[[str], None]) -> int:
    """Start a service, submit the spec with `--watch`, stop the service.

    Returns:
        The exit status of `epochd submit --watch`, or 1 when the service did not start.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
    with tempfile.TemporaryDirectory(prefix="epochd-demo-") as folder:
        say("starting a service of its own for this demo")
        with _service(Path(folder), environment) as url:
            status = 1
            if url is not None:
                say(f"$ epochd submit {file} --watch --url {url}")
                command = [sys.executable, "-m", "epochd", "submit", str(file), "--watch", "--url", url]
                status = subprocess.run(command, env=environment, check=False).returncode
            if status:
                say(f"the service said:\n{(Path(folder) / LOG).read_text(errors='replace')[-LOG_CHARACTERS:]}")
            return status


@contextmanager
def _service(folder: Path, environment: dict[str, str]) -> Generator[str | None]:
    """Run `epochd up` and give its address, or none when it ended or did not answer in time."""
    log = folder / LOG
    command = [sys.executable, "-m", "epochd", "up", "--port", "0", "--data-dir", str(folder / "data")]
    with log.open("wb") as output:
        up = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield _address(up, log)
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()


def _address(up: "subprocess.Popen[bytes]", log: Path) -> str | None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and up.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(READY):
                return line.removeprefix(READY).split()[0]
        time.sleep(POLL_SECONDS)
    return None

"""`epochd up`: one API and some workers as child processes, kept alive and stopped together.

The children are `python -m api` and `python -m worker` with this process's `EPOCHD_*` environment. One loop looks
after them: what dies is started again, after a pause that doubles while it keeps dying. SIGINT, SIGTERM and SIGHUP ask
them to drain; what is left after the grace is killed. Should this process be killed, the kernel sends each child
SIGTERM, which is a drain too.
"""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from epochd.child import Child, cause
from epochd.client import Client
from epochd.errors import ClientError

LOOK_SECONDS = 0.1
ASK_SECONDS = 0.3
"""Between two questions whether the service is there."""
SETTINGS_STATUS = 2
"""The API's exit status where its settings forbid to start."""
FUTILE_STARTS = 4
"""An API that dies so often before it ever answered will not mend itself."""
GRACE_SECONDS = 20.0
"""Of a trainer, where EPOCHD_STOP_GRACE_SECONDS says nothing else."""
WRITING_SECONDS = 10.0
"""After that grace, to write down how it ended; then what is left is killed."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


class CannotStart(ClientError):
    """Something has to change before this service can start."""


class Service:
    """The processes of one `epochd up`.

    Args:
        data_dir: the data folder.
        host: the address to listen on.
        port: the port to listen on; 0: any free one.
        workers: how many worker processes.
        key: the API key, where the service has keys.
        say: takes one line for the person who watches.
    """

    def __init__(self, data_dir: Path, host: str, port: int, *, workers: int, key: str | None, say: Say) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self.host = host
        self.port = port or _free_port(host)
        self.workers = workers
        self.key = key
        self._say = say
        self._children = list(self._plan())
        self._is_stopping = self._is_ready = self._has_workers = False
        self._ask_at = 0.0

    @property
    def url(self) -> str:
        """Where this machine reaches the service."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def run(self) -> None:
        """Serve until a signal asks for the end.

        Raises:
            CannotStart: another one serves this data folder, the port is taken, or the API keeps failing at start.
        """
        with lock(self.data_dir, self.url), Client(self.url, self.key, retry_seconds=0) as client:
            _refuse_taken_port(self.host, self.port)
            previous = {number: signal.signal(number, self._stop) for number in STOP_SIGNALS}
            try:
                while not self._is_stopping:
                    self._look_after(time.monotonic())
                    self._announce(client, time.monotonic())
                    time.sleep(LOOK_SECONDS)
            finally:
                self._drain()
                for number, handler in previous.items():
                    signal.signal(number, handler)

    def _plan(self) -> Iterator[Child]:
        own = {"EPOCHD_DATA_DIR": str(self.data_dir), "EPOCHD_HOST": self.host, "EPOCHD_PORT": str(self.port)}
        environment = os.environ | own | ({"EPOCHD_API_KEY": self.key} if self.key else {})
        yield Child("api", [sys.executable, "-m", "api"], environment)
        for number in range(self.workers):
            yield Child(f"worker {number + 1}", [sys.executable, "-m", "worker"], environment)

    def _look_after(self, now: float) -> None:
        for child in self._children:
            if (status := child.look(now)) is not None:
                self._refuse_futile(child, status)
                self._say(f"{child.name} ended ({cause(status)}); starting it again in {child.start_at - now:.1f} s")
            if child.process is None and now >= child.start_at and self._may_start(child):
                child.start(now)

    def _may_start(self, child: Child) -> bool:
        """The API goes first: it makes the database, and says what is wrong with the settings."""
        return child.name == "api" or self._is_ready

    def _refuse_futile(self, child: Child, status: int) -> None:
        if child.name != "api" or self._is_ready:
            return
        if status == SETTINGS_STATUS:
            raise CannotStart("the API does not start with these settings; it says above what to change")
        if child.deaths >= FUTILE_STARTS:
            raise CannotStart(f"the API ended {child.deaths} times before it answered; its own words stand above")

    def _announce(self, client: Client, now: float) -> None:
        if self._has_workers or now < self._ask_at:
            return
        self._ask_at = now + ASK_SECONDS
        if not self._is_ready and client.is_ready():
            self._is_ready = True
            self._say(f"epochd is ready at {self.url} (data in {self.data_dir}; Ctrl-C stops it)")
        elif self._is_ready and self._are_workers_there(client):
            self._has_workers = True
            self._say(f"{self.workers} worker{'' if self.workers == 1 else 's'} ready")

    def _are_workers_there(self, client: Client) -> bool:
        pids = {child.process.pid for child in self._children if child.process}
        try:
            return sum(worker["pid"] in pids for worker in client.workers()) == self.workers
        except ClientError:  # not there yet, or a service whose keys are not ours to know
            return False

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self._is_stopping:  # asked twice: at once
            for child in self._children:
                child.send(signal.SIGKILL)
            return
        self._is_stopping = True
        self._say(
            f"stopping ({signal.Signals(number).name}): running jobs are written down and go on at the next start"
        )

    def _drain(self) -> None:
        self._is_stopping = True
        for child in self._children:
            child.send(signal.SIGTERM)
        seconds = drain_seconds(os.environ)
        ends = time.monotonic() + seconds
        for child in self._children:
            if not child.end(max(0.0, ends - time.monotonic())):
                self._say(f"{child.name} did not end within {seconds:.0f} s and was killed")


def drain_seconds(environment: Mapping[str, str]) -> float:
    """Return the time from SIGTERM to SIGKILL: the grace that trainers get, and some to write it down."""
    try:
        grace = float(environment["EPOCHD_STOP_GRACE_SECONDS"])
    except (KeyError, ValueError):  # not set; or wrong, and then no worker has started
        grace = GRACE_SECONDS
    return grace + WRITING_SECONDS


@contextlib.contextmanager
def lock(data_dir: Path, url: str) -> Generator[None]:
    """Hold the data folder for one service; the lock ends with the process, however it ends.

    Raises:
        CannotStart: another process holds it, or the folder cannot be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / "up.lock").open("a+")
    except OSError as failure:
        raise CannotStart(f"cannot write to the data folder {data_dir}: {failure.strerror}") from failure
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CannotStart(
                f"{data_dir} is served already ({file.read().strip()}): use that one, or give another --data-dir"
            ) from None
        file.truncate(0)
        file.write(f"pid {os.getpid()} at {url}\n")
        file.flush()
        yield


def _addresses(host: str, port: int) -> Sequence[tuple[socket.AddressFamily, tuple[object, ...]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as failure:
        raise CannotStart(f"--host {host} is no address of this machine: {failure.strerror}") from failure
    return [(family, address) for family, _, _, _, address in found]


def _free_port(host: str) -> int:
    family, address = _addresses(host, 0)[0]
    with socket.socket(family) as probe:
        probe.bind(address)
        return int(probe.getsockname()[1])


def _refuse_taken_port(host: str, port: int) -> None:
    family, address = _addresses(host, port)[0]
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as failure:
            if failure.errno == errno.EADDRINUSE:
                raise CannotStart(f"port {port} is taken: give another --port (0 takes any free one)") from failure
            raise CannotStart(f"cannot listen on {host}:{port}: {failure.strerror}") from failure

"""Private PostgreSQL and Redis servers for tests: own ports, own folders, nothing left behind.

Every server belongs to the processes that hold a shared lock on its `users` file. A watcher waits for that lock: the
kernel gives it away when the last holder ends, however it ends, and the watcher then kills the server and deletes its
folder. An orderly end does the same without the watcher.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import psutil
import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_SECONDS = 60.0
STOP_SECONDS = 20.0
WATCH = """
flock -x "$1/users" true
[ -f "$1/pid" ] && kill -KILL "$(cat "$1/pid")" 2>/dev/null
for _ in 1 2 3 4 5; do rm -rf "$1" && exit; sleep 0.2; done
"""


S = TypeVar("S", bound="Server")


class ServerFailed(Exception):
    """A server could not be started; its log says why."""


class Server(ABC):
    """A server process of this test run, with a folder of its own. The port stays the same over restarts."""

    name: ClassVar[str]
    package: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    @classmethod
    def new(cls) -> Self:
        """Make the folder and start a server in it."""
        folder = Path(tempfile.mkdtemp(prefix=f"epochd-test-{cls.name}-"))
        folder.chmod(0o755)  # the server may run as another user
        server = cls(folder, _free_port())
        server._users = _lock(folder / "users", fcntl.LOCK_SH)
        _spawn(["sh", "-c", WATCH, "watch", str(folder)], log=Path(os.devnull))
        try:
            server.prepare()
            server.start()
        except BaseException:
            server.close()
            raise
        return server

    @property
    @abstractmethod
    def url(self) -> str:
        """How clients reach it."""

    @abstractmethod
    def prepare(self) -> None:
        """Do once what has to be done before the first start."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return what to execute."""

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether a client gets an answer."""

    def start(self) -> None:
        """Start the process and wait until it answers."""
        pid = _spawn(self.command(), log=self.folder / "log")
        (self.folder / "pid").write_text(str(pid))
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if not _is_alive(pid) or time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} did not start:\n{(self.folder / 'log').read_text()[-4000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order; what it was told is kept."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it without warning, all its processes."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze all its processes: connections stay open, nothing answers."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a connection's process may just have ended
                process.suspend()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    @property
    def pid(self) -> int | None:
        """The main process, None while it is stopped."""
        with contextlib.suppress(FileNotFoundError):
            return int((self.folder / "pid").read_text())
        return None

    def processes(self) -> list[psutil.Process]:
        """Return the main process and its children."""
        if self.pid is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self.pid)
            return [main, *main.children(recursive=True)]
        return []

    def close(self) -> None:
        """Stop it for good and delete its folder."""
        self.resume()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._users)

    def attach(self) -> None:
        """Become one more holder of a server that another process started."""
        self._users = _lock(self.folder / "users", fcntl.LOCK_SH)

    def leave(self) -> None:
        """Give it up; the last holder stops it."""
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._users)
        else:
            self.close()

    def _end(self, how: signal.Signals) -> None:
        processes = self.processes()
        for process in processes if how == signal.SIGKILL else processes[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(how)
        deadline = time.monotonic() + STOP_SECONDS
        while any(_is_alive(process.pid) for process in processes):
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} does not end on {how.name}")
            time.sleep(0.01)
        (self.folder / "pid").unlink(missing_ok=True)


class Postgres(Server):
    """PostgreSQL without fsync: a killed process loses nothing by that, only a killed machine would."""

    name, package, stop_signal = "postgresql", "postgresql", signal.SIGINT

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return SQLAlchemy's URL of one of its databases."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
        command = [*_as_postgres(), _program("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        if made.returncode != 0:
            raise ServerFailed(made.stderr)

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": self.port,
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": 200,
            "autovacuum": "off",
        }
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        return [*_as_postgres(), _program("postgres"), "-D", str(self.folder / "data"), *words]

    def answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            self.execute("SELECT 1")
            return True
        return False

    def execute(self, statement: str) -> None:
        """Execute a statement outside of any transaction."""
        url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres?connect_timeout=5"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())


class Redis(Server):
    """Redis that keeps nothing on disk."""

    name, package, stop_signal = "redis", "redis-server", signal.SIGTERM
    databases: ClassVar[int] = 256

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Return the URL of one of its databases."""
        return f"redis://127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Redis needs nothing."""

    def command(self) -> list[str]:
        options = {
            "--port": self.port,
            "--bind": "127.0.0.1",
            "--dir": self.folder,
            "--databases": self.databases,
            "--save": "",
            "--appendonly": "no",
        }
        return [_program("redis-server"), *(str(word) for pair in options.items() for word in pair)]

    def answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self, database: int = 0) -> redis.Redis:
        """Open a client that waits at most two seconds."""
        once = Retry(NoBackoff(), retries=0)
        return redis.Redis(
            host="127.0.0.1", port=self.port, db=database, socket_timeout=2, socket_connect_timeout=2, retry=once
        )


@contextlib.contextmanager
def shared(kind: type[S], root: Path) -> Iterator[S]:
    """Use the one server of that kind of this test run: the first process starts it, the last one stops it."""
    note = root / f"{kind.name}.json"
    with held(root / f"{kind.name}.lock"):
        server = _noted(kind, note)
        if server is None:
            server = kind.new()
            note.write_text(json.dumps({"folder": str(server.folder), "port": server.port}))
    try:
        yield server
    finally:
        with held(root / f"{kind.name}.lock"):
            server.leave()


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock that other processes respect."""
    handle = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(handle)


def _noted(kind: type[S], note: Path) -> S | None:
    """Attach to the server that is written down, unless it has ended meanwhile."""
    if not note.exists():
        return None
    written = json.loads(note.read_text())
    server = kind(Path(written["folder"]), written["port"])
    if not server.folder.is_dir() or not server.answers():
        return None
    server.attach()
    return server


def _lock(path: Path, how: int) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, how)
    return handle


def _spawn(command: Sequence[str], *, log: Path) -> int:
    """Start a process that is not waited for; its end is seen by `_is_alive`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsid=True)


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_postgres() -> list[str]:
    """Return the words that change the user, since PostgreSQL refuses root. The process id stays the same."""
    if os.geteuid() != 0:
        return []
    return ["env", "--chdir=/", "setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


def _program(name: str) -> str:
    """Find a server's program in Debian's places, installing it where we may."""
    found = _find(name)
    if found is not None:
        return found
    packages = f"{Postgres.package} {Redis.package}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ServerFailed(f"{name} is not installed. Tests need real servers: sudo apt-get install {packages}")
    with held(Path(tempfile.gettempdir()) / "epochd-test-apt.lock"):
        if _find(name) is None:
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # start no service
            for words in (["update"], ["install", "-y", "--no-install-recommends", *packages.split()]):
                subprocess.run(["apt-get", "-qq", *words], env=quiet, check=True)
    found = _find(name)
    if found is None:
        raise ServerFailed(f"apt-get install {packages} brought no {name}")
    return found


def _find(name: str) -> str | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -int(folder.parent.name))
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", ""), "/usr/sbin"])
    return shutil.which(name, path=path)

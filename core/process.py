"""Isolated children: forked from a warm template, with limits, two pipes and a death pact (Linux only).

    template = Template(["core.train.preload"])
    child = template.spawn("core.train.run.main", order, limits=Limits(), log=path)
    while (message := child.receive(timeout=1.0)) or not child.is_silent: ...
    child.wait()

A child dies when its template dies, and the template dies when its owner (this process) dies. The template's
environment has named variables only, so that nothing secret can be read from a child's `/proc/<pid>/environ`.
`core.template` is the other side.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from core import faults
from core.capped_log import CappedLog
from core.channel import Channel, encode
from core.child import Child, Exit, Limits, describe
from core.errors import ChildFailed
from core.template import MAX_CONTROL_BYTES

__all__ = ["Channel", "Child", "Exit", "Limits", "Template", "call", "describe"]

NAMED_VARIABLES = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH",
    "OMP_NUM_THREADS", "OMP_PROC_BIND", "MKL_NUM_THREADS", "MKL_CBWR", "CUDA_HOME", "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER", "CUBLAS_WORKSPACE_CONFIG", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR", "XDG_CACHE_HOME", "CC", "CXX", faults.VARIABLE,
)  # fmt: skip
"""What a template takes over from its owner's environment."""
FORCED_VARIABLES = {
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads made small loops 5 to 200 times slower under load, so libgomp's
    "GOMP_SPINCOUNT": "100000",  # spin for 5 ms at most, and only while `core.train.spinning` lets them
    "OPENBLAS_NUM_THREADS": "1",  # numpy's BLAS would start a pool at import; a template has one thread
    "PYTHONUNBUFFERED": "1",
}
START_SECONDS = 120.0
"""A template imports torch for 15 s on a loaded machine."""
FORK_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 30.0
ORDINARY = Limits()
KILLED = Exit(code=None, signal=signal.SIGKILL, max_rss_bytes=None)


class Template:
    """The warm process that children are forked from; started at the first need, again after it died.

    Every method may be called by any thread.

    Args:
        preload: modules that it imports before the first fork.
        env: variables on top of the named ones; nothing secret.
        log: file for its own errors, and for the output of children without a log; none: this process's stderr.
        spare: dotted name of a function that yields after each step of what a child does which is forked before its
            request comes (`core.spare.WarmUp`); none: no child is.
    """

    def __init__(
        self,
        preload: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        spare: str | None = None,
    ) -> None:
        self._preload = tuple(preload)
        self._spare = () if spare is None else ("--spare", spare)
        self._env = dict(env or {})
        self._log = log
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._is_ready = False
        self._is_closed = False
        self._deaths = 0
        """In a row, without a child in between."""
        self._not_before = 0.0
        self._numbers = itertools.count(1)
        self._answers: dict[str, dict[str, Any]] = {}
        self._children: dict[str, Child] = {}
        self._early: dict[str, Exit] = {}
        """Ends of children that their owner has not heard the start of yet."""

    @property
    def ready(self) -> bool:
        """Whether everything is imported: a child starts within milliseconds."""
        return self._is_ready

    @property
    def pid(self) -> int | None:
        """The template's process; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Start the process where it does not run, without waiting for it.

        Raises:
            ChildFailed: it died a moment ago; the pause before the next try grows to 30 s.
        """
        with self._changed:
            if self._is_closed:
                raise ChildFailed("the template is closed: the service is stopping")
            if self._process is not None:
                return
            pause = self._not_before - time.monotonic()
            if pause > 0:
                raise ChildFailed(f"the template process died {self._deaths} times; next start in {pause:.0f} s")
            self._launch()

    def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Start the process where needed and wait until everything is imported.

        Raises:
            ChildFailed: it died, or was not ready in time.
        """
        self.start()
        with self._changed:
            process = self._process
            self._changed.wait_for(lambda: self._is_ready or self._process is not process, timeout)
            if self._process is not process:
                raise ChildFailed("the template process died while it imported; its log says why")
            if not self._is_ready:
                raise ChildFailed(f"the template process is still importing after {timeout:.0f} s")

    def spawn(
        self,
        entry: str,
        request: dict[str, Any] | BaseModel,
        *,
        limits: Limits = ORDINARY,
        log: Path | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = START_SECONDS,
    ) -> Child:
        """Fork a child that runs `entry(channel, request)` and ends.

        Args:
            entry: dotted name of a function.
            request: its second argument, as JSON.
            limits: what the child may use.
            log: file that its stdout and stderr are added to.
            cwd: the child's working folder.
            env: variables set on top of the template's.
            timeout: seconds to wait for a template that is still importing.

        Raises:
            ChildFailed: there is no template, or it cannot fork.
        """
        self.wait_ready(timeout)
        number = str(next(self._numbers))
        head = {"id": number, "entry": entry, "limits": asdict(limits), "env": dict(env or {}),
                "cwd": None if cwd is None else str(cwd)}  # fmt: skip
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            order_fd = os.memfd_create("order")
            theirs.callback(os.close, order_fd)
            _write_all(order_fd, encode(request))
            (control_read, control_write), (messages_read, messages_write) = os.pipe(), os.pipe()
            os.set_blocking(control_write, False)
            for fd in (control_read, messages_write):
                theirs.callback(os.close, fd)
            for fd in (control_write, messages_read):
                ours.callback(os.close, fd)
            output = None if log is None else CappedLog(log, limits.log_bytes)
            fds = [order_fd, control_read, messages_write]
            if output is not None:
                theirs.callback(os.close, output.write_fd)
                fds.append(output.write_fd)
            process, pid = self._ask(number, head, fds)
            child = Child(pid, control_write, messages_read, output)
            ours.pop_all()
        self._adopt(number, process, child)
        return child

    def close(self) -> None:
        """End the template and with it every child."""
        with self._changed:
            self._is_closed = True
            process, control = self._process, self._control
        if control is not None:
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
        if process is not None:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:  # it is still importing
                process.kill()
                process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _launch(self) -> None:
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its, contextlib.ExitStack() as files:
            if self._log is not None:
                self._log.parent.mkdir(parents=True, exist_ok=True)
            output = None if self._log is None else files.enter_context(self._log.open("ab"))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "core.template", "--control", str(its.fileno()), *self._spare, *self._preload],
                env=self._environment(),
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output or sys.__stderr__,
                stderr=output,
                start_new_session=True,  # a Ctrl-C in the owner's terminal is the owner's to handle
            )
        self._control = mine
        self._is_ready = False
        threading.Thread(
            target=self._listen, args=(self._process, mine), name=f"template {self._process.pid}", daemon=True
        ).start()

    def _environment(self) -> dict[str, str]:
        named = {name: os.environ[name] for name in NAMED_VARIABLES if name in os.environ}
        env = {**named, **FORCED_VARIABLES, **self._env}
        here = str(Path(__file__).resolve().parent.parent)
        env["PYTHONPATH"] = os.pathsep.join(part for part in (here, env.get("PYTHONPATH")) if part)
        return env

    def _ask(self, number: str, head: dict[str, Any], fds: list[int]) -> tuple[subprocess.Popen[bytes] | None, int]:
        """Send one request; return the template that forked the child, and the child's pid."""
        data = json.dumps(head).encode()
        if len(data) > MAX_CONTROL_BYTES:
            raise ChildFailed(f"the request's head has {len(data)} bytes, more than {MAX_CONTROL_BYTES}")
        with self._changed:
            process, control = self._process, self._control
        try:
            if control is None:
                raise ChildFailed("the template process died a moment ago")
            with self._sending:
                socket.send_fds(control, [data], fds)
        except OSError as error:
            raise ChildFailed(f"the template process is gone: {error}") from error
        with self._changed:
            self._changed.wait_for(lambda: number in self._answers or self._process is not process, FORK_SECONDS)
            answer = self._answers.pop(number, None)
        if answer is None:
            raise ChildFailed("the template process did not fork a child")
        if answer["event"] == "refused":
            raise ChildFailed(f"no new process: {answer['reason']}")
        return process, int(answer["pid"])

    def _adopt(self, number: str, process: subprocess.Popen[bytes] | None, child: Child) -> None:
        """Count the child as running, or as ended where the news of its end came first."""
        with self._changed:
            self._deaths = 0
            early = self._early.pop(number, None)
            if early is None and self._process is not process:
                early = KILLED
            if early is None:
                self._children[number] = child
                return
        child.end(early)

    def _listen(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        """Take the template's events until it is gone (a thread of its own)."""
        with contextlib.suppress(OSError):
            while data := control.recv(MAX_CONTROL_BYTES):
                self._take(json.loads(data))
        self._bury(process)
        control.close()

    def _take(self, event: dict[str, Any]) -> None:
        with self._changed:
            match event["event"]:
                case "ready":
                    self._is_ready = True
                case "exited":
                    how = Exit(event["code"], event["signal"], event["max_rss_bytes"])
                    child = self._children.pop(event["id"], None)
                    if child is None:
                        self._early[event["id"]] = how
                    else:
                        child.end(how)
                case _:
                    self._answers[event["id"]] = event
            self._changed.notify_all()

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        """Count the children of a dead template as killed, for the kernel has killed them."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        process.kill()
        process.wait()
        with self._changed:
            children = list(self._children.values())
            self._children.clear()
            self._answers.clear()
            self._early.clear()
            self._process = self._control = None
            self._is_ready = False
            self._not_before = time.monotonic() + min(LONGEST_PAUSE_SECONDS, 0.25 * 2**self._deaths)
            self._deaths += 1
            self._changed.notify_all()
        for child in children:
            child.kill()
            child.end(KILLED)


def call(
    template: Template,
    entry: str,
    request: dict[str, Any] | BaseModel,
    *,
    seconds: float,
    limits: Limits = ORDINARY,
) -> dict[str, Any]:
    """Run `entry` in a child and return the one message that it answers with.

    Raises:
        ChildFailed: it died, broke a limit, or did not answer within `seconds`.
    """
    deadline = time.monotonic() + seconds
    with template.spawn(entry, request, limits=limits, timeout=seconds) as child:
        answer = child.receive(max(0.0, deadline - time.monotonic()))
        if answer is not None:
            return answer
        if not child.is_silent:
            raise ChildFailed(f"{entry} did not answer within {seconds:g} s")
        how = child.wait(1.0)
        raise ChildFailed(f"{entry} ended without an answer ({describe(how)})")


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]

"""The template process: imports once, then forks a child per request (`python -m core.template`, Linux only).

    import the preload modules; never run an operator, start a thread or touch a device
    until the control socket ends:
        a request came     → fork; the child makes its own session, takes its limits, runs `entry(channel, request)`
        a child has ended  → kill what is left of its group, reap it, report how it ended and its largest size
        nothing to do      → where asked to, fork a spare (`core.spare`), which takes the next request instead

It dies at the end-of-file of its control socket, which its owner holds, and its children die with it
(`PR_SET_PDEATHSIG`). It must stay single-threaded: a lock held by another thread at the fork would never be released
in the child, and an OpenMP pool does not survive a fork at all.

`core.process` holds the owner's side.
"""

import argparse
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from core import spare
from core.channel import Channel

MAX_CONTROL_BYTES = 1 << 16
PR_SET_PDEATHSIG = 1
NEXT_SPARE_SECONDS = 1.0
"""After a request, unless its child ends earlier: the child that has just begun shall have the processors."""
LONGEST_PAUSE_SECONDS = 30.0
"""After spares that died before their request."""
_libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: a child looks nothing up


class Server:
    """Forks a child per request and reports its end.

    Args:
        control: the socket to the owner.
        warm_up: what a child does that is forked before its request comes; none: no child is.
    """

    def __init__(self, control: socket.socket, warm_up: spare.WarmUp | None = None) -> None:
        self._control = control
        self._warm_up = warm_up
        self._pid = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, tuple[str | None, int]] = {}
        """By pidfd: the owner's name of the child, None of a spare, and its pid."""
        self._spare: spare.Spare | None = None
        self._next_spare_at = time.monotonic()
        self._lost_spares = 0
        """In a row, before they took a request."""

    def ready(self) -> None:
        """Tell the owner that everything is imported."""
        self._report({"event": "ready"})

    def serve(self) -> None:
        """Answer requests until the owner is gone."""
        self._selector.register(self._control, selectors.EVENT_READ)
        while True:
            events = self._selector.select(self._seconds_to_spare())
            if not events:
                self._prepare_spare()
            for key, _ in events:
                if key.fileobj is not self._control:
                    self._reap(key.fd)
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, MAX_CONTROL_BYTES, 8)
        if not data:
            return False
        request: dict[str, Any] = json.loads(data)
        try:
            pid = self._hand_over(data, fds, request["id"])
            if pid is None:
                pid = self._fork(request["id"], lambda: run(request, fds))[0]
        except OSError as error:
            self._report({"event": "refused", "id": request["id"], "reason": str(error)})
        else:
            self._report({"event": "spawned", "id": request["id"], "pid": pid})
        finally:
            for fd in fds:
                os.close(fd)
        self._next_spare_at = max(self._next_spare_at, time.monotonic() + NEXT_SPARE_SECONDS)
        return True

    def _hand_over(self, data: bytes, fds: list[int], child_id: str) -> int | None:
        """Let the spare be the child; return its pid, None where there is none that takes the request."""
        chosen, self._spare = self._spare, None
        if chosen is None:
            return None
        with contextlib.closing(chosen):
            if not chosen.hand_over(data, fds):
                return None
        self._lost_spares = 0
        self._children[chosen.pidfd] = child_id, chosen.pid
        return chosen.pid

    def _fork(self, child_id: str | None, live: Callable[[], int]) -> tuple[int, int]:
        """Fork a child that lives its life and ends; return its pid and pidfd."""
        pid = os.fork()
        if pid == 0:
            self._become_child(live)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = child_id, pid
        self._selector.register(pidfd, selectors.EVENT_READ)
        return pid, pidfd

    def _become_child(self, live: Callable[[], int]) -> NoReturn:
        """Leave everything of the template behind, then live and never return."""
        status = 1
        try:
            template_pid = self._pid
            os.setsid()
            die_with(template_pid)
            self._selector.close()
            self._control.close()
            for pidfd in self._children:
                os.close(pidfd)
            status = live()
        except BaseException:  # noqa: BLE001 - the boundary of the process
            traceback.print_exc()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)  # no exit handler of the template runs here

    def _seconds_to_spare(self) -> float | None:
        """Return how long to wait for something to do before a spare is forked; None: for ever."""
        if self._warm_up is None or self._spare is not None:
            return None
        return max(0.0, self._next_spare_at - time.monotonic())

    def _prepare_spare(self) -> None:
        """Fork a child that waits for a request."""
        if self._warm_up is None:
            return
        warm_up = self._warm_up
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        name = spare.rename(spare.NAME)  # before the fork: it is never taken for a child that somebody asked for

        def live() -> int:
            mine.close()
            private = private_bytes()
            came = spare.wait(its, warm_up, name)
            if came is None:
                return 0
            data, fds = came
            return run(json.loads(data), fds, private)

        try:
            with its:
                pid, pidfd = self._fork(None, live)
        except OSError:
            mine.close()
            self._put_off_spare()
        else:
            self._spare = spare.Spare(pid, pidfd, mine)
        finally:
            spare.rename(name)

    def _put_off_spare(self) -> None:
        """Let a pause grow after spares that could not be forked, or died of something that may last."""
        pause = min(LONGEST_PAUSE_SECONDS, NEXT_SPARE_SECONDS * 2**self._lost_spares)
        self._lost_spares += 1
        self._next_spare_at = time.monotonic() + pause

    def _reap(self, pidfd: int) -> None:
        child_id, pid = self._children.pop(pidfd)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # its own children; the zombie still holds the number
        _, status, usage = os.wait4(pid, 0)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        if self._spare is not None and self._spare.pidfd == pidfd:
            self._spare.close()
            self._spare = None
        if child_id is None:
            self._put_off_spare()
            return
        if self._lost_spares == 0:
            self._next_spare_at = time.monotonic()
        code = os.waitstatus_to_exitcode(status)
        self._report(
            {
                "event": "exited",
                "id": child_id,
                "code": code if code >= 0 else None,
                "signal": -code if code < 0 else None,
                "max_rss_bytes": usage.ru_maxrss * 1024,
            }
        )

    def _report(self, event: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the end is seen by the next read
            self._control.send(json.dumps(event).encode())


def die_with(parent: int) -> None:
    """Ask for SIGKILL when the parent ends; exit where it has ended already."""
    if _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)


def run(request: dict[str, Any], fds: list[int], private: int | None = None) -> int:
    """Set the child up as its request says, run the entry point, return the exit status.

    Args:
        request: the owner's.
        fds: the order, the two pipes, and the output where it has one of its own.
        private: what the child had in `private_bytes` right after the fork; none: what it has now.
    """
    order_fd, control_fd, messages_fd, *output_fd = fds
    _take_output(output_fd)
    _reset_signals()
    os.environ.update(request["env"])
    if request["cwd"] is not None:
        os.chdir(request["cwd"])
    _take_limits(request["limits"], private_bytes() if private is None else private)
    with os.fdopen(order_fd, "rb") as order:
        order.seek(0)
        body: dict[str, Any] = json.load(order)
    entry = _named(request["entry"])
    try:
        entry(Channel(control_fd, messages_fd), body)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _named(name: str) -> Callable[..., Any]:
    """Return a function by its dotted name."""
    module, _, function = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _take_output(output_fd: list[int]) -> None:
    """Let file descriptors 0, 1 and 2 be nothing and the log; without a log the template's own stay."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for fd in output_fd:
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)


def _reset_signals() -> None:
    """Undo the template's own choices; Python's (SIGPIPE, SIGXFSZ ignored) stay: they become exceptions."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def private_bytes() -> int:
    """Return what RLIMIT_DATA counts of this process."""
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - nothing imported late in a child
        return int(statm.read().split()[5]) * resource.getpagesize()


def _take_limits(limits: dict[str, Any], private: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(resource.RLIMIT_NOFILE, limits["open_files"])
    _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    if limits["memory_bytes"] is not None:
        _limit(resource.RLIMIT_DATA, private + limits["memory_bytes"])  # RLIMIT_AS would count mapped files too


def _limit(kind: int, value: int | None) -> None:
    """Lower a limit, soft and hard; one that is lower already stays."""
    if value is None:
        return
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def main() -> int:
    """Import what is asked for, say so, serve."""
    parser = argparse.ArgumentParser(prog="python -m core.template", description="Started by core.process.Template.")
    parser.add_argument("--control", type=int, required=True, help="file descriptor of the control socket")
    parser.add_argument("--spare", help="dotted name of the warm-up of a child that is forked before its request comes")
    parser.add_argument("modules", nargs="*", help="imported before the first fork")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its life is tied to the socket alone
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = socket.socket(fileno=arguments.control)
    gc.disable()  # what is imported stays: looking through it again and again took a fifth of the time
    for module in arguments.modules:
        importlib.import_module(module)
    warm_up = None if arguments.spare is None else _named(arguments.spare)
    gc.freeze()  # a collection in a child does not touch, and so does not copy, what the template holds
    gc.enable()
    server = Server(control, warm_up)
    server.ready()
    server.serve()
    return 0


if __name__ == "__main__":
    os._exit(main())

"""A link to a server on this machine that can be cut without a word: nothing is forwarded, nothing is closed."""

import contextlib
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import Self

CHUNK_BYTES = 1 << 16
PAUSE_SECONDS = 0.05


class Link:
    """Forwards every connection to a port of 127.0.0.1, from `port`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._is_over = threading.Event()
        self._is_cut = threading.Event()
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._listener.close()
        self._close_all()

    def cut(self) -> None:
        """Forward nothing more; both ends believe that they are connected, and new ones that they will be."""
        self._is_cut.set()

    def mend(self) -> None:
        """Break what hung, as a router does that has forgotten it, and forward new connections."""
        self._close_all()
        self._is_cut.clear()

    def _close_all(self) -> None:
        with self._lock:
            for one in self._pairs:
                one.close()
            self._pairs.clear()

    def _loop(self) -> None:
        while not self._is_over.is_set():
            if self._is_cut.is_set():
                time.sleep(PAUSE_SECONDS)
                continue
            with self._lock, selectors.DefaultSelector() as selector:
                for one in (self._listener, *self._pairs):
                    selector.register(one, selectors.EVENT_READ)
                for key, _ in selector.select(PAUSE_SECONDS):
                    if key.fileobj is self._listener:
                        self._connect()
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._pairs:
                        self._forward(key.fileobj)

    def _connect(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", self._target))
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs |= {near: far, far: near}

    def _forward(self, source: socket.socket) -> None:
        target = self._pairs[source]
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(CHUNK_BYTES)
            target.sendall(data)
        if not data:
            for one in (source, target):
                del self._pairs[one]
                one.close()

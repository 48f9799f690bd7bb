"""`python -m api`: migrate, then serve on the settings' address until SIGTERM."""

import gc
import signal
import socket
import sys

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from typing_extensions import override

from api.access import is_loopback
from api.app import create_app
from core.db import keys, migrate
from core.db.engine import Database
from core.errors import EpochdError
from core.heap import share_one_arena
from core.settings import Settings, load_settings

log = structlog.get_logger(__name__)

GRACE_SECONDS = 5
"""Requests may go on for so long after SIGTERM; those that wait are answered at once."""
BACKLOG = 2048
SWITCH_SECONDS = 0.0005
"""A thread with an answer from the database waits no longer for its turn; Python's 5 ms come at every statement."""
COLLECTED_AFTER = (5_000, 10, 10)
"""Every closed connection leaves a kilobyte in seven objects to the collector of cycles, because asyncio's transports
refer to themselves: it comes after some 700 of them. At Python's 700 objects it takes 2 to 10 % of a request's time, at
these 0.2 % at most (a seventh where 500 clients wait for half a second each, again and again)."""


class Server(uvicorn.Server):
    """Uvicorn, which says when it is ready and wakes who waits before it stops."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        if self.started:
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            port = next((sock.getsockname()[1] for server in self.servers for sock in server.sockets), self.config.port)
            print(f"epochd api ready on http://{host}:{port}", flush=True)  # noqa: T201 - for whoever started it

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End waits, then connections."""
        self._app.state.services.changes.close()
        await super().shutdown(sockets)


def main() -> int:
    """Serve; the exit status is 2 where the settings forbid it, 1 where the database does."""
    try:
        settings = load_settings()
        _prepare(settings)
    except (ValidationError, PermissionError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - before any log
        return 2
    except EpochdError as error:
        print(error.detail, file=sys.stderr)  # noqa: T201 - before any log
        return 1
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.setswitchinterval(SWITCH_SECONDS)
    share_one_arena()
    app = create_app(settings)
    settle_collector()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        backlog=BACKLOG,
        access_log=False,
        log_level="warning",
        proxy_headers=False,  # who calls is who connects; a header cannot make anybody local
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = Server(config, app)
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn stops at one, then raises it again
        signal.signal(number, lambda *_: None)
    server.run()
    return 0 if server.started else 1


def settle_collector() -> None:
    """Have the collector look often at what requests leave, and never again at what the process was built of."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_AFTER)


def _prepare(settings: Settings) -> None:
    """Bring the database up to date and make sure that strangers cannot call without a key.

    Raises:
        PermissionError: the address is not this machine's own, and there is no key.
    """
    migrate.upgrade(settings.sqlalchemy_url)
    database = Database(settings.sqlalchemy_url)
    try:
        with database.session_scope() as session:
            if settings.api_key is not None:
                keys.ensure(session, settings.api_key.get_secret_value())
            is_open = not keys.any_exist(session)
    finally:
        database.dispose()
    if is_open and not is_loopback(settings.host):
        raise PermissionError(
            f"{settings.host} can be reached from other machines and there is no API key: set EPOCHD_API_KEY to a "
            "secret that begins with epk_, or make a key with `epochd keys create` while EPOCHD_HOST is 127.0.0.1"
        )


if __name__ == "__main__":
    sys.exit(main())

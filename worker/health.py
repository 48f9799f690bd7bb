"""`python -m worker.health`: exit 0 while a worker of this host gives signs of life. A container's health check."""

import socket
import sys

from core.db import workers
from core.db.engine import Database
from core.errors import DatabaseAway
from core.settings import load_settings


def main() -> int:
    """Look at the workers' rows; return the exit status."""
    database = Database(load_settings().sqlalchemy_url)
    try:
        with database.session_scope(write=False) as session:
            hosts = {worker.host for worker in workers.listing(session)}
    except DatabaseAway as away:
        sys.stderr.write(f"{away.detail}\n")
        return 1
    finally:
        database.dispose()
    if socket.gethostname() in hosts:
        return 0
    sys.stderr.write("no worker of this host gave a sign of life lately\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from core.db import migrate, workers
from core.db.engine import Database
from tests.service import ROOT


@pytest.mark.parametrize(("host", "status"), [(socket.gethostname(), 0), ("another-host", 1)])
def test_health_is_a_sign_of_life_of_this_hosts_worker(tmp_path: Path, host: str, status: int) -> None:
    url = f"sqlite:///{tmp_path / 'epochd.db'}"
    migrate.upgrade(url)
    worker = workers.Announcement(
        id="wk_1", name="one", host=host, pid=1, version="0", queues=["cpu"], devices=[], slots=1
    )
    database = Database(url)
    with database.session_scope() as session:
        workers.announce(session, worker)
    database.dispose()
    assert health(url) == status


def test_health_is_missing_without_a_database() -> None:
    assert health("postgresql+psycopg://nobody@127.0.0.1:9/nothing") == 1


def health(url: str) -> int:
    command = [sys.executable, "-m", "worker.health"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"EPOCHD_DATABASE_URL": url}, check=False).returncode

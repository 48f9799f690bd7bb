import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from tests.servers import Postgres, Redis, Server


def _connect(server: Postgres) -> psycopg.Connection:
    return psycopg.connect(f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres connect_timeout=2")


@pytest.mark.postgres
def test_a_killed_postgres_starts_again_with_its_rows(private_postgres: Callable[[], Postgres]) -> None:
    server = private_postgres()
    server.execute("CREATE TABLE kept AS SELECT 7 AS number")
    server.kill()
    with pytest.raises(psycopg.OperationalError):
        _connect(server)
    server.start()
    with _connect(server) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)


@pytest.mark.postgres
def test_a_stopped_postgres_leaves_no_process(private_postgres: Callable[[], Postgres]) -> None:
    server = private_postgres()
    processes = server.processes()
    server.stop()
    assert not [process for process in processes if process.is_running()]
    assert server.pid is None


@pytest.mark.redis
def test_a_frozen_redis_answers_again_after_resume(private_redis: Callable[[], Redis]) -> None:
    server = private_redis()
    with server.client() as client:
        client.set("word", "kept")
    server.pause()
    with server.client() as client, pytest.raises(redis.TimeoutError):
        client.get("word")
    server.resume()
    with server.client() as client:
        assert client.get("word") == b"kept"


@pytest.mark.redis
def test_a_closed_server_leaves_no_folder(private_redis: Callable[[], Redis]) -> None:
    server = Redis.new()
    server.close()
    assert not server.folder.exists()


@pytest.mark.redis
@pytest.mark.postgres
@pytest.mark.parametrize("kind", [Redis, Postgres], ids=lambda kind: kind.name)
def test_a_server_ends_with_the_killed_process_that_started_it(kind: type[Server]) -> None:
    program = (
        "import sys, time; from tests import servers\n"
        f"server = servers.{kind.__name__}.new(); print(server.pid, server.folder, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        assert psutil.pid_exists(int(pid))
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while Path(folder).exists() or psutil.pid_exists(int(pid)):
        assert time.monotonic() < deadline, "the watcher did not clean up"
        time.sleep(0.05)

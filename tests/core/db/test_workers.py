from typing import Any

from sqlalchemy import update

from core.db import workers
from core.db.clock import now
from core.db.engine import Database
from core.db.tables import Worker
from core.db.workers import Announcement
from tests.core.db.given import PROJECT, claimed, queued


def announce(database: Database, worker_id: str = "wk_one", **fields: Any) -> None:
    said: dict[str, Any] = {
        "id": worker_id, "name": "host-1", "host": "host", "pid": 1, "version": "0.1.0", "queues": ["cpu"],
        "devices": [{"name": "cpu", "index": None, "memory_bytes": 8}], "slots": 2,
    }  # fmt: skip
    with database.session_scope() as session:
        workers.announce(session, Announcement(**said | fields))


def listed(database: Database) -> list[Worker]:
    with database.session_scope(write=False) as session:
        return workers.listing(session)


def fall_silent(database: Database, worker_id: str, seconds: float) -> None:
    with database.session_scope() as session:
        session.execute(update(Worker).where(Worker.id == worker_id).values({"seen_at": now(-seconds)}))


def test_an_announced_worker_is_listed_as_it_said(database: Database) -> None:
    announce(database)
    (worker,) = listed(database)
    assert (worker.id, worker.queues, worker.slots, worker.is_draining) == ("wk_one", ["cpu"], 2, False)
    assert worker.devices == [{"name": "cpu", "index": None, "memory_bytes": 8}]


def test_announcing_again_replaces_what_was_said(database: Database) -> None:
    announce(database)
    announce(database, slots=4)
    assert [worker.slots for worker in listed(database)] == [4]


def test_a_silent_worker_is_not_listed_until_it_is_seen_again(database: Database) -> None:
    announce(database)
    fall_silent(database, "wk_one", 61)
    assert listed(database) == []
    with database.session_scope() as session:
        assert workers.seen(session, "wk_one")
    assert len(listed(database)) == 1


def test_a_worker_whose_row_is_gone_is_told_so(database: Database) -> None:
    with database.session_scope() as session:
        assert not workers.seen(session, "wk_gone")


def test_a_draining_worker_says_so_and_a_leaving_one_goes(database: Database) -> None:
    announce(database)
    with database.session_scope() as session:
        workers.drain(session, "wk_one")
    assert [worker.is_draining for worker in listed(database)] == [True]
    with database.session_scope() as session:
        workers.leave(session, "wk_one")
    assert listed(database) == []


def test_only_rows_of_long_silent_workers_are_swept(database: Database) -> None:
    announce(database, "wk_old")
    announce(database, "wk_silent")
    fall_silent(database, "wk_old", 3601)
    fall_silent(database, "wk_silent", 3500)
    with database.session_scope() as session:
        assert workers.sweep(session) == ["wk_old"]
        assert workers.sweep(session) == []


def test_a_worker_that_announces_itself_sweeps(database: Database) -> None:
    announce(database, "wk_old")
    fall_silent(database, "wk_old", 3601)
    announce(database, "wk_new")
    with database.session_scope() as session:
        assert not workers.seen(session, "wk_old")
        assert workers.seen(session, "wk_new")


def test_queues_count_what_waits_runs_and_is_paused_in_the_project(database: Database) -> None:
    for queue in ("cpu", "cpu", "gpu"):
        queued(database, queue=queue)
    queued(database, project="other")
    claim = claimed(database)
    with database.session_scope(write=False) as session:
        assert workers.queue(session, PROJECT) == {
            "cpu": {"queued": 1, "running": 1, "paused": 0},
            "gpu": {"queued": 1, "running": 0, "paused": 0},
        }
        assert workers.running(session, PROJECT) == {"wk_one": [claim.job_id]}
        assert workers.running(session, "other") == {}

"""Rows that a program of an earlier revision wrote are read by this one as if it had written them."""

from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, Table, create_engine, select

from core.db import migrate, workers
from core.db.engine import Database
from core.db.leases import Checkpoint
from core.db.references import File, files
from core.errors import SchemaInUse
from tests.core.db import given

JOB: dict[str, Any] = {
    "project": given.PROJECT, "metadata": {}, "spec": given.SPEC, "spec_digest": "d" * 64, "body_sha256": "b" * 64,
    "state": "queued", "desired": "run", "priority": 0, "queue": "cpu", "fence": 2, "attempt": 1,
    "crashes_no_progress": 0, "losses_no_progress": 0, "active_seconds": 0.0, "version": 1,
}  # fmt: skip
CARRIED = {
    "epochs_done": 2,
    "checkpoint_key": "two",
    "checkpoint_sha256": "2" * 64,
    "checkpoint_epoch": 2,
    "previous_checkpoint": {"key": "one", "sha256": "1" * 64, "epoch": 1},
}
AFTER_ONE = {**CARRIED, "epochs_done": 1, "previous_checkpoint": None}
"""JSON's null, where a job without any checkpoint has SQL's."""


def table(connection: Connection, name: str) -> Table:
    """Return a table as the database has it."""
    return Table(name, MetaData(), autoload_with=connection)


@pytest.fixture
def revision_2(empty_url: str) -> str:
    """A database of revision 0002 with three jobs, one of them with its second checkpoint and two rows."""
    migrate.upgrade(empty_url, "0002")
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        jobs, epochs = table(connection, "jobs"), table(connection, "epochs")
        for job_id, more in (("job_1", CARRIED), ("job_2", AFTER_ONE), ("job_3", {"epochs_done": 0})):
            connection.execute(jobs.insert().values(id=job_id, **JOB, **more))
        for epoch in (1, 2):
            connection.execute(epochs.insert().values(job_id="job_1", epoch=epoch, fence=1, attempt=1, body="{}"))
    engine.dispose()
    return empty_url


def test_checkpoints_with_a_sha256_are_resumed_from_and_backed_up(revision_2: str) -> None:
    migrate.upgrade(revision_2)
    database = Database(revision_2)
    claims = {claim.job_id: claim for claim in (given.claimed(database) for _ in range(3))}
    two, one = Checkpoint(key="two", digest="2" * 64, epoch=2), Checkpoint(key="one", digest="1" * 64, epoch=1)
    pointers = {job_id: (claim.checkpoint, claim.previous_checkpoint) for job_id, claim in claims.items()}
    assert pointers == {"job_1": (two, one), "job_2": (two, None), "job_3": (None, None)}
    with database.session_scope(write=False) as session:
        named = {file for file in files(session, "trainer.log") if file.digest is not None}
    assert named == {File("two", "2" * 64, True), File("one", "1" * 64, True)}
    given.publish(database, claims["job_1"], 3)  # epochs 1 and 2 are there
    given.finish(database, claims["job_1"])
    assert given.read(database, "job_1").epochs_done == 3
    database.dispose()


def test_worker_that_would_take_new_digests_for_damage_has_to_stop_first(revision_2: str) -> None:
    database = Database(revision_2)
    me = workers.Announcement(
        id="wk_old", name="old", host="there", pid=1, version="0.0.1", queues=["cpu"], devices=[], slots=1
    )
    with database.session_scope() as session:
        workers.announce(session, me)
    with pytest.raises(SchemaInUse, match=r"Migration 0003 .*old \(host there"):
        migrate.upgrade(revision_2)
    database.dispose()


def test_rows_survive_the_way_up_and_down_as_they_were(revision_2: str) -> None:
    engine = create_engine(revision_2)

    def rows() -> dict[str, list[dict[str, Any]]]:
        with engine.connect() as connection:
            tables = [table(connection, name) for name in ("jobs", "epochs")]
            return {
                one.name: [dict(row) for row in connection.execute(select(one).order_by(*one.primary_key)).mappings()]
                for one in tables
            }

    before = rows()
    assert before["jobs"][0].items() >= CARRIED.items()
    migrate.upgrade(revision_2)
    assert rows() != before
    migrate.downgrade(revision_2, "0002")
    assert rows() == before
    engine.dispose()

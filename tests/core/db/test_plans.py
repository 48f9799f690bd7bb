"""What is executed often finds its rows by an index, on both databases, however long the tables are."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, insert, text, update
from sqlalchemy.orm import Session

from core import ids
from core.db import asked, jobs, leases, series, workers
from core.db.clock import now
from core.db.engine import Database
from core.db.tables import Epoch, Event, Job
from tests.core.db.given import PROJECT, SPEC

JOBS = 1500
"""So many that reading all is dearer than an index by PostgreSQL's own reckoning."""
RUNNING, ENDED = "job_" + "1" * 32, "job_" + "2" * 32
Act = Callable[[Session], Any]


@pytest.fixture
def full(database: Database) -> Database:
    """A database whose jobs wait, run or have ended, with rows and events; PostgreSQL knows its statistics."""
    job_ids = [RUNNING, ENDED, *(ids.new("job") for _ in range(JOBS))]
    same = {"project": PROJECT, "spec": SPEC, "labels": {}, "spec_digest": "d", "body_sha256": "b"}
    rows = [
        {"id": job_id, "name": f"name {n % 300}", "queue": f"queue {n // 10 % 2}", "state": "succeeded", **same}
        for n, job_id in enumerate(job_ids)
    ]
    written = [(job_id, epoch) for job_id in job_ids[:200] for epoch in range(1, 11)]
    with database.session_scope() as session:
        session.execute(insert(Job), rows)
        for state, share in ("queued", job_ids[5::10]), ("running", [RUNNING, *job_ids[6::100]]):
            lease = now(3600.0) if state == "running" else None
            session.execute(update(Job).where(Job.id.in_(share)).values({"state": state, "lease_until": lease}))
        session.execute(
            insert(Epoch),
            [{"job_id": job, "epoch": epoch, "fence": 1, "attempt": 1, "body": "{}"} for job, epoch in written],
        )
        session.execute(
            insert(Event), [{"job_id": job, "type": "job.epoch", "fence": 1, "body": {}} for job, _ in written]
        )
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("ANALYZE"))
    return database


def plan(database: Database, act: Act, *, is_prepared: bool = False) -> str:
    """Return how the database executes the first statement of an action.

    Args:
        is_prepared: PostgreSQL's plan for any parameters, which it may choose after some executions.
    """
    statement, parameters = first_statement(database, act)
    with database.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            return "\n".join(row[3] for row in found)
        if not is_prepared:
            return "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
        names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
        numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)
        connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        connection.exec_driver_sql(f"PREPARE planned AS {numbered}")
        values = ", ".join(["NULL"] * len(names))
        found = connection.exec_driver_sql(f"EXPLAIN EXECUTE planned{f'({values})' if names else ''}").scalars()
        plan = "\n".join(found)
        connection.exec_driver_sql("DEALLOCATE planned")
        return plan


def first_statement(database: Database, act: Act) -> tuple[str, Any]:
    executed: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE")):
            executed.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        with database.session_scope() as session:
            act(session)
            session.rollback()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return executed[0]


def reads_all(plan: str) -> bool:
    return (
        "Seq Scan" in plan
        or re.search(r"SCAN (?!CONSTANT|anon|queue)\w+(?! USING (COVERING )?INDEX)", plan) is not None
    )


def sorts(plan: str) -> bool:
    return "Sort Key" in plan or "TEMP B-TREE" in plan


CLAIMS: dict[str, Act] = {
    "claim": lambda session: leases.claim(session, "wk_one", ["queue 0"], host="here"),
    "claim from two queues": lambda session: leases.claim(session, "wk_one", ["queue 0", "queue 1"], host="here"),
    "what waits": lambda session: leases.waiting(session, ["queue 0"], 1),
    "what waits in two queues": lambda session: leases.waiting(session, ["queue 0", "queue 1"], 1),
}
LISTS: dict[str, Act] = {
    "newest": lambda session: jobs.page(session, PROJECT),
    "behind an id": lambda session: jobs.page(session, PROJECT, after=RUNNING, order="asc"),
    "ended": lambda session: jobs.page(session, PROJECT, status="succeeded"),
    "failed, of which there is none": lambda session: jobs.page(session, PROJECT, status="failed"),
    "of a name": lambda session: jobs.page(session, PROJECT, name="name 7"),
    "of a name and a status": lambda session: jobs.page(session, PROJECT, name="name 7", status="succeeded"),
}
POLLS: dict[str, tuple[Act, str]] = {
    "job": (lambda session: jobs.get(session, PROJECT, ENDED), r"ix_jobs_project_id|pk_jobs|autoindex_jobs_1"),
    "versions": (lambda session: jobs.versions(session, [ENDED, RUNNING]), r"pk_jobs|autoindex_jobs_1"),
    "head": (lambda session: asked.answers(session, job_ids=[ENDED, RUNNING]), r"pk_jobs|autoindex_jobs_1"),
    "rows": (lambda session: series.rows(session, ENDED, after=3), r"pk_epochs|autoindex_epochs_1"),
    "events": (lambda session: series.events(session, ENDED, after=3), r"ix_events_job_id_id"),
    "heartbeat": (lambda session: leases.heartbeat(session, RUNNING, 0), r"pk_jobs|autoindex_jobs_1"),
    "wish": (lambda session: leases.wish(session, RUNNING, 0), r"pk_jobs|autoindex_jobs_1"),
}  # fmt: skip


@pytest.mark.parametrize("is_prepared", [False, True], ids=["these parameters", "any parameters"])
def test_claims_read_the_best_of_each_queue_by_the_index_of_what_waits(full: Database, is_prepared: bool) -> None:
    for name, act in CLAIMS.items():
        found = plan(full, act, is_prepared=is_prepared)
        queues = 2 if "two" in name else 1
        assert len(re.findall(r"(?:using|USING INDEX) ix_jobs_claim", found)) == queues, f"{name}\n{found}"
        assert not reads_all(found), f"{name}\n{found}"


@pytest.mark.parametrize("is_prepared", [False, True], ids=["these parameters", "any parameters"])
def test_leases_that_are_over_are_found_among_what_runs(full: Database, is_prepared: bool) -> None:
    found = plan(full, leases.reap, is_prepared=is_prepared)
    assert "ix_jobs_lease" in found, found
    assert not reads_all(found), found
    assert not sorts(found), found


def test_lists_read_one_page_in_the_order_of_an_index(full: Database) -> None:
    for name, act in LISTS.items():
        found = plan(full, act)
        assert not reads_all(found), f"{name}\n{found}"
        assert not sorts(found), f"{name}\n{found}"


def test_a_name_is_looked_up_by_its_index_also_when_a_status_is_asked_for(full: Database) -> None:
    for name in "of a name", "of a name and a status":
        found = plan(full, LISTS[name])
        assert "ix_jobs_project_name_id" in found, f"{name}\n{found}"


def test_what_polls_and_heartbeats_ask_is_found_by_a_key(full: Database) -> None:
    for name, (act, index) in POLLS.items():
        found = plan(full, act)
        assert re.search(index, found), f"{name}\n{found}"
        assert not sorts(found), f"{name}\n{found}"


def test_what_waits_and_runs_is_counted_by_an_index_alone(full: Database) -> None:
    if full.engine.dialect.name == "postgresql":
        with full.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("VACUUM jobs")  # as autovacuum does: which pages everybody may see
    found = plan(full, lambda session: workers.queue(session, PROJECT))
    assert re.search(r"(Index Only Scan using|COVERING INDEX) ix_jobs_project_state_id_queue", found), found


def test_the_best_of_two_queues_is_the_best_of_all(database: Database) -> None:
    wanted = [("cpu", 0), ("gpu", 5), ("cpu", 5), ("gpu", -1), ("cpu", 9)]
    with database.session_scope() as session:
        made = [
            jobs.create(
                session,
                jobs.NewJob(
                    project=PROJECT, spec=SPEC, spec_digest="d", body_sha256="b", queue=queue, priority=priority
                ),
            )[0].id
            for queue, priority in wanted
        ]
    best = [made[4], made[1], made[2], made[0], made[3]]
    with database.session_scope(write=False) as session:
        assert [job.job_id for job in leases.waiting(session, ["cpu", "gpu", "cpu"])] == best
    with database.session_scope() as session:
        claims = [leases.claim(session, "wk_one", ["gpu", "cpu"], host="here") for _ in range(6)]
    assert [claim.job_id for claim in claims if claim] == best

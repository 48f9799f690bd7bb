from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.db import jobs
from core.db.engine import Database
from core.db.states import STATUSES, Status
from core.db.tables import Epoch, Event, Job
from core.errors import Conflict, IdempotencyMismatch, NotFound
from tests.core.db.given import PROJECT, claimed, crash, event_types, finish, new_job, publish, queued, read, running

Request = Callable[[Session, str, str], Job]
REQUESTS: dict[str, Request] = {
    "cancel": jobs.request_cancel,
    "pause": jobs.request_pause,
    "resume": jobs.request_resume,
}


def ask(database: Database, action: str, job_id: str, project: str = PROJECT) -> Job:
    with database.session_scope() as session:
        return REQUESTS[action](session, project, job_id)


def job_with(database: Database, status: Status) -> str:
    """Bring a job to that status the way users do."""
    job_id = queued(database).id
    match status:
        case "paused" | "cancelled":
            ask(database, {"paused": "pause", "cancelled": "cancel"}[status], job_id)
        case "running":
            claimed(database)
        case "pausing" | "cancelling":
            claimed(database)
            ask(database, {"pausing": "pause", "cancelling": "cancel"}[status], job_id)
        case "succeeded" | "failed":
            finish(database, claimed(database), status)
        case _:
            pass
    assert jobs.wire_status(read(database, job_id)) == status
    return job_id


class TestCreate:
    def test_a_new_job_waits_and_has_one_event(self, database: Database) -> None:
        job = queued(database, name="first", metadata={"team": "a"}, priority=3, queue="gpu")
        kept = read(database, job.id)
        assert (kept.state, kept.desired, kept.fence, kept.attempt, kept.version) == ("queued", "run", 0, 0, 1)
        assert (kept.name, kept.labels, kept.priority, kept.queue) == ("first", {"team": "a"}, 3, "gpu")
        assert event_types(database, job.id) == ["job.created"]

    def test_the_same_key_and_body_give_the_first_job(self, database: Database) -> None:
        first = queued(database, idempotency_key="k")
        with database.session_scope() as session:
            again, is_new = jobs.create(session, new_job(idempotency_key="k"))
        assert (again.id, is_new) == (first.id, False)

    def test_the_same_key_with_another_body_is_refused(self, database: Database) -> None:
        first = queued(database, idempotency_key="k")
        with pytest.raises(IdempotencyMismatch, match=first.id), database.session_scope() as session:
            jobs.create(session, new_job(idempotency_key="k", body_sha256="other"))

    def test_two_projects_may_use_the_same_key(self, database: Database) -> None:
        first = queued(database, idempotency_key="k")
        assert queued(database, idempotency_key="k", project="other").id != first.id

    def test_jobs_without_a_key_are_never_the_same(self, database: Database) -> None:
        assert queued(database).id != queued(database).id

    def test_twenty_racing_posts_with_one_key_make_one_job(self, database: Database) -> None:
        def post(_: int) -> tuple[str, bool]:
            with database.session_scope() as session:
                job, is_new = jobs.create(session, new_job(idempotency_key="raced"))
                return job.id, is_new

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(post, range(20)))
        assert len({job_id for job_id, _ in answers}) == 1
        assert sum(is_new for _, is_new in answers) == 1
        with database.session_scope(write=False) as session:
            assert session.scalar(select(func.count()).select_from(Job)) == 1
            assert session.scalar(select(func.count()).select_from(Event)) == 1


class TestLooking:
    def test_a_job_of_another_project_does_not_exist(self, database: Database) -> None:
        job = queued(database)
        for action in REQUESTS:
            with pytest.raises(NotFound):
                ask(database, action, job.id, "other")
        with database.session_scope() as session:
            for call in (jobs.get, jobs.delete, jobs.edit):
                with pytest.raises(NotFound):
                    call(session, "other", job.id)
            assert jobs.page(session, "other") == ([], False)

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_pages_follow_one_another_without_gap_or_double(self, database: Database, order: str) -> None:
        made = [queued(database).id for _ in range(7)]
        seen: list[str] = []
        has_more = True
        with database.session_scope(write=False) as session:
            while has_more:
                after = seen[-1] if seen else None
                found, has_more = jobs.page(session, PROJECT, limit=3, after=after, order=order)  # type: ignore[arg-type] - both are orders
                seen += [job.id for job in found]
        assert seen == (made if order == "asc" else made[::-1])

    @pytest.mark.parametrize("status", STATUSES)
    def test_a_page_of_one_status_has_just_those(self, database: Database, status: Status) -> None:
        ids = {one: job_with(database, one) for one in STATUSES if one != "queued"}
        ids["queued"] = queued(database).id
        with database.session_scope(write=False) as session:
            found, _ = jobs.page(session, PROJECT, status=status)
        assert [job.id for job in found] == [ids[status]]

    def test_a_page_of_one_name_has_just_those(self, database: Database) -> None:
        queued(database, name="other")
        wanted = queued(database, name="wanted").id
        with database.session_scope(write=False) as session:
            assert [job.id for job in jobs.page(session, PROJECT, name="wanted")[0]] == [wanted]

    @pytest.mark.parametrize("word", ["\0", "a\0b", "\ud800", "'; --", "%"])
    def test_words_that_no_row_can_have_find_nothing(self, database: Database, word: str) -> None:
        queued(database, name="a")
        with database.session_scope(write=False) as session:
            assert jobs.page(session, PROJECT, name=word) == ([], False)
            with pytest.raises(NotFound):
                jobs.get(session, PROJECT, word)

    def test_versions_rise_with_every_change_that_clients_can_see(self, database: Database) -> None:
        claim = running(database)
        seen = []
        for change in (
            lambda: publish(database, claim, 1),
            lambda: ask(database, "pause", claim.job_id),
            lambda: ask(database, "resume", claim.job_id),
            lambda: finish(database, claim),
        ):
            change()
            with database.session_scope(write=False) as session:
                seen.append(jobs.versions(session, [claim.job_id, "job_none"])[claim.job_id])
        assert seen == sorted(set(seen))


class TestEdit:
    def test_given_fields_change_and_others_stay(self, database: Database) -> None:
        job = queued(database, name="old", metadata={"a": "1"}, priority=1)
        with database.session_scope() as session:
            jobs.edit(session, PROJECT, job.id, name=None, priority=5)
        kept = read(database, job.id)
        assert (kept.name, kept.labels, kept.priority, kept.version) == (None, {"a": "1"}, 5, 2)

    def test_an_edit_that_changes_nothing_is_no_new_version(self, database: Database) -> None:
        job = queued(database, name="same")
        with database.session_scope() as session:
            jobs.edit(session, PROJECT, job.id, name="same")
        assert read(database, job.id).version == 1


class TestDelete:
    @pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
    def test_an_ended_job_goes_with_all_its_rows(self, database: Database, status: Status) -> None:
        job_id = job_with(database, status)
        with database.session_scope() as session:
            assert jobs.delete(session, PROJECT, job_id).id == job_id
        with database.session_scope(write=False) as session:
            for table in (Job, Event, Epoch):
                assert session.scalar(select(func.count()).select_from(table)) == 0

    @pytest.mark.parametrize("status", ["queued", "running", "pausing", "paused", "cancelling"])
    def test_a_job_that_has_not_ended_stays(self, database: Database, status: Status) -> None:
        job_id = job_with(database, status)
        with pytest.raises(Conflict), database.session_scope() as session:
            jobs.delete(session, PROJECT, job_id)
        assert read(database, job_id).id == job_id


class TestRequests:
    """What each request makes of each status; `None` is a conflict."""

    TABLE = {  # noqa: RUF012 - a table to read
        ("queued", "cancel"): "cancelled", ("queued", "pause"): "paused", ("queued", "resume"): None,
        ("running", "cancel"): "cancelling", ("running", "pause"): "pausing", ("running", "resume"): None,
        ("pausing", "cancel"): "cancelling", ("pausing", "pause"): "pausing", ("pausing", "resume"): "running",
        ("paused", "cancel"): "cancelled", ("paused", "pause"): "paused", ("paused", "resume"): "queued",
        ("cancelling", "cancel"): "cancelling", ("cancelling", "pause"): None, ("cancelling", "resume"): None,
        ("cancelled", "cancel"): "cancelled", ("cancelled", "pause"): None, ("cancelled", "resume"): None,
        ("succeeded", "cancel"): None, ("succeeded", "pause"): None, ("succeeded", "resume"): None,
        ("failed", "cancel"): None, ("failed", "pause"): None, ("failed", "resume"): None,
    }  # fmt: skip

    @pytest.mark.parametrize(("status", "action"), TABLE)
    def test_of_every_status(self, database: Database, status: Status, action: str) -> None:
        job_id, expected = job_with(database, status), self.TABLE[status, action]
        before = read(database, job_id)
        if expected is None:
            with pytest.raises(Conflict) as refused:
                ask(database, action, job_id)
            assert refused.value.extra["allowed_actions"] == jobs.allowed_actions(before)
            assert action not in jobs.allowed_actions(before)
            assert read(database, job_id).version == before.version
            return
        assert jobs.wire_status(ask(database, action, job_id)) == expected
        assert (read(database, job_id).version > before.version) == (expected != status)

    @pytest.mark.parametrize(
        ("status", "action"), [(s, a) for (s, a), then in TABLE.items() if then is not None and then != s]
    )
    def test_again_changes_nothing(self, database: Database, status: Status, action: str) -> None:
        job_id = job_with(database, status)
        first = ask(database, action, job_id)
        again = ask(database, action, job_id)
        assert (again.state, again.desired, again.version) == (first.state, first.desired, first.version)

    def test_a_cancelled_waiting_job_has_one_terminal_event(self, database: Database) -> None:
        job_id = job_with(database, "cancelled")
        job = read(database, job_id)
        assert event_types(database, job_id) == ["job.created", "job.cancelled"]
        assert job.stop_reason == "cancelled"
        assert job.finished_at is not None

    def test_a_resumed_job_goes_on_from_its_checkpoint(self, database: Database) -> None:
        claim = running(database)
        publish(database, claim, 1, 2, key="two")
        crash(database, claim)
        ask(database, "pause", claim.job_id)
        ask(database, "resume", claim.job_id)
        again = claimed(database)
        assert again.checkpoint is not None
        assert (again.checkpoint.key, again.checkpoint.epoch, again.epochs_done) == ("two", 2, 2)
        assert again.fence > claim.fence

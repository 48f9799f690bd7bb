from hashlib import sha256

import pytest
from sqlalchemy import event, text

from core.db import keys
from core.db.asked import Head, answers
from core.db.engine import Database
from core.db.keys import Holder, Scope
from core.db.tables import ApiKey
from core.errors import NotFound
from tests.core.db.given import queued


def made(database: Database, *scopes: Scope, project: str = "default") -> tuple[ApiKey, str]:
    with database.session_scope() as session:
        return keys.create(session, project, "mine", scopes or ("jobs:read",))


def verified(database: Database, secret: str) -> Holder | None:
    with database.session_scope(write=False) as session:
        return answers(session, secrets=[secret]).holders.get(secret)


def test_a_secret_opens_its_project(database: Database) -> None:
    key, secret = made(database, "jobs:read", "jobs:write", project="vision")
    found = verified(database, secret)
    assert secret.startswith("epk_")
    assert found is not None
    assert (found.id, found.project, found.scopes) == (key.id, "vision", ["jobs:read", "jobs:write"])


@pytest.mark.parametrize("wrong", ["", "epk_", "epk_wrong", "\ud800", "\0", "epk_" + "a" * 10_000])
def test_another_secret_opens_nothing(database: Database, wrong: str) -> None:
    made(database)
    assert verified(database, wrong) is None


def test_only_the_digest_of_a_secret_is_in_the_database(database: Database) -> None:
    _, secret = made(database)
    with database.session_scope(write=False) as session:
        (row,) = session.execute(text("SELECT * FROM api_keys")).mappings().all()
    assert row["secret_sha256"] == sha256(secret.encode()).hexdigest()
    assert not any(secret[8:] in str(value) for value in row.values())
    assert secret.startswith(row["hint"])


def test_a_revoked_key_opens_nothing_and_stays_listed(database: Database) -> None:
    key, secret = made(database)
    for _ in range(2):
        with database.session_scope() as session:
            assert keys.revoke(session, "default", key.id).revoked_at is not None
    assert verified(database, secret) is None
    with database.session_scope(write=False) as session:
        assert [listed.id for listed in keys.listing(session, "default")] == [key.id]
        assert keys.any_exist(session), "revoking the last key must not open the service"


def test_a_key_of_another_project_cannot_be_revoked(database: Database) -> None:
    key, secret = made(database, project="vision")
    with pytest.raises(NotFound), database.session_scope() as session:
        keys.revoke(session, "default", key.id)
    assert verified(database, secret) is not None


def test_no_key_exists_at_first(database: Database) -> None:
    with database.session_scope(write=False) as session:
        assert not keys.any_exist(session)


def test_the_operators_key_is_an_admin_made_once(database: Database) -> None:
    for _ in range(2):
        with database.session_scope() as session:
            keys.ensure(session, "epk_operator")
    key = verified(database, "epk_operator")
    assert key is not None
    assert (key.project, key.scopes) == ("default", ["admin"])


def test_the_operators_key_stays_revoked(database: Database) -> None:
    with database.session_scope() as session:
        keys.ensure(session, "epk_operator")
        keys.revoke(session, "default", keys.listing(session, "default")[0].id)
        keys.ensure(session, "epk_operator")
        assert not answers(session, secrets=["epk_operator"]).holders


def test_an_unknown_scope_is_refused_by_name(database: Database) -> None:
    with pytest.raises(ValueError, match="jobs:all"):
        made(database, "jobs:all")  # type: ignore[arg-type] - the point of the test


def test_the_last_use_is_written_down_once_a_minute(database: Database) -> None:
    key, _ = made(database)
    uses = []
    for _ in range(2):
        with database.session_scope() as session:
            keys.used(session, key.id)
        with database.session_scope(write=False) as session:
            (found,) = keys.listing(session, "default")
        uses.append(found.last_used_at)
    assert uses[0] is not None
    assert uses[0] == uses[1]


def test_several_questions_are_answered_by_one_statement(database: Database) -> None:
    key, secret = made(database, "jobs:read")
    job = queued(database)
    seen = list[str]()
    event.listen(database.engine, "before_cursor_execute", lambda _c, _u, statement, *_: seen.append(statement))
    with database.lookup() as connection:
        found = answers(connection, secrets=[secret, "epk_x"], job_ids=[job.id, "job_x"], asks_for_keys=True)
    assert found.holders == {secret: Holder(key.id, "default", ["jobs:read"])}
    assert found.heads == {job.id: Head(job.id, job.project, 1, "queued", None)}
    assert found.has_keys
    assert len([statement for statement in seen if "SELECT" in statement]) == 1
    with database.lookup() as connection:
        assert not answers(connection, job_ids=[job.id]).has_keys, "it was not asked"

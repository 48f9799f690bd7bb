from pathlib import Path

from sqlalchemy import make_url

from core.db import jobs
from core.db.commits import watching
from core.db.engine import Database
from tests.core.db.given import new_job, queued


def test_every_commit_is_another_count_where_a_file_tells(database: Database) -> None:
    with watching(database.engine.url) as commits:
        counts = [commits()]
        for _ in range(3):
            queued(database)
            counts.append(commits())
            assert commits() == counts[-1]
    assert len(set(counts)) == (1 if database.engine.dialect.name == "postgresql" else 4)
    assert (counts[0] is None) == (database.engine.dialect.name == "postgresql")


def test_what_is_not_committed_is_no_other_count(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with watching(database.engine.url) as commits:
        before = commits()
        with database.session_scope() as session:
            jobs.create(session, new_job())
            assert commits() == before
        assert commits() != before
    database.dispose()


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path / 'nowhere.db'}", "sqlite://"):
        with watching(make_url(url)) as commits:
            assert commits() is None
    assert list(tmp_path.iterdir()) == []

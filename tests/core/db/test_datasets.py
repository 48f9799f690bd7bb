from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core.db import datasets
from core.db.datasets import NewVersion
from core.db.engine import Database
from core.errors import NotFound


def add(database: Database, sha256: str, *, name: str = "flowers", project: str = "default") -> tuple[str, int, bool]:
    new = NewVersion(
        format="csv", filename="flowers.csv", key=f"uploads/{sha256}", sha256=sha256, size_bytes=9, profile={"rows": 3}
    )
    with database.session_scope() as session:
        dataset, version, is_new = datasets.add_version(session, project, name, new)
        return dataset.id, version.version, is_new


def test_other_bytes_are_the_next_version_of_the_name(database: Database) -> None:
    first, second = add(database, "a"), add(database, "b")
    assert first[0] == second[0]
    assert (first[1:], second[1:]) == ((1, True), (2, True))


def test_the_same_bytes_are_the_version_they_were(database: Database) -> None:
    first = add(database, "a")
    add(database, "b")
    assert add(database, "a") == (*first[:2], False)


def test_the_newest_version_is_meant_where_none_is_named(database: Database) -> None:
    dataset_id, *_ = add(database, "a")
    add(database, "b")
    with database.session_scope(write=False) as session:
        assert datasets.version(session, "default", dataset_id).sha256 == "b"
        assert datasets.version(session, "default", dataset_id, 1).sha256 == "a"
        assert [version.version for version in datasets.versions(session, dataset_id)] == [1, 2]


@pytest.mark.parametrize(("project", "number"), [("other", None), ("other", 1), ("default", 2), ("default", 0)])
def test_what_is_not_there_or_not_ones_own_is_not_found(database: Database, project: str, number: Any) -> None:
    dataset_id, *_ = add(database, "a")
    with pytest.raises(NotFound), database.session_scope(write=False) as session:
        datasets.version(session, project, dataset_id, number)


def test_projects_do_not_share_names(database: Database) -> None:
    assert add(database, "a")[0] != add(database, "a", project="other")[0]


def test_pages_have_the_projects_own_newest_first(database: Database) -> None:
    ids = [add(database, "a", name=name)[0] for name in ("one", "two", "three")]
    add(database, "a", project="other")
    with database.session_scope(write=False) as session:
        first, has_more = datasets.page(session, "default", limit=2)
        rest, at_end = datasets.page(session, "default", limit=2, after=first[-1].id)
    assert ([one.id for one in first + rest], has_more, at_end) == (ids[::-1], True, False)


def test_racing_uploads_get_a_version_each(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: add(database, f"bytes {number % 4}"), range(16)))
    assert len({dataset_id for dataset_id, _, _ in made}) == 1
    assert sorted({version for _, version, _ in made}) == [1, 2, 3, 4]
    assert sum(is_new for _, _, is_new in made) == 4

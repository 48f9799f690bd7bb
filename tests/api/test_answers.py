from typing import Any

import pytest
from starlette.testclient import TestClient

from api.answers import ENTRY_BYTES, Answer, Answers
from api.app import create_app
from core.process import Template
from core.settings import Settings
from tests.api.conftest import near
from tests.api.work import Work, row


def answer(text: str) -> Answer:
    return Answer(text.encode(), f'"{text}"')


class TestAnswers:
    def test_an_answer_is_kept_for_its_version_only(self) -> None:
        answers = Answers()
        answers.put("job", 1, answer("one"))
        assert answers.get("job", 1) == answer("one")
        assert answers.get("job", 2) is None
        assert answers.get("other", 1) is None

    def test_a_newer_answer_takes_the_place_of_the_one_before(self) -> None:
        answers = Answers()
        answers.put("job", 1, answer("one"))
        answers.put("job", 2, answer("two"))
        assert answers.get("job", 1) is None
        assert answers.get("job", 2) == answer("two")

    def test_those_unused_for_the_longest_time_make_room(self) -> None:
        answers = Answers(kept_bytes=3 * (ENTRY_BYTES + 1))
        for name in "abc":
            answers.put(name, 1, answer(name))
        assert answers.get("a", 1)
        answers.put("d", 1, answer("d"))
        assert [name for name in "abcd" if answers.get(name, 1)] == ["a", "c", "d"]

    def test_one_that_is_larger_than_all_room_is_not_kept(self) -> None:
        answers = Answers(kept_bytes=2000)
        answers.put("a", 1, answer("a"))
        answers.put("b", 1, answer("b" * 3000))
        assert answers.get("b", 1) is None
        answers.put("c", 1, answer("c"))
        assert answers.get("c", 1) == answer("c")


class TestOverTheWire:
    @pytest.fixture
    def other(self, settings: Settings, no_template: Template) -> Any:
        """A client of another process on the same database."""
        with near(create_app(settings, template=no_template)) as client:
            yield client

    def test_what_another_process_changed_is_seen_at_once(
        self, client: TestClient, other: TestClient, job: dict[str, Any]
    ) -> None:
        path = f"/v1/jobs/{job['id']}"
        for name in ("first", "second"):
            assert other.patch(path, json={"name": name}).status_code == 200
            assert [client.get(path).json()["name"] for _ in range(2)] == [name, name]

    def test_each_published_row_is_seen_at_once(self, client: TestClient, job: dict[str, Any], work: Work) -> None:
        path, mine = f"/v1/jobs/{job['id']}/metrics", work.claim()
        for epoch in (1, 2, 3):
            work.publish(mine, row(epoch))
            assert [len(client.get(path).json()["data"]) for _ in range(2)] == [epoch, epoch]

    def test_the_row_of_epoch_0_is_seen_though_no_epoch_is_done(
        self, client: TestClient, job: dict[str, Any], work: Work
    ) -> None:
        path, mine = f"/v1/jobs/{job['id']}/metrics", work.claim()
        assert client.get(path).json()["data"] == []
        work.publish(mine, row(1) | {"epoch": 0})
        assert [found["epoch"] for found in client.get(path).json()["data"]] == [0]
        assert [found["epoch"] for found in client.get(path, params={"after": -1}).json()["data"]] == [0]
        assert client.get(path, params={"after": 0}).json()["data"] == []

    def test_pages_and_forms_are_kept_apart(self, client: TestClient, job: dict[str, Any], work: Work) -> None:
        path, mine = f"/v1/jobs/{job['id']}/metrics", work.claim()
        work.publish(mine, row(1), row(2), row(3))
        for _ in range(2):
            assert len(client.get(path, params={"limit": 2}).json()["data"]) == 2
            assert [found["epoch"] for found in client.get(path, params={"after": 2}).json()["data"]] == [3]
            assert client.get(path, headers={"Accept": "text/csv"}).text.count("\r\n") == 4

    def test_a_deleted_job_is_not_found_though_it_was_read(self, client: TestClient, cancelled: dict[str, Any]) -> None:
        path = f"/v1/jobs/{cancelled['id']}"
        assert client.get(path).status_code == client.get(f"{path}/metrics").status_code == 200
        assert client.delete(path).status_code == 204
        assert client.get(path).status_code == client.get(f"{path}/metrics").status_code == 404

"""Real disks, full: checkpoints, rows and uploads wait or are refused; nothing is half-written, nothing is lost."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.faults.harness import Poller, attempts, wait_for_epochs
from tests.faults.lab import SMALL, Points
from tests.faults.rooms import Room, needs_room
from tests.service import Service, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600), needs_room]

MIB = 1 << 20
LONG: dict[str, Any] = {**SMALL, "epochs": 1000}


@dataclass
class Disks(Points):
    """A service whose folders lie on small disks of their own."""

    service: Service
    room: Room
    artifacts: Path
    rows: Path
    cache: Path
    spool: Path

    def epochs(self, job_id: str) -> list[int]:
        """Return the epochs whose rows are published."""
        return [row["epoch"] for row in self.service.rows(job_id)]

    def row(self, job_id: str) -> dict[str, Any]:
        """Return what stands in the job's row and is shown to nobody."""
        columns = "crashes_no_progress, losses_no_progress, epochs_done, run_after"
        (row,) = self._sql(f"SELECT {columns} FROM jobs WHERE id = '{job_id}'")
        return dict(zip(columns.split(", "), row, strict=True))

    def do_not_wait(self, job_id: str) -> None:
        """Let a job's time to wait be over."""
        self._sql(f"UPDATE jobs SET run_after = NULL WHERE id = '{job_id}'")

    def _sql(self, statement: str) -> list[list[Any]]:
        """Execute a statement in the room: SQLite follows /proc/<pid>/root to the folder without the disk."""
        code = (
            "import json, sqlite3, sys; path, statement = sys.argv[1:]\n"
            "with sqlite3.connect(path, timeout=10) as rows: print(json.dumps(rows.execute(statement).fetchall()))"
        )
        command = [*self.room.within, sys.executable, "-c", code, str(self.rows / "epochd.db"), statement]
        return list(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    folder = tmp_path_factory.mktemp("disks")
    artifacts, rows, cache, spool = (folder / name for name in ("data/artifacts", "rows", "data/cache", "spool"))
    faults = folder / "faults"
    faults.mkdir()
    settings = {
        "EPOCHD_DATABASE_URL": f"sqlite:///{rows / 'epochd.db'}", "EPOCHD_FAULTS": str(faults), "TMPDIR": str(spool),
        "EPOCHD_PREFLIGHT_SECONDS": "60",
    }  # fmt: skip
    sizes = {artifacts: 16 * MIB, rows: 16 * MIB, cache: 24 * MIB, spool: 24 * MIB}
    with Room(sizes) as room, Service(folder, settings, within=room.within) as service:
        first = upload(
            service.client, table(150_000), "csv", "first"
        )  # tempfile chooses its folder once, at first need
        assert first.status_code == 201, first.text
        yield Disks(faults, service, room, artifacts, rows, cache, spool)


def waits(disks: Disks, job_id: str, attempt: int) -> int:
    """Wait until an attempt has ended for want of space; return for how many seconds the job waits then."""

    def has_ended() -> bool:
        job = disks.service.job(job_id)
        assert not job["is_terminal"], job
        tries = attempts(disks.service, job_id)
        return len(tries) == attempt and tries[-1]["outcome"] is not None

    wait_until(has_ended)
    row, last = disks.row(job_id), attempts(disks.service, job_id)[-1]
    assert (last["outcome"], last["code"], last["signal"], last["exit_code"]) == ("crashed", "disk_full", None, 0)
    assert "No space left on device" in last["message"]
    assert "Free space on the disk of artifacts and caches; the job goes on by itself" in last["message"]
    assert (row["crashes_no_progress"], row["losses_no_progress"]) == (0, 0)
    run_after = datetime.fromisoformat(row["run_after"]).replace(tzinfo=UTC)
    ended_at = datetime.fromisoformat(last["ended_at"])
    return round((run_after - ended_at).total_seconds())


def temporary(disks: Disks, disk: Path) -> list[Path]:
    """Return what was not finished on a disk."""
    return [path for path in disks.room.path(disk).rglob(".*") if path.is_file()]


def files(disks: Disks, disk: Path) -> set[Path]:
    return {path for path in disks.room.path(disk).rglob("*") if path.is_file()}


def test_job_waits_for_space_for_its_checkpoints_and_then_ends_as_if_nothing_had_happened(disks: Disks) -> None:
    spec = {**SMALL, "epochs": 8, "execution": {**SMALL["execution"], "max_attempts": 1}}
    undisturbed = disks.service.finish(disks.service.submit(spec)["id"])["id"]
    disks.slow()
    job_id = disks.service.submit(spec)["id"]
    wait_for_epochs(disks.service, job_id, 3)
    with disks.room.filled(disks.artifacts):
        assert waits(disks, job_id, 1) == 60
        disks.disarm("checkpoint.told")
        epochs = disks.epochs(job_id)
        assert temporary(disks, disks.artifacts) == []
        disks.do_not_wait(job_id)
        assert waits(disks, job_id, 2) == 120
        assert disks.epochs(job_id) == epochs == list(range(1, len(epochs) + 1))
    disks.do_not_wait(job_id)
    job = disks.service.finish(job_id)
    assert job["status"] == "succeeded", (job["error"], disks.service.log("worker-0"))
    assert disks.epochs(job_id) == list(range(1, 9))
    assert attempts(disks.service, job_id)[-1]["from_epoch"] == len(epochs)
    model = "model.safetensors"
    assert disks.service.artifact(job_id, model) == disks.service.artifact(undisturbed, model)


@pytest.mark.parametrize("point", ["checkpoint.written", "publish.held"])
def test_disk_that_is_full_for_one_file_costs_one_attempt(disks: Disks, point: Any) -> None:
    disks.arm(point, "raise ENOSPC")
    job_id = disks.service.submit(SMALL)["id"]
    wait_until(lambda: disks.row(job_id)["run_after"])
    (first,) = attempts(disks.service, job_id)
    assert (first["outcome"], first["code"]) == ("crashed", "disk_full")
    assert temporary(disks, disks.artifacts) == []
    disks.do_not_wait(job_id)
    assert disks.service.finish(job_id)["status"] == "succeeded"
    assert disks.epochs(job_id) == list(range(1, SMALL["epochs"] + 1))


def test_full_database_refuses_jobs_without_a_trace_and_gets_what_was_trained_meanwhile(disks: Disks) -> None:
    client = disks.service.client
    disks.slow()
    job_id = disks.service.submit(LONG)["id"]
    with Poller(disks.service, job_id) as poller:
        wait_for_epochs(disks.service, job_id, 2)
        with disks.room.filled(disks.rows):
            accepted, refused = fill_up(client)
            problem = refused.json()
            assert problem["type"].endswith("/database-away")
            assert "disk is full" in problem["detail"]
            assert int(refused.headers["Retry-After"]) > 0
            listed = client.get("/v1/jobs", params={"name": "crowd", "limit": 100})
            assert sorted(job["id"] for job in listed.json()["data"]) == sorted(accepted)
            before = wait_until_still(disks, job_id)
            trained = newest_checkpoint(disks, job_id)
            wait_until(lambda: newest_checkpoint(disks, job_id) > trained)
            assert len(disks.epochs(job_id)) == before
            assert disks.service.job(job_id)["status"] == "running"
        wait_for_epochs(disks.service, job_id, trained)
        answer = client.post("/v1/jobs", json={**SMALL, "name": "crowd"}, headers={"Idempotency-Key": "refused"})
        assert answer.status_code == 201
        assert disks.service.job(job_id)["attempt"] == 1
        assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
        disks.service.finish(job_id)
    disks.disarm("checkpoint.told")
    assert poller.violations == []
    assert disks.epochs(job_id) == list(range(1, disks.row(job_id)["epochs_done"] + 1))
    for one in [*accepted, answer.json()["id"]]:
        client.post(f"/v1/jobs/{one}/cancel")
        disks.service.finish(one)


def fill_up(client: httpx2.Client) -> tuple[list[str], httpx2.Response]:
    """Post jobs until the write-ahead log has used up its last free page; return those accepted, and the refusal."""
    accepted: list[str] = []
    for number in range(80):
        key = {"Idempotency-Key": f"crowd {number}"}
        body = {**SMALL, "name": "crowd", "metadata": {"text": "x" * 400}}
        answer = client.post("/v1/jobs", json=body, headers=key)
        if answer.status_code != 201:
            assert answer.status_code == 503, answer.text
            return accepted, answer
        accepted.append(answer.json()["id"])
    raise AssertionError("the full disk took 80 jobs")


def wait_until_still(disks: Disks, job_id: str) -> int:
    """Wait until no more rows are published; return how many there are."""
    seen: list[int] = []

    def is_still() -> bool:
        seen.append(len(disks.epochs(job_id)))
        return len(seen) > 4 and len(set(seen[-4:])) == 1

    wait_until(is_still, pause=0.5)
    return seen[-1]


def newest_checkpoint(disks: Disks, job_id: str) -> int:
    """Return the epoch of the newest checkpoint that the trainer has written."""
    names = [path.name for path in disks.room.path(disks.artifacts / "jobs" / job_id / "1").glob("checkpoint-*.pt")]
    return max((int(name.split("-")[1]) for name in names), default=0)


def upload(client: httpx2.Client, content: bytes, format: str, name: str) -> httpx2.Response:  # noqa: A002
    return client.post("/v1/datasets", files={"file": ("f", content)}, data={"format": format, "name": name})


def table(rows: int) -> bytes:
    return b"a,b,y\n" + b"".join(b"%d,%d,%d\n" % (n, n % 7, n % 2) for n in range(rows))


def archive() -> bytes:
    """Return an archive that a disk holds, but not together with what it unpacks to."""
    buffer = io.BytesIO()
    numbers = np.random.default_rng(1).integers(0, 256, (MIB, 13), np.uint8)
    np.savez(buffer, x=numbers[:, 1:], y=numbers[:, 0])
    return buffer.getvalue()


@pytest.mark.parametrize("disk", ["spool", "cache", "artifacts"])
def test_upload_to_a_full_disk_is_refused_and_leaves_nothing(disks: Disks, disk: str) -> None:
    client, content, name = disks.service.client, table(120_000), f"upload {disk}"
    before = files(disks, disks.artifacts), files(disks, disks.cache)
    with disks.room.filled(getattr(disks, disk)):
        answer = upload(client, content, "csv", name)
    assert answer.status_code == 507, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["type"].rpartition("/")[2], problem["status"]) == ("storage-full", 507)
    assert "disk of the service is full" in problem["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert (files(disks, disks.artifacts), files(disks, disks.cache)) == before
    assert name not in [one["name"] for one in client.get("/v1/datasets").json()["data"]]
    again = upload(client, content, "csv", name)
    assert (again.status_code, again.json()["version"]) == (201, 1)


def test_archive_that_unpacks_to_more_than_there_is_space_ends_no_process(disks: Disks) -> None:
    before = files(disks, disks.cache)
    answer = upload(disks.service.client, archive(), "npz", "noise")
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (507, "storage-full")
    assert disks.service.processes["api"].poll() is None
    assert files(disks, disks.cache) == before


def test_data_that_cannot_be_prepared_for_want_of_space_waits_for_it(disks: Disks) -> None:
    client = disks.service.client
    posted = upload(client, table(1000), "csv", "prepared")
    assert posted.status_code == 201, posted.text
    data = {"train": {"type": "dataset", "id": posted.json()["id"]}, "columns": {"target": "y"}}
    with disks.room.filled(disks.cache):
        job_id = disks.service.submit({**SMALL, "data": data})["id"]
        assert waits(disks, job_id, 1) == 60
    disks.do_not_wait(job_id)
    assert disks.service.finish(job_id)["status"] == "succeeded"

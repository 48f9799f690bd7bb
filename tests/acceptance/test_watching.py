"""What a client sees that polls while a job runs, and how it steers the job."""

import hashlib
import time
from typing import Any

import psutil
from sqlalchemy import select

from core.db.engine import Database
from core.db.tables import Job
from tests.service import Service, example, trainers_of, wait_until

LONG: dict[str, Any] = example("digits-early-stopping") | {"epochs": 100_000, "early_stopping": None}


def trainers(service: Service) -> list[psutil.Process]:
    """The processes that train."""
    return trainers_of(service.processes["worker-0"].pid)


def test_rows_appear_while_it_trains_and_never_change(service: Service) -> None:
    job_id = service.submit(example("cnn-augmented") | {"epochs": 12, "early_stopping": None})["id"]
    seen: dict[int, dict[str, Any]] = {}
    looks_while_running: set[int] = set()
    while True:
        job = service.job(job_id)
        rows = service.rows(job_id)
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        for row in rows:
            assert seen.setdefault(row["epoch"], row) == row
        if job["status"] == "running" and rows:
            looks_while_running.add(len(rows))
        if job["is_terminal"]:
            break
        time.sleep(0.05)
    assert job["status"] == "succeeded", job["error"]
    assert sorted(seen) == list(range(1, 13))
    assert len(looks_while_running) >= 2


def test_cancel_ends_the_trainer_and_frees_its_memory(service: Service) -> None:
    job_id = service.submit(LONG)["id"]
    wait_until(lambda: service.rows(job_id))
    [trainer] = trainers(service)
    assert service.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    trainer.wait(timeout=2)  # the promise: within 2 s
    job = service.finish(job_id, 10)
    assert (job["status"], job["stop_reason"]) == ("cancelled", "cancelled")
    assert service.client.post(f"/v1/jobs/{job_id}/cancel").status_code in (202, 409)


def test_pause_then_resume_gives_the_undisturbed_weights(service: Service) -> None:
    spec = example("cnn-augmented") | {"epochs": 8, "early_stopping": None}
    undisturbed = service.finish(service.submit(spec)["id"])
    job_id = service.submit(spec)["id"]
    wait_until(lambda: service.rows(job_id))
    assert service.client.post(f"/v1/jobs/{job_id}/pause").status_code == 202
    paused = wait_until(lambda: job if (job := service.job(job_id))["status"] == "paused" else None)
    assert 1 <= paused["progress"]["epoch"] < 8
    assert not trainers(service)
    assert service.client.post(f"/v1/jobs/{job_id}/resume").status_code == 202
    job = service.finish(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    assert [row["epoch"] for row in service.rows(job_id)] == list(range(1, 9))
    for name in ("model.safetensors", "last.safetensors"):
        assert service.artifact(job_id, name) == service.artifact(undisturbed["id"], name)


def test_job_goes_on_from_the_checkpoint_of_an_older_version(service: Service) -> None:
    """One that is published by its SHA-256; those that follow have a BLAKE3."""
    job_id = service.submit(example("cnn-augmented") | {"epochs": 8, "early_stopping": None})["id"]
    wait_until(lambda: service.rows(job_id))
    assert service.client.post(f"/v1/jobs/{job_id}/pause").status_code == 202
    paused = wait_until(lambda: job if (job := service.job(job_id))["status"] == "paused" else None)
    database = Database(f"sqlite:///{service.folder / 'data' / 'epochd.db'}")
    with database.session_scope() as session:
        row = session.scalars(select(Job).where(Job.id == job_id)).one()
        assert str(row.checkpoint_digest).startswith("blake3:")
        path = service.folder / "data" / "artifacts" / str(row.checkpoint_key)
        row.checkpoint_digest = hashlib.sha256(path.read_bytes()).hexdigest()
        row.previous_checkpoint = None
    assert service.client.post(f"/v1/jobs/{job_id}/resume").status_code == 202
    assert service.finish(job_id)["status"] == "succeeded"
    attempts = service.client.get(f"/v1/jobs/{job_id}/attempts").json()["data"]
    assert [one["from_epoch"] for one in attempts] == [0, paused["progress"]["epoch"]]
    with database.session_scope(write=False) as session:
        row = session.scalars(select(Job).where(Job.id == job_id)).one()
        assert str(row.checkpoint_digest).startswith("blake3:")
    database.dispose()


def test_waiting_poll_answers_when_the_next_row_is_there(service: Service) -> None:
    job_id = service.submit(example("cnn-augmented") | {"epochs": 3, "early_stopping": None})["id"]
    after, epochs = 0, []
    while len(epochs) < 3:
        answer = service.client.get(
            f"/v1/jobs/{job_id}/metrics", params={"after": after}, headers={"Prefer": "wait=30"}
        )
        assert answer.status_code == 200
        rows = answer.json()["data"]
        assert rows, "a waiting poll came back with nothing before the job ended"
        epochs += [row["epoch"] for row in rows]
        after = epochs[-1]
    assert epochs == [1, 2, 3]


def test_neither_api_nor_worker_has_loaded_torch(service: Service) -> None:
    service.finish(service.submit(example("digits-early-stopping") | {"epochs": 1})["id"])
    for name in ("api", "worker-0"):
        maps = [region.path for region in psutil.Process(service.processes[name].pid).memory_maps()]
        assert not [path for path in maps if "libtorch" in path or "sklearn" in path], name

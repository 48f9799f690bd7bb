"""What nothing points to goes, everything else stays; on both databases, in a folder and in an object store."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from core.db import datasets, jobs, leases
from core.db.clock import now
from core.db.engine import Database
from core.db.tables import DatasetVersion, Job
from core.errors import EpochdError
from core.retention.__main__ import collect
from core.settings import Settings
from core.storage import Storage
from tests.core.db import given
from tests.service import ROOT

DAY = 86400.0


class Deployment:
    """Rows and files as a service leaves them; nothing is too young to go."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.storage = Storage(settings.storage_url)
        self._scratch = settings.home / "scratch"
        self._scratch.mkdir(parents=True)

    def put(self, key: str, content: bytes = b"x" * 10) -> str:
        path = self._scratch / uuid.uuid4().hex
        path.write_bytes(content)
        self.storage.put_file(path, key)
        return key

    def files(self, prefix: str = "jobs") -> set[str]:
        return {file.key for file in self.storage.walk(prefix)}

    def gc(self, **options: Any) -> dict[str, int]:
        """Collect; return how many of each kind went."""
        report = collect(self.settings, options_of(**options))
        return {kind: tally["entries"] for kind, tally in report["kinds"].items() if tally["entries"]}

    def running(self) -> leases.Claim:
        return given.running(self.database)

    def publish(self, claim: leases.Claim, epoch: int) -> str:
        key = self.put(f"jobs/{claim.job_id}/{claim.fence}/kept/checkpoint-{epoch}.pt")
        given.publish(self.database, claim, epoch, key=key)
        return key

    def ended(self) -> tuple[str, set[str]]:
        """A job that succeeded; return its files that rows name, and its log."""
        claim = self.running()
        keys = {self.publish(claim, epoch) for epoch in (1, 2)}
        model = self.put(f"jobs/{claim.job_id}/{claim.fence}/model.safetensors")
        log = self.put(f"jobs/{claim.job_id}/{claim.fence}/trainer.log")
        artifact = leases.ArtifactFile(name="model.safetensors", key=model, sha256="0" * 64, size_bytes=10)
        given.finish(self.database, claim, artifacts=[artifact])
        return claim.job_id, {*keys, model, log}

    def upload(self, name: str, content: bytes) -> tuple[str, int, str]:
        sha256 = hashlib.sha256(content).hexdigest()
        key = self.put(f"datasets/default/{sha256}", content)
        new = datasets.NewVersion(
            format="csv", filename=None, key=key, sha256=sha256, size_bytes=len(content), profile={}
        )
        with self.database.session_scope() as session:
            dataset, version, _ = datasets.add_version(session, "default", name, new)
        return dataset.id, version.version, key

    def age(self, days: float) -> None:
        """Let every job have ended, and every version have come, so long ago."""
        with self.database.session_scope() as session:
            session.execute(update(Job).where(Job.finished_at.is_not(None)).values({"finished_at": now(-days * DAY)}))
            session.execute(update(DatasetVersion).values({"created_at": now(-days * DAY)}))


def options_of(**options: Any) -> Namespace:
    ordinary = {
        "dry_run": False, "force": False, "grace_seconds": 0.0, "unused_cache_seconds": 30 * DAY,
        "older_than_seconds": None, "unused_datasets_seconds": None,
    }  # fmt: skip
    return Namespace(**{**ordinary, **options})


@pytest.fixture(params=["folder", "memory"])
def deployment(
    request: pytest.FixtureRequest, database: Database, database_url: str, tmp_path: Path
) -> Iterator[Deployment]:
    place = str(tmp_path / "artifacts") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    settings = Settings(data_dir=tmp_path, database_url=database_url, artifacts_url=place)
    yield Deployment(database, settings)
    if request.param == "memory":
        Storage(place).delete_prefix("jobs")
        Storage(place).delete_prefix("datasets")


class TestJobs:
    def test_ended_job_keeps_what_its_rows_name_and_its_logs(self, deployment: Deployment) -> None:
        job_id, named = deployment.ended()
        deployment.put(f"jobs/{job_id}/1/checkpoint-9-90.pt")
        deployment.put(f"jobs/{job_id}/1/kept/checkpoint-0.pt")
        assert deployment.gc() == {"attempts": 2}
        assert deployment.files() == named
        assert deployment.gc() == {}

    def test_running_attempts_folder_is_not_touched(self, deployment: Deployment) -> None:
        claim = deployment.running()
        theirs = {deployment.put(f"jobs/{claim.job_id}/{claim.fence}/checkpoint-1-10.pt")}
        assert deployment.gc() == {}
        assert deployment.files() == theirs

    def test_earlier_attempts_of_a_live_job_keep_only_the_checkpoints_to_go_on_from(
        self, deployment: Deployment
    ) -> None:
        first = deployment.running()
        pointers = {deployment.publish(first, epoch) for epoch in (1, 2)}
        deployment.put(f"jobs/{first.job_id}/{first.fence}/checkpoint-3-30.pt")
        given.crash(deployment.database, first)
        second = given.claimed(deployment.database)
        begun = deployment.put(f"jobs/{first.job_id}/{second.fence}/checkpoint-3-30.pt")
        assert deployment.gc() == {"attempts": 1}
        assert deployment.files() == {*pointers, begun}

    def test_files_of_a_deleted_job_go_altogether(self, deployment: Deployment) -> None:
        deployment.ended()
        gone, _ = deployment.ended()
        with deployment.database.session_scope() as session:
            jobs.delete(session, given.PROJECT, gone)
        assert deployment.gc() == {"deleted_jobs": 4}
        assert not any(gone in key for key in deployment.files())
        assert gone not in deployment.storage.names("jobs")

    def test_what_is_younger_than_the_grace_stays(self, deployment: Deployment) -> None:
        job_id, named = deployment.ended()
        young = deployment.put(f"jobs/{job_id}/1/checkpoint-9-90.pt")
        assert deployment.gc(grace_seconds=3600.0) == {}
        assert deployment.files() == {*named, young}

    def test_rehearsal_counts_the_same_and_removes_nothing(self, deployment: Deployment) -> None:
        job_id, _ = deployment.ended()
        deployment.put(f"jobs/{job_id}/1/checkpoint-9-90.pt", b"x" * 123)
        before = deployment.files()
        report = collect(deployment.settings, options_of(dry_run=True))
        assert report["kinds"]["attempts"] == {"entries": 1, "bytes": 123}
        assert deployment.files() == before
        assert report["kinds"] == collect(deployment.settings, options_of())["kinds"]


class TestOnRequest:
    def test_only_jobs_that_ended_so_long_ago_are_deleted(self, deployment: Deployment) -> None:
        old, _ = deployment.ended()
        deployment.age(100)
        _, named = deployment.ended()
        claim = deployment.running()
        begun = deployment.put(f"jobs/{claim.job_id}/{claim.fence}/checkpoint-1-10.pt")
        assert deployment.gc(older_than_seconds=90 * DAY, dry_run=True) == {"expired_jobs": 1}
        assert deployment.gc(older_than_seconds=90 * DAY) == {"expired_jobs": 1}
        assert deployment.files() == {*named, begun}
        with deployment.database.session_scope(write=False) as session:
            assert old not in session.scalars(select(Job.id)).all()

    def test_versions_that_a_job_names_and_the_newest_stay(self, deployment: Deployment) -> None:
        dataset_id, _, unused = deployment.upload("a", b"1")
        _, version, used = deployment.upload("a", b"2")
        _, _, newest = deployment.upload("a", b"3")
        _, _, whole = deployment.upload("b", b"4")
        source = {"type": "dataset", "id": dataset_id, "version": version}
        given.queued(deployment.database, spec={"data": {"train": source}})
        deployment.age(100)
        assert deployment.gc() == {}
        assert deployment.gc(unused_datasets_seconds=200 * DAY) == {}
        assert deployment.gc(unused_datasets_seconds=90 * DAY, dry_run=True) == {"datasets": 2}
        assert deployment.gc(unused_datasets_seconds=90 * DAY) == {"datasets": 2}
        assert deployment.files("datasets") == {used, newest}
        assert {unused, whole}.isdisjoint(deployment.files("datasets"))

    def test_job_that_names_no_version_holds_all_of_them(self, deployment: Deployment) -> None:
        dataset_id, _, _ = deployment.upload("a", b"1")
        deployment.upload("a", b"2")
        given.queued(deployment.database, spec={"data": {"train": {"type": "dataset", "id": dataset_id}}})
        deployment.age(100)
        assert deployment.gc(unused_datasets_seconds=90 * DAY) == {}


class TestUploads:
    def test_file_without_a_row_goes_and_one_with_a_row_stays(self, deployment: Deployment) -> None:
        _, _, named = deployment.upload("a", b"1")
        deployment.put("datasets/default/" + "f" * 64)
        assert deployment.gc() == {"uploads": 1}
        assert deployment.files("datasets") == {named}

    def test_file_that_was_written_again_since_it_was_listed_stays(self, database: Database, tmp_path: Path) -> None:
        storage, source = Storage(str(tmp_path / "artifacts")), tmp_path / "source"
        source.write_bytes(b"again")
        storage.put_file(source, "datasets/default/a")
        (listed,) = storage.walk("datasets")
        os.utime(tmp_path / "artifacts" / listed.key, (0, 0))
        assert not storage.remove(listed)
        assert [file.key for file in storage.walk("datasets")] == [listed.key]
        (listed,) = storage.walk("datasets")
        assert storage.remove(listed)
        assert list(storage.walk("datasets")) == []


def test_database_that_knows_nothing_of_the_storage_is_refused(deployment: Deployment) -> None:
    deployment.put("jobs/job_of_another_database/1/model.safetensors")
    with pytest.raises(EpochdError, match="knows none of the jobs"):
        deployment.gc()
    assert deployment.files() == {"jobs/job_of_another_database/1/model.safetensors"}
    assert deployment.gc(force=True) == {"deleted_jobs": 1}


def test_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(EpochdError, match="There is no database"):
        collect(Settings(data_dir=tmp_path), options_of())
    assert list(tmp_path.iterdir()) == []


class TestThisMachine:
    def test_caches_that_were_not_used_for_long_go(self, sqlite_url: str, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path, database_url=sqlite_url)
        for name in ("old", "new"):
            folder = settings.caches / "data" / name
            folder.mkdir(parents=True)
            (folder / "meta.json").write_bytes(b"{}")
            if name == "old":
                os.utime(folder / "meta.json", (0, 0))
                os.utime(folder, (0, 0))
        kinds = collect(settings, options_of())["kinds"]
        assert kinds["caches"] == {"entries": 1, "bytes": 2}
        assert [path.name for path in (settings.caches / "data").iterdir()] == ["new"]

    def test_half_written_files_go_after_a_day(self, sqlite_url: str, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path, database_url=sqlite_url)
        incoming = settings.caches / "incoming"
        incoming.mkdir(parents=True)
        (incoming / ".upload-new").write_bytes(b"12345")
        (incoming / ".upload-old").write_bytes(b"12345")
        os.utime(incoming / ".upload-old", (time.time() - 2 * DAY,) * 2)
        assert collect(settings, options_of())["kinds"]["temporary"] == {"entries": 1, "bytes": 5}
        assert [path.name for path in incoming.iterdir()] == [".upload-new"]

    def test_work_folder_goes_when_its_attempt_is_over(self, database: Database, tmp_path: Path) -> None:
        settings = Settings(
            data_dir=tmp_path, database_url=str(database.engine.url.render_as_string(hide_password=False))
        )
        first = given.running(database)
        given.crash(database, first)
        second = given.claimed(database)
        for fence in (first.fence, second.fence):
            folder = settings.caches / "attempts" / first.job_id / str(fence)
            folder.mkdir(parents=True)
            (folder / "checkpoint-1-10.pt").write_bytes(b"x" * 7)
        assert collect(settings, options_of())["kinds"]["scratch"] == {"entries": 1, "bytes": 7}
        assert [path.name for path in (settings.caches / "attempts" / first.job_id).iterdir()] == [str(second.fence)]


def test_collecting_all_the_time_disturbs_no_job(database: Database, database_url: str, tmp_path: Path) -> None:
    """Claims, crashes, publications and deletions beside a collection without a grace: every named file stays."""
    settings = Settings(data_dir=tmp_path, database_url=database_url)
    deployment, is_over, failures = Deployment(database, settings), threading.Event(), list[Exception]()

    def collect_always() -> None:
        while not is_over.is_set():
            try:
                collect(settings, options_of(force=True))
            except Exception as error:  # noqa: BLE001 - told by the test
                failures.append(error)

    collecting = threading.Thread(target=collect_always)
    collecting.start()
    claims = []
    for _ in range(10):
        first = deployment.running()
        deployment.publish(first, 1)
        deployment.put(f"jobs/{first.job_id}/{first.fence}/checkpoint-2-20.pt")
        given.crash(deployment.database, first)
        second = given.claimed(deployment.database)
        deployment.publish(second, 2)
        claims.append(second)
    is_over.set()
    collecting.join()
    assert failures == []
    for claim in claims:
        job = given.read(database, claim.job_id)
        assert job.checkpoint_key is not None
        assert job.previous_checkpoint is not None
        assert deployment.storage.exists(job.checkpoint_key)
        assert deployment.storage.exists(job.previous_checkpoint["key"])
    collect(settings, options_of())
    assert deployment.files() == {key for claim in claims for key in named(given.read(database, claim.job_id))}, (
        "only what rows name is left"
    )


def named(job: Job) -> set[str]:
    return {str(job.checkpoint_key), str((job.previous_checkpoint or {})["key"])}


def test_it_is_a_program_that_prints_json(sqlite_url: str, tmp_path: Path) -> None:
    environment = {"EPOCHD_DATABASE_URL": sqlite_url, "EPOCHD_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "core.retention", "--dry-run"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    report = json.loads(ended.stdout)
    assert report["rehearsal"] is True
    assert report["kinds"]["attempts"] == {"entries": 0, "bytes": 0}

"""What is broken is found and told with numbers and advice; what is well is told as ok."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text, update

from core import versions
from core.db import migrate, workers
from core.db.clock import now
from core.db.engine import Database
from core.db.tables import Job
from core.doctor import broker, database, machine, storage
from core.doctor.__main__ import examine
from core.doctor.findings import Finding
from core.doctor.versions import constants, torch_build
from core.settings import GIB, Settings
from tests.core.db import given
from tests.servers import Redis
from tests.service import ROOT

Examined = dict[str, Finding]
Examine = Callable[..., Examined]


@pytest.fixture
def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Examine a deployment with these settings; return the findings by their check."""

    def examine_with(**settings: str) -> Examined:
        for name in [name for name in os.environ if name.startswith("EPOCHD_")]:
            monkeypatch.delenv(name)
        for name, value in {"data_dir": str(tmp_path), **settings}.items():
            monkeypatch.setenv(f"EPOCHD_{name.upper()}", value)
        findings = list(examine())
        assert len({finding.check for finding in findings}) == len(findings)
        assert all((finding.status == "ok") == (finding.advice is None) for finding in findings)
        return {finding.check: finding for finding in findings}

    return examine_with


def announced(opened: Database, name: str = "w", *, version: str | None = None) -> None:
    me = workers.Announcement(
        id=f"wk_{name}",
        name=name,
        host="h",
        pid=1,
        version=version or versions.own(),
        queues=["cpu"],
        devices=[],
        slots=2,
    )
    with opened.session_scope() as session:
        workers.announce(session, me)


def test_deployment_that_is_well_has_neither_error_nor_warning(
    examined: Examine, database: Database, database_url: str
) -> None:
    announced(database)
    found = examined(database_url=database_url)
    of_the_deployment = {name: one for name, one in found.items() if not name.startswith(("space.", "machine."))}
    assert [one for one in of_the_deployment.values() if one.status != "ok"] == []
    assert {
        "settings", "database.reachable", "database.revision", "database.clock", "database.write", "broker.reachable",
        "storage.usable", "space.data", "space.cache", "space.artifacts", "service.workers", "service.versions",
        "service.leases", "machine.python", "machine.torch", "machine.open_files", "machine.gpu",
    } <= found.keys()  # fmt: skip
    assert found["database.reachable"].numbers["round_trip_seconds"] > 0
    with database.session_scope(write=False) as session:
        assert [worker.name for worker in workers.listing(session)] == ["w"], "the written row was taken back"


class TestDatabase:
    def test_absent_file_is_an_error_and_is_not_made(self, examined: Examine, tmp_path: Path) -> None:
        found = examined()
        assert found["database.reachable"].status == "error"
        assert not (tmp_path / "epochd.db").exists()
        assert found["storage.usable"].status == "ok", "the other rooms are looked at all the same"

    def test_server_that_is_away_is_an_error(self, examined: Examine) -> None:
        found = examined(database_url="postgresql+psycopg://nobody@127.0.0.1:9/nothing")
        assert found["database.reachable"].status == "error"
        assert "127.0.0.1" in found["database.reachable"].found
        assert "database.write" not in found

    def test_empty_one_is_an_error(self, examined: Examine, empty_postgres_url: str) -> None:
        found = examined(database_url=empty_postgres_url)
        assert found["database.revision"].status == "error"
        assert "core.db.migrate" in (found["database.revision"].advice or "")

    def test_newer_one_is_an_error(self, examined: Examine, database: Database, database_url: str) -> None:
        with database.session_scope() as session:
            session.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'"))
        found = examined(database_url=database_url)["database.revision"]
        assert (found.status, found.numbers["database"]) == ("error", "9999")

    def test_damaged_file_is_an_error(self, examined: Examine, sqlite_url: str, tmp_path: Path) -> None:
        file = tmp_path / "epochd.db"
        with file.open("r+b") as opened:
            opened.seek(file.stat().st_size // 2)
            opened.write(os.urandom(8192))
        found = examined(database_url=sqlite_url)
        assert [one for one in found.values() if one.check.startswith("database") and one.status == "error"]

    @pytest.mark.parametrize(("kind", "status"), [("ext4", "ok"), ("nfs4", "warning"), ("cifs", "warning")])
    def test_network_file_system_is_a_warning(self, kind: str, status: str) -> None:
        assert database.judged_file_system(kind, Path("/x")).status == status

    @pytest.mark.parametrize(("seconds", "status"), [(0.1, "ok"), (-1.9, "ok"), (3.0, "warning"), (-3.0, "warning")])
    def test_clock_that_differs_is_a_warning(self, seconds: float, status: str) -> None:
        assert database.judged_clock(seconds).status == status

    def test_file_system_of_a_path_is_known(self, tmp_path: Path) -> None:
        assert database.file_system_of(tmp_path / "not" / "there") != "unknown"
        assert database.file_system_of(Path("/proc/self")) == "proc"


class TestBroker:
    def test_one_that_forgets_is_a_warning(self, private_redis: Callable[[], Redis]) -> None:
        server = private_redis()
        settings = Settings(broker_url=server.url)
        assert {one.check: one.status for one in broker.look(settings)} == {
            "broker.reachable": "ok", "broker.memory": "ok",
        }  # fmt: skip
        with server.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        (memory,) = [one for one in broker.look(settings) if one.check == "broker.memory"]
        assert (memory.status, memory.numbers["policy"]) == ("warning", "allkeys-lru")

    def test_one_that_is_away_is_an_error(self) -> None:
        (found,) = broker.look(Settings(broker_url="redis://127.0.0.1:9/0"))
        assert (found.check, found.status) == ("broker.reachable", "error")


class TestStorage:
    def test_place_that_cannot_be_written_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        found = {one.check: one for one in storage.look(Settings(artifacts_url=str(tmp_path / "file" / "folder")))}
        assert found["storage.usable"].status == "error"

    def test_probe_leaves_nothing(self, tmp_path: Path) -> None:
        found = {one.check: one for one in storage.look(Settings(data_dir=tmp_path))}
        assert found["storage.usable"].status == "ok"
        assert list((tmp_path / "artifacts").iterdir()) == []

    def test_object_store_is_probed_and_has_no_space_to_run_out_of(self) -> None:
        found = {one.check: one for one in storage.look(Settings(artifacts_url="memory://doctor"))}
        assert found["storage.usable"].status == "ok"
        assert "space.artifacts" not in found

    @pytest.mark.parametrize(
        ("free_bytes", "inodes", "status"),
        [(50 * GIB, 0.5, "ok"), (4 * GIB, 0.5, "warning"), (GIB // 2, 0.5, "error"), (50 * GIB, 0.005, "error")],
    )
    def test_little_space_is_told_before_there_is_none(self, free_bytes: int, inodes: float, status: str) -> None:
        found = storage.judged_space("data", Path("/x"), free_bytes, inodes)
        assert found.status == status
        assert found.numbers["free_bytes"] == free_bytes


class TestService:
    def test_queue_without_a_worker_is_an_error_and_one_with_is_not(
        self, examined: Examine, database: Database, database_url: str
    ) -> None:
        announced(database)
        given.queued(database)
        given.queued(database, queue="gpu")
        found = examined(database_url=database_url)
        assert found["service.queue.cpu"].status == "ok"
        assert found["service.queue.gpu"].status == "error"
        assert "EPOCHD_QUEUES=gpu" in (found["service.queue.gpu"].advice or "")

    def test_worker_of_another_version_is_a_warning(
        self, examined: Examine, database: Database, database_url: str
    ) -> None:
        announced(database, "old", version="0.0.1")
        found = examined(database_url=database_url)["service.versions"]
        assert (found.status, found.numbers["others"]) == ("warning", {"old": "0.0.1"})

    def test_lease_that_nobody_reaps_is_an_error(
        self, examined: Examine, database: Database, database_url: str
    ) -> None:
        claim = given.running(database)
        with database.session_scope() as session:
            session.execute(update(Job).where(Job.id == claim.job_id).values({"lease_until": now(-100.0)}))
        found = examined(database_url=database_url)
        assert (found["service.leases"].status, found["service.leases"].numbers["over"]) == ("error", 1)
        assert found["service.workers"].status == "warning"


class TestMachine:
    @pytest.mark.parametrize(
        ("version", "status"), [("2.15.0+cu132", "ok"), ("2.12.1", "warning"), ("2.9.0", "error"), (None, "error")]
    )
    def test_torch_is_compared_with_the_oldest_and_with_the_catalog(self, version: str | None, status: str) -> None:
        assert machine.judged_torch(version, "2.15").status == status

    @pytest.mark.parametrize(
        ("gpus", "cuda", "build", "wants_gpu", "status"),
        [
            ([], None, "13.2", False, "ok"),
            ([], None, "13.2", True, "warning"),
            (["H200 (139 GiB)"], 13020, "13.2", True, "ok"),
            (["H200 (139 GiB)"], 13020, "13.2", False, "ok"),
            (["H200 (139 GiB)"], 13020, None, True, "error"),
            (["H200 (139 GiB)"], 12040, "13.2", True, "error"),
        ],
    )
    def test_gpus_are_compared_with_torchs_build(
        self, gpus: list[str], cuda: int | None, build: str | None, wants_gpu: bool, status: str
    ) -> None:
        about = {"__version__": "2.15.0", "cuda": build}
        assert machine.judged_gpus(gpus, "580", cuda, about, wants_gpu=wants_gpu).status == status

    def test_torchs_build_is_read_from_its_file(self) -> None:
        source = "from typing import Optional\n__version__ = '2.15.0'\ncuda: Optional[str] = '13.2'\nhip: str = None\n"
        assert constants(source) == {"__version__": "2.15.0", "cuda": "13.2", "hip": None}
        assert "cuda" in torch_build()


def test_wrong_setting_is_named(examined: Examine) -> None:
    found = examined(slots="none")
    assert list(found) == ["settings"]
    assert found["settings"].status == "error"
    assert "EPOCHD_SLOTS" in found["settings"].found


def test_lease_that_one_late_heartbeat_loses_is_a_warning(examined: Examine) -> None:
    assert examined(lease_seconds="10", heartbeat_seconds="7.5")["settings"].status == "warning"


def test_it_is_a_program_without_torch_that_ends_with_1_for_an_error(tmp_path: Path, sqlite_url: str) -> None:
    code = "import sys; from core.doctor.__main__ import main; status = main(); assert 'torch' not in sys.modules; "
    for url, is_error in ((sqlite_url, False), ("sqlite:////nowhere/epochd.db", True)):
        environment = {"EPOCHD_DATA_DIR": str(tmp_path), "EPOCHD_DATABASE_URL": url, "PATH": os.environ["PATH"]}
        command = [sys.executable, "-c", f"{code}sys.exit(status)"]
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        found = {finding["check"]: finding["status"] for finding in map(json.loads, ended.stdout.splitlines())}
        assert (found["database.reachable"] == "error") == is_error, ended.stderr
        assert ended.returncode == int("error" in found.values())

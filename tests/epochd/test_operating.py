"""`epochd doctor`, `gc` and `backup` as people run them, beside the page's own test (tests/test_operate.py)."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from core.retention.bin import KINDS
from epochd.cli import app
from epochd.cli.operating import COLORS, UNITS, WORDS, seconds
from epochd.up import drain_seconds


def run(*arguments: str, **environment: str | None) -> Result:
    cleared: dict[str, str | None] = {"EPOCHD_URL": None, "EPOCHD_API_KEY": None, "EPOCHD_DATA_DIR": None}
    return CliRunner().invoke(app, list(arguments), env=cleared | environment, prog_name="epochd")


@pytest.fixture
def data_dir(sqlite_url: str) -> str:
    """The data folder of a service that has no worker."""
    return str(Path(sqlite_url.removeprefix("sqlite:///")).parent)


class TestDoctor:
    def test_tells_a_line_a_finding_and_a_sum(self, data_dir: str) -> None:
        result = run("doctor", "--data-dir", data_dir)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert any(line.startswith("ok      database.reachable: SQLite") for line in lines)
        assert any(line.startswith("warning service.workers: ") for line in lines)
        assert "→ Start one" in result.stdout
        assert lines[-1].endswith("0 error")

    def test_error_ends_with_1_and_is_in_the_json(self, tmp_path: Path) -> None:
        result = run("doctor", "--json", EPOCHD_DATA_DIR=str(tmp_path))
        report = json.loads(result.stdout)
        assert (result.exit_code, report["ok"]) == (1, False)
        statuses = {finding["check"]: finding["status"] for finding in report["findings"]}
        assert statuses["database.reachable"] == "error"
        assert set(statuses.values()) <= COLORS.keys()


class TestGc:
    def test_says_what_went_and_what_would_go(self, data_dir: str) -> None:
        folder = Path(data_dir) / "artifacts" / "jobs" / "job_that_is_gone" / "1"
        folder.mkdir(parents=True)
        (folder / "checkpoint-1-10.pt").write_bytes(b"x" * 2048)
        options = ("gc", "--grace", "0s", "--force", "--data-dir", data_dir)
        rehearsal = run(*options, "--dry-run")
        assert (rehearsal.exit_code, "would remove" in rehearsal.stdout) == (0, True), rehearsal.output
        assert folder.is_dir()
        done = json.loads(run(*options, "--json").stdout)
        assert done["kinds"]["deleted_jobs"] == {"entries": 1, "bytes": 2048}
        assert not folder.parent.exists()
        assert "there is nothing to remove" in run(*options).stdout

    def test_refusal_is_told_and_ends_with_1(self, tmp_path: Path) -> None:
        result = run("gc", "--data-dir", str(tmp_path))
        assert result.exit_code == 1
        assert "There is no database" in result.stderr

    @pytest.mark.parametrize("text", ["90", "d", "3 weeks", "-1d"])
    def test_what_is_no_time_ends_with_2(self, text: str) -> None:
        assert run("gc", f"--older-than={text}").exit_code == 2

    def test_times_are_read(self) -> None:
        assert [seconds(f"2{unit}") for unit in UNITS] == [2.0, 120.0, 7200.0, 172800.0]

    def test_every_kind_has_words(self) -> None:
        assert WORDS.keys() == set(KINDS)


class TestBackup:
    def test_makes_a_folder_that_can_be_served(self, tmp_path: Path, data_dir: str) -> None:
        result = run("backup", str(tmp_path / "backup"), "--data-dir", data_dir)
        assert result.exit_code == 0, result.output
        assert (tmp_path / "backup" / "epochd.db").is_file()
        looked: Any = json.loads(run("doctor", "--data-dir", str(tmp_path / "backup"), "--json").stdout)
        statuses = {finding["check"]: finding["status"] for finding in looked["findings"]}
        assert (statuses["database.revision"], statuses["database.integrity"]) == ("ok", "ok")

    def test_refusal_is_told_and_ends_with_1(self, tmp_path: Path) -> None:
        result = run("backup", str(tmp_path / "backup"), "--data-dir", str(tmp_path / "nothing"))
        assert result.exit_code == 1
        assert "There is no database" in result.stderr


@pytest.mark.parametrize(("grace", "expected"), [(None, 30.0), ("45", 55.0), ("wrong", 30.0)])
def test_up_waits_for_the_grace_of_its_workers(grace: str | None, expected: float) -> None:
    assert drain_seconds({} if grace is None else {"EPOCHD_STOP_GRACE_SECONDS": grace}) == expected

"""Every command against a real service."""

import csv
import hashlib
import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from core.db.engine import Database
from epochd.cli import app
from tests.core.db import given
from tests.epochd.answers import Answer, serving
from tests.service import ROOT, Service, example, wait_until

SHORT: dict[str, Any] = example("digits-early-stopping") | {"epochs": 3}
LONG: dict[str, Any] = example("digits-early-stopping") | {"epochs": 100_000, "early_stopping": None}
HOPELESS: dict[str, Any] = SHORT | {"optimizer": {"type": "SGD", "lr": 1e30}}
ADMIN = "epk_" + "a" * 40
WRONG: dict[str, Any] = SHORT | {"optimizer": {"type": "Adam", "learning_rate": 0.1}, "batch_size": "5"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def cli(service: Service) -> "Cli":
    return Cli(service.url)


class Cli:
    """Runs `epochd` in this process against one service."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *arguments: str, spec: Any = None) -> Result:
        text = json.dumps(spec) if isinstance(spec, dict) else spec
        environment = {"EPOCHD_URL": self.url, "EPOCHD_API_KEY": None, "COLUMNS": "200"}
        return CliRunner().invoke(app, list(arguments), input=text, env=environment, prog_name="epochd")

    def done(self, *arguments: str, spec: Any = None) -> str:
        """Run a command that must succeed; return what it printed."""
        result = self(*arguments, spec=spec)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str, spec: Any = None) -> Any:
        return json.loads(self.done(*arguments, "--json", spec=spec))

    def submitted(self, spec: dict[str, Any]) -> str:
        return self.done("submit", "-", spec=spec).strip()


@pytest.fixture(scope="module")
def trained(service: Service) -> str:
    """A short job that succeeded."""
    job_id = service.submit(SHORT | {"name": "trained"})["id"]
    assert service.finish(job_id)["status"] == "succeeded"
    return job_id


class TestSubmit:
    def test_prints_the_id_alone_and_what_to_do_next_beside_it(self, cli: Cli) -> None:
        result = cli("submit", "-", spec=SHORT)
        assert result.exit_code == 0
        assert result.stdout.startswith("job_")
        assert len(result.stdout.split()) == 1
        assert f"epochd watch {result.stdout.strip()}" in result.stderr

    def test_reads_a_file(self, cli: Cli) -> None:
        job = cli.json("submit", str(ROOT / "examples" / "digits-early-stopping.json"))
        assert job["name"] == "digits-mlp"

    def test_the_same_idempotency_key_answers_the_same_job(self, cli: Cli) -> None:
        first, second = (cli.done("submit", "-", "--idempotency-key", "once", spec=SHORT) for _ in range(2))
        assert first == second

    def test_watch_ends_with_0_and_a_closing_table_when_it_succeeded(self, cli: Cli) -> None:
        shown = cli.done("submit", "-", "--watch", spec=SHORT)
        assert [f"epoch {epoch}/3" for epoch in (1, 2, 3) if f"epoch {epoch}/3" in shown] == [
            "epoch 1/3", "epoch 2/3", "epoch 3/3",
        ]  # fmt: skip
        assert "succeeded, completed" in shown
        assert "did not stop it: patience used" in shown
        assert "model.safetensors" in shown

    def test_watch_ends_with_3_when_it_failed(self, cli: Cli) -> None:
        result = cli("submit", "-", "--watch", spec=HOPELESS)
        assert result.exit_code == 3
        assert "non_finite" in result.stdout

    def test_watch_as_json_prints_a_line_for_each_epoch_and_the_job_first_and_last(self, cli: Cli) -> None:
        lines = [json.loads(line) for line in cli.done("submit", "-", "--watch", "--json", spec=SHORT).splitlines()]
        submitted, *rows, ended = lines
        assert submitted["object"] == ended["object"] == "job"
        assert [row["epoch"] for row in rows] == [1, 2, 3]
        assert ended["status"] == "succeeded"


class TestBadInput:
    def test_each_problem_is_told_with_pointer_sentence_and_hint_and_exits_2(self, cli: Cli) -> None:
        result = cli("submit", "-", spec=WRONG)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "error at /optimizer/learning_rate: " in result.stderr
        assert "error at /batch_size: " in result.stderr
        assert "hint: " in result.stderr

    def test_as_json_the_problem_itself_is_printed(self, cli: Cli) -> None:
        result = cli("submit", "-", "--json", spec=WRONG)
        assert result.exit_code == 2
        problem = json.loads(result.stderr)
        assert problem["status"] == 422
        assert {error["pointer"] for error in problem["errors"]} >= {"/optimizer/learning_rate", "/batch_size"}

    def test_text_that_is_no_json_is_told_with_its_line(self, cli: Cli) -> None:
        result = cli("submit", "-", spec='{\n"epochs": }')
        assert result.exit_code == 2
        assert "line 2" in result.stderr

    def test_a_file_that_is_not_there_exits_2(self, cli: Cli) -> None:
        assert cli("submit", "/nowhere/spec.json").exit_code == 2

    def test_an_unknown_job_exits_1(self, cli: Cli) -> None:
        result = cli("show", "job_" + "0" * 32)
        assert result.exit_code == 1
        assert "error: " in result.stderr

    def test_a_service_that_is_away_exits_1_and_says_how_to_start_one(self) -> None:
        result = Cli("http://127.0.0.1:9")("ls")
        assert result.exit_code == 1
        assert "epochd up" in result.stderr


class TestPreflight:
    def test_a_good_spec_shows_its_layers_and_exits_0(self, cli: Cli) -> None:
        shown = cli.done("preflight", str(ROOT / "examples" / "digits-early-stopping.json"))
        assert "/model/layers/0" in shown
        assert "Linear" in shown
        assert "4,810" in shown, "64·64 + 64 + 64·10 + 10 parameters"
        assert "this spec can run" in shown

    def test_a_spec_that_cannot_run_exits_2(self, cli: Cli) -> None:
        layers = [{"type": "Linear", "in_features": 63, "out_features": 10}]
        result = cli("preflight", "-", spec=SHORT | {"model": {"type": "Sequential", "layers": layers}})
        assert result.exit_code == 2
        assert "/model/layers/0" in result.output

    def test_json_is_the_services_answer(self, cli: Cli) -> None:
        report = cli.json("preflight", "-", spec=SHORT)
        assert report["ok"] is True
        assert report["summary"]["parameters"] == 64 * 64 + 64 + 64 * 10 + 10


class TestReading:
    def test_ls_shows_jobs_and_filters_them(self, cli: Cli, trained: str) -> None:
        shown = cli.done("ls", "--name", "trained", "--status", "succeeded")
        assert trained in shown
        assert "3/3" in shown
        assert trained not in cli.done("ls", "--status", "failed")

    def test_ls_goes_on_after_a_job(self, cli: Cli, trained: str) -> None:
        cli.submitted(SHORT)
        result = cli("ls", "--limit", "1")
        newest = json.loads(cli.done("ls", "--limit", "1", "--json"))["data"][0]["id"]
        assert f"epochd ls --after {newest}" in result.stderr
        assert newest not in cli.done("ls", "--after", newest)

    def test_show_tells_how_it_ended(self, cli: Cli, trained: str) -> None:
        shown = cli.done("show", trained)
        assert "succeeded" in shown
        assert "best" in shown
        assert cli.json("show", trained)["id"] == trained

    def test_metrics_shows_every_epoch(self, cli: Cli, trained: str) -> None:
        lines = cli.done("metrics", trained).splitlines()
        assert [line.split()[0] for line in lines] == ["epoch", "1", "2", "3"]
        assert [row["epoch"] for row in cli.json("metrics", trained)["data"]] == [1, 2, 3]

    def test_metrics_as_csv_is_csv(self, cli: Cli, trained: str) -> None:
        rows = list(csv.DictReader(io.StringIO(cli.done("metrics", trained, "--csv"))))
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]

    def test_csv_and_json_together_are_refused(self, cli: Cli, trained: str) -> None:
        assert cli("metrics", trained, "--csv", "--json").exit_code == 2

    def test_logs_prints_text(self, cli: Cli, trained: str) -> None:
        cli.done("logs", trained)

    def test_code_prints_a_script(self, cli: Cli, trained: str) -> None:
        assert "optimizer.step()" in cli.done("code", trained)

    def test_watching_a_job_that_has_ended_shows_its_rows_and_exits_0(self, cli: Cli, trained: str) -> None:
        assert "epoch 3/3" in cli.done("watch", trained)


class TestDownload:
    def test_one_artifact_comes_whole(self, cli: Cli, trained: str, service: Service, tmp_path: Path) -> None:
        cli.done("download", trained, "model.safetensors", "--to", str(tmp_path))
        content = (tmp_path / "model.safetensors").read_bytes()
        listed = service.client.get(f"/v1/jobs/{trained}/artifacts").json()["data"]
        recorded = {artifact["name"]: artifact["sha256"] for artifact in listed}
        assert hashlib.sha256(content).hexdigest() == recorded["model.safetensors"]

    def test_without_a_name_all_come(self, cli: Cli, trained: str, tmp_path: Path) -> None:
        cli.done("download", trained, "--to", str(tmp_path))
        assert {path.name for path in tmp_path.iterdir()} == {
            "model.safetensors", "last.safetensors", "spec.json", "manifest.json",
        }  # fmt: skip

    def test_an_unknown_name_says_what_there_is(self, cli: Cli, trained: str, tmp_path: Path) -> None:
        result = cli("download", trained, "model.pt", "--to", str(tmp_path))
        assert result.exit_code == 1
        assert "model.safetensors" in result.stderr
        assert list(tmp_path.iterdir()) == []


class TestSteering:
    def test_a_running_job_is_paused_resumed_and_cancelled_and_watch_exits_4(self, cli: Cli, service: Service) -> None:
        job_id = cli.submitted(LONG)
        wait_until(lambda: service.rows(job_id))
        cli.done("pause", job_id)
        wait_until(lambda: service.job(job_id)["status"] == "paused")
        epochs = service.job(job_id)["progress"]["epoch"]
        assert job_id in cli.done("resume", job_id)
        wait_until(lambda: service.job(job_id)["progress"]["epoch"] > epochs)
        cli.done("cancel", job_id)
        assert cli("watch", job_id).exit_code == 4

    def test_what_is_not_possible_exits_1_and_says_what_is(self, cli: Cli, trained: str) -> None:
        result = cli("pause", trained)
        assert result.exit_code == 1
        assert "error: " in result.stderr


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for a key."""
    with Service(tmp_path_factory.mktemp("closed"), {"EPOCHD_API_KEY": ADMIN}, workers=0) as running:
        yield running


class TestKeys:
    def test_without_a_key_it_exits_1_and_asks_for_one(self, closed: Service) -> None:
        result = Cli(closed.url)("ls")
        assert result.exit_code == 1
        assert "key" in result.stderr

    def test_a_key_is_made_used_listed_and_revoked(self, closed: Service) -> None:
        cli, admin = Cli(closed.url), ("--key", ADMIN)
        made = cli("keys", "create", "alice", "--project", "alice", "--scope", "jobs:read", *admin)
        secret = made.stdout.strip()
        assert secret.startswith("epk_")
        cli.done("ls", "--key", secret)
        listed = cli.json("keys", "ls", *admin)["data"]
        (key_id,) = [key["id"] for key in listed if key["name"] == "alice"]
        assert secret not in json.dumps(listed)
        cli.done("keys", "revoke", key_id, *admin)
        assert cli("ls", "--key", secret).exit_code == 1
        assert "revoked" in cli.done("keys", "ls", *admin)

    def test_a_key_without_the_scope_may_not(self, closed: Service) -> None:
        cli = Cli(closed.url)
        reader = cli.done("keys", "create", "bob", "--scope", "jobs:read", "--key", ADMIN).strip()
        assert cli("submit", "-", "--key", reader, spec=SHORT).exit_code == 1


class TestRemoteDoctor:
    def test_says_what_the_api_tells(self, closed: Service) -> None:
        database = Database(f"sqlite:///{closed.folder / 'data' / 'epochd.db'}")
        given.queued(database)
        database.dispose()
        result = Cli(closed.url)("doctor", "--url", closed.url, "--key", ADMIN, "--json")
        found = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
        assert {check: finding["status"] for check, finding in found.items()} == {
            "service.ready": "ok", "service.version": "ok", "service.workers": "warning", "service.queue.cpu": "error",
        }  # fmt: skip
        assert result.exit_code == 1

    def test_asks_for_a_key(self, closed: Service) -> None:
        result = Cli(closed.url)("doctor", "--url", closed.url)
        assert result.exit_code == 1
        assert "error   service.key" in result.stdout
        assert "--key" in result.stdout

    def test_service_that_is_away_is_an_error(self) -> None:
        result = Cli("http://127.0.0.1:9")("doctor", "--url", "http://127.0.0.1:9")
        assert result.exit_code == 1
        assert "error   service.reachable" in result.stdout

    def test_database_that_is_away_is_told_as_the_api_does(self) -> None:
        problem = {"type": "https://x/database-away", "title": "Database not reachable", "detail": "it is away"}
        with serving(Answer(503, problem)) as server:
            result = Cli(server.url)("doctor", "--url", server.url)
        assert result.exit_code == 1
        assert "not ready: it is away" in result.stdout


def test_a_watch_survives_a_killed_and_restarted_api(service: Service) -> None:
    job_id = service.submit(example("cnn-augmented") | {"epochs": 8, "early_stopping": None})["id"]
    results: list[Result] = []
    watching = threading.Thread(target=lambda: results.append(Cli(service.url)("watch", job_id)))
    watching.start()
    wait_until(lambda: service.rows(job_id))
    service.kill("api")
    service.start("api")
    watching.join(180)
    service.wait_ready()
    assert results[0].exit_code == 0, results[0].output
    shown = [line.split()[1] for line in results[0].stdout.splitlines() if line.startswith("epoch ")]
    assert shown == [f"{epoch}/8" for epoch in range(1, 9)]


def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(service: Service) -> None:
    job_id = service.submit(LONG)["id"]
    ours = [sys.executable, "-m", "epochd", "watch", job_id, "--url", service.url]
    command = ["env", "--default-signal=INT", *ours]  # a test run in the background ignores it, and hands that on
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        assert watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert f"epochd cancel {job_id}" in said
    assert not service.job(job_id)["is_terminal"]
    service.client.post(f"/v1/jobs/{job_id}/cancel")


def test_the_command_line_imports_neither_torch_nor_the_server() -> None:
    code = "import sys, epochd.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"torch", "numpy", "sqlalchemy", "fastapi", "celery", "api", "worker"}.isdisjoint(loaded.split())


def test_the_verbs_of_the_contract_are_there() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for verb in (
        "up",
        "submit",
        "watch",
        "ls",
        "show",
        "metrics",
        "cancel",
        "pause",
        "resume",
        "preflight",
        "download",
        "doctor",
        "gc",
        "backup",
    ):
        assert f"\n  {verb} " in shown

"""docs/howto/operate.md as an operator follows it: its commands, beside a job that runs all the while."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.service import QUICK, ROOT, WITH_US, example, free_port, wait_until
from tests.test_readme import BIN, environment
from worker.outcome import ADVICE

PAGE = (ROOT / "docs" / "howto" / "operate.md").read_text()
BLOCKS = re.findall(r"(?:<!-- (.*?) -->\n)?^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(SERVE,) = [text for mark, _, text in BLOCKS if mark == "run: service"]
(SERVE_RESTORED,) = [text for mark, _, text in BLOCKS if mark == "run: restored"]
COMMANDS = [text for mark, _, text in BLOCKS if mark == "run"]
SECRET = "epk_" + "o" * 40
MODEL = "model.safetensors"
SPEC = example("digits-early-stopping") | {
    "epochs": 40, "batch_size": 8, "early_stopping": None, "checkpoints": {"every": {"epochs": 1}}, "seed": 5,
    "execution": {"device": "cpu", "threads": 1},
}  # fmt: skip


class Operator:
    """Runs what the page says; `/tmp`, `/backup` and `/restored` are folders of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults = folder / "faults"
        for name in ("faults", "tmp", "backup"):
            (folder / name).mkdir()

    def text(self, command: str) -> str:
        return re.sub(r"/(tmp|backup|restored)\b", rf"{self.folder}/\1", command)

    def environment(self, port: int) -> dict[str, str]:
        own = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "EPOCHD_URL": f"http://127.0.0.1:{port}",
            "EPOCHD_PORT": str(port),
            "EPOCHD_API_KEY": SECRET,
            "EPOCHD_DATA_DIR": str(self.folder / "data"),
        }
        return environment(**QUICK, **own)

    def run(self, command: str, port: int) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.text(command)], cwd=ROOT, env=self.environment(port),
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def serving(self, command: str, port: int, **more: str) -> Iterator[httpx2.Client]:
        log = self.folder / f"up-{port}.log"
        with log.open("wb") as output:
            up = subprocess.Popen(
                [*WITH_US, "bash", "-c", f"exec {self.text(command)}"], cwd=ROOT,
                env=self.environment(port) | more, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            wait_until(lambda: "1 worker ready" in log.read_text())
            header = {"Authorization": f"Bearer {SECRET}"}
            with httpx2.Client(
                base_url=f"http://127.0.0.1:{port}", headers=header, timeout=60, trust_env=False
            ) as client:
                yield client
        finally:
            up.terminate()
            assert up.wait(90) == 0, log.read_text()


def finished(client: httpx2.Client, job_id: str) -> bytes:
    """Wait for the end of a job and return its model."""
    job = wait_until(lambda: job if (job := client.get(f"/v1/jobs/{job_id}").json())["is_terminal"] else None, 180)
    assert job["status"] == "succeeded", job
    return client.get(f"/v1/jobs/{job_id}/artifacts/{MODEL}").content


def stand_still(operator: Operator, client: httpx2.Client) -> str:
    """Submit a job that has some epochs, and then waits in the middle of one."""
    job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
    wait_until(lambda: client.get(f"/v1/jobs/{job_id}/metrics").json()["data"])
    (operator.faults / "armed").write_text("wait")
    (operator.faults / "armed").rename(operator.faults / "epoch.finished")
    wait_until((operator.faults / "epoch.finished.fired").exists)
    return job_id


@pytest.mark.timeout(600)
def test_operator_looks_collects_backs_up_and_restores_while_jobs_run(tmp_path: Path) -> None:
    operator, port = Operator(tmp_path), free_port()
    with operator.serving(SERVE, port, EPOCHD_FAULTS=str(operator.faults)) as client:
        ended = client.post("/v1/jobs", json=SPEC | {"epochs": 2}).json()["id"]
        model = finished(client, ended)
        told = client.get("/metrics").text
        for command in COMMANDS[:-2]:
            operator.run(command, port)
        running = stand_still(operator, client)
        for command in COMMANDS[-2:]:
            operator.run(command, port)
        (operator.faults / "epoch.finished.go").touch()
        assert client.get(f"/v1/jobs/{ended}/artifacts/{MODEL}").content == model
        undisturbed = finished(client, running)
    families = {family.name for family in text_string_to_metric_families(told)}
    on_the_page = set(re.findall(r"\bepochd_[a-z_]+", PAGE.partition("## When jobs fail")[0]))
    assert {name.removesuffix("_total") for name in on_the_page} <= families
    assert '"ok": true' in (tmp_path / "tmp" / "doctor.json").read_text()
    assert "epochd_jobs" in (tmp_path / "tmp" / "metrics.txt").read_text()

    with operator.serving(SERVE_RESTORED, free_port()) as client:
        assert client.get(f"/v1/jobs/{ended}/artifacts/{MODEL}").content == model
        assert finished(client, running) == undisturbed
        rows = client.get(f"/v1/jobs/{running}/metrics", params={"limit": 1000}).json()["data"]
        epochs = [row["epoch"] for row in rows]
        assert epochs == list(range(1, SPEC["epochs"] + 1))
        first, second = client.get(f"/v1/jobs/{running}/attempts").json()["data"]
        assert (first["outcome"], second["outcome"]) == ("lost", "succeeded")
        assert second["from_epoch"] > 0


def test_every_alert_is_a_rule_about_our_metrics() -> None:
    (text,) = [text for _, language, text in BLOCKS if language == "yaml"]
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert rule.keys() <= {"alert", "expr", "for"}
        assert re.search(r"\b(epochd_\w+|up)\b", rule["expr"])
        assert all(rule["expr"].count(opened) == rule["expr"].count(closed) for opened, closed in ("()", "{}", "[]"))


def test_every_command_is_run_or_says_why_not() -> None:
    for mark, language, text in BLOCKS:
        assert language == "yaml" or mark.startswith(("run", "not run by tests/test_operate.py: ")), text


@pytest.mark.parametrize("code", [*ADVICE, "lost", "drained", "outage", "poison"])
def test_every_failure_code_says_what_to_do(code: str) -> None:
    table = PAGE.partition("## When jobs fail")[2].partition("\n## ")[0]
    (row,) = [line for line in table.splitlines() if line.startswith("|") and f"`{code}`" in line.split("|")[1]]
    assert row.split("|")[4].strip()

"""The first attempt decides the numerics of a job: later ones use its threads, whatever their worker would choose."""

import contextlib
import copy
import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.messages import Stopped
from tests.core.train.attempts import SPEC, Job
from tests.faults.harness import wait_for_epochs
from tests.service import Service, wait_until

LAYERS = [
    {"type": "Linear", "out_features": 256}, "BatchNorm1d", "ReLU", {"type": "Dropout", "p": 0.25},
    {"type": "Linear", "out_features": 256}, "ReLU", {"type": "Linear", "out_features": 3},
]  # fmt: skip
WIDE: dict[str, Any] = {
    **SPEC,
    "model": {"type": "Sequential", "layers": LAYERS},
    "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
    "gradient_clipping": {"max_norm": 0.1},
}
"""A layer so large that two threads share the sum under its gradient's norm: clipped by it, all weights differ."""


def asking_for(threads: int | None) -> dict[str, Any]:
    return {**copy.deepcopy(WIDE), "execution": {"device": "cpu", **({"threads": threads} if threads else {})}}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_threads_decide_the_bits_and_a_resume_has_those_of_the_first_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.train.watch.POLL_SECONDS", 0.0)
    outcomes = []
    for number in (1, 2):
        whole = Job(asking_for(number), tmp_path / f"whole-{number}")
        whole.attempt()
        outcomes.append(whole.outcome())
        stopped = Job(asking_for(None), tmp_path / f"stopped-{number}")
        assert isinstance(stopped.attempt(stop_at=6, threads=number).last, Stopped)  # as the worker is set up
        torch.set_num_threads(3 - number)
        second = stopped.attempt().started
        assert second.warnings == stopped.attempts[0].started.warnings
        assert second.numerics["threads"] == number
        assert torch.get_num_threads() == number
        assert stopped.outcome() == whole.outcome()
    assert outcomes[0]["weights"] != outcomes[1]["weights"], "the model is meant to be one where threads matter"


LONG = {**asking_for(None), "epochs": 40, "batch_size": 4}


def decisions(service: Service, job_id: str) -> list[dict[str, Any]]:
    return list(service.client.get(f"/v1/jobs/{job_id}/decisions", params={"limit": 1000}).json()["data"])


def threads_of(service: Service, job_id: str) -> list[int]:
    """Return the threads of every attempt, as the job's events tell."""
    events = service.client.get(f"/v1/jobs/{job_id}/events", params={"limit": 1000}).json()["data"]
    return [event["data"]["numerics"]["threads"] for event in events if event["type"] == "job.started"]


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("threads")
def test_a_worker_with_other_threads_goes_on_with_the_first_ones_and_a_change_is_recorded(tmp_path: Path) -> None:
    with Service(tmp_path, {"EPOCHD_THREADS": "1"}) as service:
        job_id = service.submit(LONG)["id"]
        wait_for_epochs(service, job_id, 2)
        assert service.client.post(f"/v1/jobs/{job_id}/pause").status_code == 202
        wait_until(lambda: service.job(job_id)["status"] == "paused")
        first = begin_elsewhere(service, job_id)

        service.signal("worker-0", signal.SIGTERM)
        assert service.processes["worker-0"].wait(60) == 0
        service.environment |= {"EPOCHD_THREADS": "2", "OMP_NUM_THREADS": "2"}
        service.start("worker-0")
        assert service.client.post(f"/v1/jobs/{job_id}/resume").status_code == 202
        whole = Job({**LONG, "execution": {"device": "cpu", "threads": 1}}, tmp_path / "whole")
        whole.attempt()
        assert service.finish(job_id)["status"] == "succeeded", service.log("worker-0")
        assert threads_of(service, job_id) == [1, 1]
        assert service.artifact(job_id, "model.safetensors") == whole.artifact("model.safetensors")

        (change,) = [found for found in decisions(service, job_id) if found["kind"] == "numerics_changed"]
        assert change["attempt"] == 2
        assert change["before"] == first
        assert change["now"] == {**first, "isa": torch.backends.cpu.get_cpu_capability()}


def begin_elsewhere(service: Service, job_id: str) -> dict[str, Any]:
    """Make a job one that began on another kind of processor; return its first fingerprint."""
    with contextlib.closing(sqlite3.connect(service.folder / "data" / "epochd.db", timeout=30)) as connection:
        connection.execute("UPDATE jobs SET numerics = json_set(numerics, '$.isa', 'OTHER') WHERE id = ?", (job_id,))
        connection.commit()
        ((first,),) = connection.execute("SELECT numerics FROM jobs WHERE id = ?", (job_id,)).fetchall()
    numerics: dict[str, Any] = json.loads(first)
    assert numerics["isa"] == "OTHER"
    return numerics

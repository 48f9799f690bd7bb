"""How long a user waits: for a report, for the first update, for the end of a short job, for the service itself.

    .venv/bin/python -m bench.start jobs      [--engine sqlite]   POST to the first update, and to the end of 5 epochs
    .venv/bin/python -m bench.start many      [--engine sqlite]   jobs per second with two slots
    .venv/bin/python -m bench.start preflight [--engine sqlite]   of each example
    .venv/bin/python -m bench.start api       [--engine sqlite]   process start to ready, and its memory
    .venv/bin/python -m bench.start sets                          mapping a set that was read before

A job is digits-early-stopping with 5 epochs. Its rivals do what a service without a warm template does: a fresh Python
process that imports torch and trains the same model with a plain loop, and the same behind Ray's job submission where
`.venv-rivals` has Ray. They take turns; a job that is timed comes to a service at rest. The client polls every 2 ms on
the same cores: what it sees, a user sees. PostgreSQL comes with Redis, as in the compose file; SQLite without, as in
`epochd up`.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.measuring import arguments, quantile, ratio, report, seconds, times
from bench.serving import Deployment, services
from core import datasets
from core.spec.job import Component
from tests.service import ROOT, example, trainers_of

EXAMPLES = ("digits-early-stopping", "diabetes-regression", "cnn-augmented", "resnet18-digits")
PAUSES = (0.5, 0.0)
"""Seconds before a spec is sent: a person does not send one right behind another, a script that sweeps does."""
FRESH = """
import torch
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(7)
x, y = load_digits(return_X_y=True)
x, y = torch.from_numpy(StandardScaler().fit_transform(x)).float(), torch.from_numpy(y)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
optimizer, loss_fn = torch.optim.Adam(model.parameters(), lr=0.003), nn.CrossEntropyLoss()
for epoch in range(5):
    for batch in torch.randperm(1258).split(64):
        optimizer.zero_grad()
        loss_fn(model(x[batch]), y[batch]).backward()
        optimizer.step()
"""
RAY = """
import sys, time
import ray
from ray.job_submission import JobStatus, JobSubmissionClient
ray.init(num_cpus=2, include_dashboard=True, log_to_driver=False)
client = JobSubmissionClient("http://" + ray.get_runtime_context().worker.node.address_info["webui_url"])
print("ready", flush=True)
for line in sys.stdin:
    begun = time.perf_counter()
    environment = {"env_vars": {"FRESH": sys.argv[2]}}
    job = client.submit_job(entrypoint=f"{sys.argv[1]} -c \\"$FRESH\\"", runtime_env=environment)
    while client.get_job_status(job) not in {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}:
        time.sleep(0.05)
    assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)
    print(time.perf_counter() - begun, flush=True)
"""
RAYS_PYTHON = ROOT / ".venv-rivals" / "bin" / "python"
LOOK_SECONDS = 0.002


def short() -> dict[str, Any]:
    """Return the digits job with 5 epochs and nothing that ends it earlier."""
    spec = example("digits-early-stopping") | {"epochs": 5}
    del spec["early_stopping"]
    return spec


def follow(service: Deployment, spec: dict[str, Any]) -> tuple[float, float]:
    """Post a job; return the seconds until its first update was seen, and until its end."""
    begun = time.perf_counter()
    job, first = service.submit(spec), None
    while not job["is_terminal"]:
        time.sleep(LOOK_SECONDS)
        job = service.job(job["id"])
        if first is None and (job["progress"] or {}).get("step"):
            first = time.perf_counter() - begun
    whole = time.perf_counter() - begun
    if job["status"] != "succeeded":
        raise RuntimeError(job["error"])
    return whole if first is None else first, whole


@contextlib.contextmanager
def warm(engine: str, slots: int = 1) -> Iterator[Deployment]:
    """Start a service with a worker that has trained."""
    with services(engine) as (service,):
        service.environment["EPOCHD_SLOTS"] = str(slots)
        service.warm()
        service.start("worker-0")
        for _ in range(3):
            follow(service, short())
        yield service


@contextlib.contextmanager
def ray_submission() -> Iterator[Callable[[], float] | None]:
    """Start Ray; yield what submits the fresh process to it and returns the seconds, None where there is no Ray."""
    has_ray = (
        RAYS_PYTHON.exists()
        and not subprocess.run(
            [RAYS_PYTHON, "-c", "import ray.job_submission"], capture_output=True, check=False
        ).returncode
    )
    if not has_ray:
        yield None
        return
    command = [str(RAYS_PYTHON), "-c", RAY, sys.executable, FRESH]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ray:
        asked, told = ray.stdin, ray.stdout
        assert asked is not None
        assert told is not None
        try:
            while told.readline() not in {"ready\n", ""}:
                pass

            def submit() -> float:
                asked.write("\n")
                asked.flush()
                return float(told.readline())

            yield submit
        finally:
            ray.terminate()


def measure_jobs(asked: argparse.Namespace) -> None:
    count, every = (6, 3) if asked.quick else (asked.jobs, max(1, asked.jobs // 5))
    fresh = [sys.executable, "-c", FRESH]
    ours: list[tuple[float, float]] = []
    by_fresh: list[float] = []
    with warm(asked.engine) as service:
        for number in range(count):
            time.sleep(PAUSES[0])
            ours.append(follow(service, short()))
            if number % every == 0:
                by_fresh.append(seconds(lambda: subprocess.run(fresh, check=True)))
        beside_ray, by_ray = in_turn_with_ray(service, rounds=count // every)
    first, whole = zip(*ours, strict=True)
    rows = [
        {"what": "POST to the first update", **times([first])},
        {"what": "POST to terminal", **times([whole])},
        {"what": "a fresh process, the same training", **times([by_fresh]), **ratio(by_fresh, whole[::every])},
    ]
    if by_ray:
        rows.append({"what": "the same, submitted to Ray", **times([by_ray]), **ratio(by_ray, beside_ray)})
    report("start", rows, engine=asked.engine)


def in_turn_with_ray(service: Deployment, rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of our jobs and of Ray's, in turn; apart from the rest, as its daemons never rest."""
    with ray_submission() as submit:
        if submit is None:
            return [], []
        pairs = [(follow(service, short())[1], submit()) for _ in range(rounds)]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def measure_many(asked: argparse.Namespace) -> None:
    count = 12 if asked.quick else 200
    with warm(asked.engine, slots=2) as service:
        begun = time.perf_counter()
        ids = [service.submit(short())["id"] for _ in range(count)]
        posted = time.perf_counter() - begun
        private: list[float] = []
        while not all(service.job(job_id)["is_terminal"] for job_id in ids[-2:]):
            private += private_mib(service)
            time.sleep(0.2)
        for job_id in ids:
            assert service.finish(job_id)["status"] == "succeeded"
        whole = time.perf_counter() - begun
    row = {
        "jobs": count,
        "posted in s": round(posted, 1),
        "done in s": round(whole, 1),
        "jobs_per_second": round(count / whole, 2),
        "trainer, private MiB, p50": round(quantile(private, 0.5), 1),
        "most": round(max(private), 1),
    }
    report("start", [row], engine=asked.engine, slots=2)


def private_mib(service: Deployment) -> list[float]:
    """Return the memory that each trainer has of its own: the pages that it wrote, not those that it maps."""
    found: list[float] = []
    for trainer in trainers_of(service.processes["worker-0"].pid):
        with contextlib.suppress(OSError):  # it has ended
            lines = Path(f"/proc/{trainer.pid}/smaps_rollup").read_text().splitlines()
            found += [int(line.split()[1]) / 1024 for line in lines if line.startswith("Private_Dirty:")]
    return found


def measure_preflight(asked: argparse.Namespace) -> None:
    values: dict[tuple[str, float], list[float]] = {(name, pause): [] for pause in PAUSES for name in EXAMPLES}
    with services(asked.engine) as (service,):
        service.warm()
        for number in range(5 if asked.quick else 50):
            for (name, pause), found in values.items():
                seed = 2 * number + (pause > 0)  # a spec that passed a moment ago is not built again
                ask = partial(service.client.post, "/v1/preflight", json=example(name) | {"seed": seed})
                time.sleep(pause)
                found.append(seconds(ask))
                assert ask().json()["ok"]
    rows = [{"what": name, "pause, s": pause, **times([found])} for (name, pause), found in values.items()]
    report("start", rows, engine=asked.engine)


def measure_api(asked: argparse.Namespace) -> None:
    started: list[float] = []
    resident: list[float] = []
    with services(asked.engine) as (service,):
        service.warm()
        for _ in range(2 if asked.quick else 7):
            service.processes["api"].terminate()
            service.processes["api"].wait(60)
            begun = time.perf_counter()
            service.start("api")
            service.wait_ready()
            started.append(time.perf_counter() - begun)
            service.warm()
            resident.append(service.rss("api"))
    row = {"what": "process start to ready", **times([started]), "resident MiB": statistics.median(resident)}
    report("start", [row], engine=asked.engine)


def measure_sets(asked: argparse.Namespace) -> None:

    folder = ROOT.parent / "shared" / "data"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as caches:
        for name in ("sklearn.digits", "torchvision.MNIST"):
            source = Component(type=name)
            load = partial(datasets.load, source, datasets_dir=folder, cache_dir=Path(caches), uploads={})
            if name == "torchvision.MNIST" and not (folder / "MNIST").exists():
                continue
            first = seconds(load)
            again = [seconds(load) for _ in range(3 if asked.quick else 50)]
            rows.append({"what": name, "first ms": round(1000 * first, 1), **times([again])})
    report("start", rows)


def main() -> None:
    parser = arguments(__doc__)
    measures = {
        "jobs": measure_jobs, "many": measure_many, "preflight": measure_preflight, "api": measure_api,
        "sets": measure_sets,
    }  # fmt: skip
    parser.add_argument("what", choices=measures)
    parser.add_argument("--engine", choices=("postgresql", "sqlite"), default="sqlite")
    parser.add_argument("--jobs", type=int, default=100)
    asked = parser.parse_args()
    measures[asked.what](asked)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

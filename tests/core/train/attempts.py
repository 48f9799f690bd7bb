"""A job carried in several attempts through `core.train.run.main`, as a supervisor would carry it, in this process."""

from pathlib import Path
from typing import Any

from core.messages import Done, Failed, Progress, Publish, Started, Stopped, TrainOrder, from_trainer
from core.train.run import main

TIMED = ("seconds", "samples_per_second")
"""What differs between two runs of one job: the only keys of a row that may."""

SPEC: dict[str, Any] = {
    "data": {
        "train": {"type": "sklearn.iris"},
        "val": {"from": "train", "fraction": 0.2, "stratify": True},
        "test": {"from": "train", "fraction": 0.2, "stratify": True},
        "preprocess": ["StandardScaler"],
    },
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "Linear", "out_features": 8},
            "BatchNorm1d",
            "ReLU",
            {"type": "Dropout", "p": 0.25},
            {"type": "Linear", "out_features": 3},
        ],
    },
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "AdamW", "lr": 0.02},
    "epochs": 3,
    "batch_size": 24,
    "checkpoints": {"every": {"epochs": 1}},
    "seed": 5,
    "execution": {"device": "cpu", "threads": 1},
}
"""90 samples to train on, in 4 batches of which the last is smaller; dropout and BatchNorm in the model."""


class Supervisor:
    """The other end of a trainer's pipe: keeps what is said, asks for a stop when the trainer looks up the n-th time.

    With `core.train.watch.POLL_SECONDS` at 0 the trainer looks up before it loads, after every update, after every
    batch that is validated.
    """

    def __init__(self, folder: Path, *, stop_at: int | None = None, reason: str = "pause") -> None:
        self.folder, self.stop_at, self.reason = folder, stop_at, reason
        self.looks = 0
        self.messages: list[Any] = []
        self.files: dict[str, bytes] = {}
        """Every checkpoint that was published, also those that the trainer has removed since."""
        self.closed = False

    def send(self, message: Any) -> None:
        said = from_trainer.validate_json(message.model_dump_json())
        self.messages.append(said)
        if isinstance(said, Publish):
            self.files[said.checkpoint.name] = (self.folder / said.checkpoint.name).read_bytes()

    def receive(self, timeout: float | None = 0) -> dict[str, Any] | None:
        self.looks += 1
        return {"type": "stop", "reason": self.reason} if self.looks == self.stop_at else None

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def started(self) -> Started:
        (started,) = self.of(Started)
        return started

    @property
    def last(self) -> Done | Stopped | Failed:
        last: Done | Stopped | Failed = self.messages[-1]
        return last

    @property
    def steps(self) -> list[int]:
        """Updates that were done, as its signs of life tell."""
        return [progress.step for progress in self.of(Progress)]


class Job:
    """What the database would know of a job, and its attempts."""

    def __init__(self, spec: dict[str, Any], folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.attempts: list[Supervisor] = []
        self.publications: list[Publish] = []
        self.files: dict[str, bytes] = {}
        self.numerics: dict[str, Any] | None = None

    def attempt(self, *, stop_at: int | None = None, reason: str = "pause", **order: Any) -> Supervisor:
        """Carry out one attempt, from the newest checkpoint where there is one; `order` overrides the order."""
        folder = self.folder / str(len(self.attempts) + 1)
        supervisor = Supervisor(folder, stop_at=stop_at, reason=reason)
        main(supervisor, TrainOrder.model_validate({**self._order(folder), **order}).model_dump())
        self.attempts.append(supervisor)
        self.publications += supervisor.of(Publish)
        self.files |= supervisor.files
        if supervisor.of(Started):
            self.spec = supervisor.started.resolved_spec
            self.numerics = self.numerics or supervisor.started.numerics
        return supervisor

    def _order(self, folder: Path) -> dict[str, Any]:
        newest = [publication.checkpoint for publication in self.publications[-2:][::-1]]
        resume = folder / "resume"
        resume.mkdir(parents=True)
        for checkpoint in newest:
            (resume / checkpoint.name).write_bytes(self.files[checkpoint.name])
        return {
            "job_id": "job_1",
            "attempt": len(self.attempts) + 1,
            "spec": self.spec,
            "folder": str(folder),
            "cache_dir": str(self.folder / "cache"),
            "datasets_dir": str(self.folder / "datasets"),
            "checkpoints": [str(resume / checkpoint.name) for checkpoint in newest],
            "checkpoint_digests": [checkpoint.digest for checkpoint in newest],
            "published_epochs": max((row["epoch"] for row in self.rows), default=0),
            "threads": (self.numerics or {}).get("threads"),
            "numerics": self.numerics,
            "active_seconds": self.publications[-1].active_seconds if self.publications else 0.0,
        }

    def killed_after(self, publications: int, folder: Path) -> "Job":
        """Return this job as it was known after so many publications of its first attempt, which then died."""
        job = Job(self.attempts[0].started.resolved_spec, folder)
        job.publications = self.publications[:publications]
        job.files, job.numerics = dict(self.files), self.numerics
        return job

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for publication in self.publications for row in publication.rows]

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return [decision for publication in self.publications for decision in publication.decisions]

    def artifact(self, name: str) -> bytes:
        return (self.attempts[-1].folder / name).read_bytes()

    def outcome(self) -> dict[str, Any]:
        """Return all that must not depend on interruptions: weights, rows, decisions, and the last message."""
        done = self.attempts[-1].last
        assert isinstance(done, Done), done
        return {
            "rows": [{key: value for key, value in row.items() if key not in TIMED} for row in self.rows],
            "decisions": self.decisions,
            "done": done.model_dump(exclude={"active_seconds", "artifacts"}),
            "weights": self.artifact("model.safetensors"),
            "last weights": self.artifact("last.safetensors"),
        }

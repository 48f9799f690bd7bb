"""A job trained by our trainer in this process, and by the script written from it in another one."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors.torch import load_file

from core.code import Upload, script
from core.messages import DatasetFile, Done, Publish, Started, TrainOrder, from_trainer
from core.train.run import main

ALLOWED = {"numpy", "sklearn", "torch", "torchvision"}
WITH_US = ("setpriv", "--pdeathsig", "KILL")
PLACES = {"train": "--data", "val": "--val-data", "test": "--test-data"}


class Channel:
    """The other end of a trainer's pipe: keeps what is said."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.closed = False

    def send(self, message: Any) -> None:
        self.messages.append(from_trainer.validate_json(message.model_dump_json()))

    def receive(self, timeout: float | None = 0) -> dict[str, Any] | None:
        return None

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]


class Runner:
    """One warm process that runs scripts in forks of itself."""

    def __init__(self) -> None:
        command = [*WITH_US, sys.executable, "-I", str(Path(__file__).with_name("runner.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate(timeout=60)

    def run(self, folder: Path, text: str, *arguments: str) -> str:
        """Run a script in `folder`; return what it prints."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        (folder / "train.py").write_text(text, encoding="utf-8")
        self.process.stdin.write(json.dumps([str(folder), *arguments]) + "\n")
        self.process.stdin.flush()
        status = self.process.stdout.readline().strip()
        said = (folder / "output.txt").read_text(encoding="utf-8")
        assert status == "0", said
        return said


class Trained:
    """A job that our trainer has trained in this process."""

    def __init__(
        self, spec: dict[str, Any], folder: Path, *, datasets_dir: Path, uploads: dict[str, DatasetFile] | None = None
    ) -> None:
        self.folder = folder / "job"
        channel = Channel()
        order = TrainOrder(
            job_id="job_1",
            attempt=1,
            spec=spec,
            folder=str(self.folder),
            cache_dir=str(folder / "cache"),
            datasets_dir=str(datasets_dir),
            datasets=uploads or {},
        )
        main(channel, order.model_dump())
        self.last = channel.messages[-1]
        assert isinstance(self.last, Done), self.last
        (self.started,) = channel.of(Started)
        self.rows: list[dict[str, Any]] = [row for publication in channel.of(Publish) for row in publication.rows]

    def script(self, uploads: dict[str, Upload] | None = None) -> str:
        return script(self.started.resolved_spec, uploads=uploads, numerics=self.started.numerics)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "model.safetensors")


def assert_repeats(job: Trained, text: str, said: str, folder: Path) -> None:
    """The script needs the four packages alone, ends with the job's weights, and printed the job's numbers."""
    assert imported(text) - set(sys.stdlib_module_names) <= ALLOWED
    theirs = torch.load(folder / "model.pt", weights_only=True)
    ours = job.weights
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []
    lines = [line for line in said.splitlines() if line.startswith("epoch ")]
    assert [printed(line) for line in lines] == [numbers(row) for row in job.rows]


def imported(text: str) -> set[str]:
    """Return the packages that a script imports."""
    nodes = list(ast.walk(ast.parse(text)))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {module.partition(".")[0] for module in modules}


def printed(line: str) -> dict[str, str]:
    _, epoch, *words = line.split()
    found = dict(zip(words[::2], words[1::2], strict=True))
    found.pop("lr", None)
    return {"epoch": epoch, **found}


def numbers(row: dict[str, Any]) -> dict[str, str]:
    parts = {f"{split}_{name}": value for split in ("train", "val") for name, value in (row[split] or {}).items()}
    return {"epoch": str(row["epoch"]), **{k: f"{v:.6g}" for k, v in parts.items() if isinstance(v, float)}}

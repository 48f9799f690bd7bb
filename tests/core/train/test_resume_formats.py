"""Checkpoints of every format so far go on; one of a newer version, or of foreign content, ends with a clear error."""

import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_weights

from core import digests
from core.messages import Done, Failed, Publish, Started
from core.train import checkpoint
from core.train.checkpoint import FORMAT, MAGIC, UPGRADES, header
from tests.core.train.attempts import SPEC, TIMED, Job, Supervisor

FIXTURES = Path(__file__).parents[2] / "fixtures"
FORMATS = range(1, FORMAT + 1)
ADRIFT = ("0.bias", "1.running_mean")
"""A bias before BatchNorm has no gradient but rounding errors, of which AdamW makes a step: another on each machine."""


def json_of(folder: Path, name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return body


def resumed(spec: dict[str, Any], folder: Path, files: dict[Path, bytes], **known: Any) -> Job:
    """Carry out the attempt that is ordered to go on from `files`, the best choice first."""
    for path, data in files.items():
        path.write_bytes(data)
    job = Job(spec, folder / "job")
    digests = [hashlib.sha256(data).hexdigest() for data in files.values()]
    job.attempt(checkpoints=[str(path) for path in files], checkpoint_digests=digests, **known)
    return job


@pytest.mark.parametrize("number", FORMATS)
def test_a_job_that_an_earlier_release_began_ends_as_it_would_have_there(number: int, tmp_path: Path) -> None:
    folder = FIXTURES / f"checkpoint-format-{number}"
    known, expected = json_of(folder, "known"), json_of(folder, "expected")
    reference = known.pop("checkpoint")
    data = (folder / "checkpoint.pt").read_bytes()
    recorded = reference.get("digest") or reference["sha256"]
    assert digests.of(data, recorded) == recorded
    path = tmp_path / reference["name"]
    job = resumed(json_of(folder, "spec"), tmp_path, {path: data}, threads=known["numerics"]["threads"], **known)

    (attempt,) = job.attempts
    assert isinstance(attempt.last, Done), attempt.last
    assert attempt.started.from_epoch == reference["epoch"]
    assert path.read_bytes() == data
    assert (attempt.last.stop_reason, len(job.rows)) == (expected["done"]["stop_reason"], 1)
    # On the kind of processor and torch that wrote the fixture every bit must be equal. Elsewhere the last bits of
    # each update may differ, so that only closeness can be asked for.
    is_same_machine = attempt.started.numerics == known["numerics"]
    tolerance = 0.0 if is_same_machine else 1e-2
    for name in ("model", "last"):
        found_weights, wanted = (
            {key: value for key, value in load_weights(data).items() if is_same_machine or key not in ADRIFT}
            for data in (job.artifact(f"{name}.safetensors"), (folder / f"{name}.safetensors").read_bytes())
        )
        torch.testing.assert_close(found_weights, wanted, rtol=tolerance, atol=tolerance)
    (row,) = expected["rows"][known["published_epochs"] + 1 :]
    found = {key: value for key, value in job.rows[0].items() if key not in TIMED}
    assert_close(found, row, tolerance)
    found_checks, checks = (
        [decision for decision in decisions if decision["kind"] == "early_stopping"]
        for decisions in (job.decisions, expected["decisions"])
    )
    assert_close(found_checks, checks[-1:], tolerance)
    codes = [warning["code"] for warning in attempt.of(Started)[0].warnings]
    assert ("numerics_changed" in codes) is not is_same_machine


def assert_close(found: Any, wanted: Any, tolerance: float) -> None:
    """Compare JSON, numbers within a tolerance."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert_close(found[name], value, tolerance)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, other, tolerance)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=tolerance, abs=tolerance)
    else:
        assert found == wanted


def test_there_is_a_way_up_from_every_older_format_and_a_fixture_of_each() -> None:
    assert sorted(UPGRADES) == list(range(1, FORMAT))
    assert sorted(path.name for path in FIXTURES.glob("checkpoint-format-*")) == [
        f"checkpoint-format-{number}" for number in FORMATS
    ]


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job with two checkpoints, stopped after the second of three epochs."""
    job = Job({**SPEC, "early_stopping": {}, "ema": {"decay": 0.9}}, tmp_path_factory.mktemp("paused"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.train.watch.POLL_SECONDS", 0.0)
        job.attempt(stop_at=12)
    assert [publication.checkpoint.epoch for publication in job.publications] == [1, 2, 2]
    return job


def with_newest(job: Job, data: bytes, folder: Path) -> Supervisor:
    """Go on from `data`; a sound older checkpoint is there too."""
    older = job.publications[1].checkpoint
    files = {folder / "newest.pt": data, folder / older.name: job.files[older.name]}
    attempt = resumed(job.spec, folder, files, published_epochs=2, threads=1).attempts[-1]
    assert (folder / "newest.pt").read_bytes() == data
    return attempt


def refused(job: Job, data: bytes, folder: Path) -> str:
    """Check that nothing goes on, not even from the older checkpoint; return what the user is told."""
    attempt = with_newest(job, data, folder)
    assert isinstance(attempt.last, Failed), attempt.last
    assert attempt.last.code == "checkpoint_invalid", attempt.last
    assert attempt.of(Started) == attempt.of(Publish) == []
    assert "newest.pt" in attempt.last.message or "the checkpoint does not fit" in attempt.last.message
    return attempt.last.message


def newest(job: Job) -> bytes:
    return job.files[job.publications[-1].checkpoint.name]


def state_of(data: bytes) -> dict[str, Any]:
    _, size = checkpoint.read_header(data)
    state: dict[str, Any] = torch.load(io.BytesIO(data[size:]), weights_only=True)
    return state


def file_of(state: Any, first_line: bytes | None = None) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return (header() if first_line is None else first_line) + buffer.getvalue()


def test_what_these_tests_rewrite_is_resumed_from_when_nothing_is_changed(paused: Job, tmp_path: Path) -> None:
    assert isinstance(with_newest(paused, file_of(state_of(newest(paused))), tmp_path).last, Done)


def test_the_first_line_says_who_wrote_a_checkpoint(paused: Job) -> None:
    about = json.loads(newest(paused).partition(b"\n")[0].removeprefix(MAGIC))
    assert about["format"] == FORMAT
    assert about["torch"] == torch.__version__
    assert set(about) == {"format", "torch", "version"}


def test_what_a_newer_version_wrote_is_refused_and_says_what_to_do(paused: Job, tmp_path: Path) -> None:
    line = MAGIC + json.dumps({"format": FORMAT + 1, "version": "9.1.0", "new": [1]}).encode() + b"\n"
    message = refused(paused, line + b"in whatever way it is packed then", tmp_path)
    assert f"it has format {FORMAT + 1}, written by version 9.1.0" in message
    assert f"reads up to format {FORMAT}" in message
    assert "run the job on the version that wrote it, or start anew" in message


def test_a_newer_checkpoint_behind_a_damaged_one_is_refused_too(paused: Job, tmp_path: Path) -> None:
    newer = MAGIC + b'{"format": 99}\n'
    paths = [tmp_path / "gone.pt", tmp_path / "newer.pt"]
    paths[1].write_bytes(newer)
    job = Job(paused.spec, tmp_path / "job")
    digests = ["0" * 64, hashlib.sha256(newer).hexdigest()]
    last = job.attempt(checkpoints=[str(path) for path in paths], checkpoint_digests=digests).last
    assert isinstance(last, Failed)
    assert "newer.pt" in last.message


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.victim}",)


@pytest.mark.parametrize("first_line", [None, b""], ids=["of this format", "of format 1"])
def test_code_in_a_checkpoint_is_not_run(first_line: bytes | None, paused: Job, tmp_path: Path) -> None:
    victim = tmp_path / "executed"
    state = {**state_of(newest(paused)), "format": 1, "val_metrics": Evil(victim)}
    message = refused(paused, file_of(state, first_line), tmp_path)
    assert not victim.exists()
    assert "holds more than tensors and plain values (posix.system)" in message
    assert "weights_only" not in message


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_plain_pickle_is_no_checkpoint(protocol: int, paused: Job, tmp_path: Path) -> None:
    victim = tmp_path / "executed"
    message = refused(paused, pickle.dumps(Evil(victim), protocol), tmp_path)
    assert not victim.exists()
    assert "does not begin as a checkpoint does" in message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "does not begin"),
        (MAGIC, "does not begin"),
        (MAGIC + b"not json\n", "header is not JSON"),
        (MAGIC + b"[1]\n", "names no format"),
        (MAGIC + b'{"format": true}\n', "names no format"),
        (MAGIC + b'{"format": 0}\n', "names no format"),
        (header(), "does not fit"),
        (header() + b"PK\x03\x04 and then nothing", "does not fit"),
        (file_of([1, 2]), "holds a list"),
        (file_of({"format": 3}, b""), "says format 3"),
    ],
)
def test_what_is_no_checkpoint_is_refused(data: bytes, said: str, paused: Job, tmp_path: Path) -> None:
    assert said in refused(paused, data, tmp_path)


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        for name in path[:-1]:
            state = state[name]
        del state[path[-1]]

    return change


def setting(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        for name in path[:-1]:
            state = state[name]
        state[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("rng"), "rng is missing"),
        (without("position", "step"), "position.step is missing"),
        (without("judge", "stopper", "wait"), "judge.stopper.wait is missing"),
        (setting(None, "judge", "stopper"), "judge.stopper is missing"),
        (setting(None, "average"), "average is missing"),
        (setting({}, "updater", "scaler"), "updater.scaler is unknown"),
        (setting({}, "momentum"), "momentum is unknown"),
        (setting(1, "position", "sample"), "position.sample is unknown"),
        (setting(1, "judge", "stopper", "mood"), "judge.stopper.mood is unknown"),
        (without("model", "0.weight"), '"0.weight"'),
        (setting(torch.zeros(2, 2), "model", "0.weight"), "size mismatch"),
        (without("judge", "best", "weights"), "judge.best.weights is missing"),
        (setting({}, "optimizer"), "does not fit the job: KeyError"),
        (setting([], "optimizer", "param_groups"), "parameter groups"),
        (setting({}, "updater", "scores", "metrics"), "does not fit the job: KeyError"),
        (setting([1], "rng", "numpy"), "does not fit"),
        (setting(torch.zeros(3, dtype=torch.uint8), "rng", "torch"), "does not fit"),
    ],
)
def test_a_state_that_lacks_or_adds_a_part_is_refused(
    change: Callable[[dict[str, Any]], None], said: str, paused: Job, tmp_path: Path
) -> None:
    state = state_of(newest(paused))
    change(state)
    message = refused(paused, file_of(state), tmp_path)
    assert said in message
    assert "the checkpoint does not fit the job" in message

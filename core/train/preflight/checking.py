"""The order of the checks: data, task, samples, model, output, loss, optimizer, schedule, metrics."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.errors import Issue, Malformed, SpecInvalid
from core.messages import DatasetFile
from core.spec import parse_object
from core.spec import warnings as spec_warnings
from core.spec.job import JobSpec
from core.train import build, task
from core.train.preflight import counting, data, lookup, monitors, outputs, resolving, samples, summary, updates
from core.train.preflight.report import Findings, Report
from core.train.roles import Channel
from core.train.sets import Places

SEED_BITS = 53
"""A generated seed survives readers that keep numbers as doubles."""


def main(channel: Channel, request: dict[str, Any]) -> None:
    """Check one spec in a child process: the request of `core.process.call`, and one answer.

    Args:
        channel: the pipe to the caller.
        request: `spec`, `datasets_dir`, `cache_dir`, `uploads`, `max_parameters`.
    """
    with _on_one_thread():
        channel.send({"type": "preflight", **_asked(request).as_json()})


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """Compute what little there is without other threads: to start and to meet them took longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _asked(request: Mapping[str, Any]) -> Report:
    try:
        spec = parse_object(request["spec"])
    except (SpecInvalid, Malformed) as error:
        issues = error.issues or (Issue("", error.slug, error.detail),)
        return Report(errors=issues)
    uploads = {key: DatasetFile.model_validate(value) for key, value in request.get("uploads", {}).items()}
    return check(
        spec,
        datasets_dir=Path(request["datasets_dir"]),
        cache_dir=Path(request["cache_dir"]),
        uploads=uploads,
        max_parameters=request["max_parameters"],
    )


def check(
    spec: JobSpec,
    *,
    datasets_dir: Path,
    cache_dir: Path,
    uploads: Mapping[str, DatasetFile],
    max_parameters: int,
) -> Report:
    """Prove that `spec` can run, or say what is in the way, each problem at its place.

    Args:
        spec: what was posted; a seed is generated where it has none.
        datasets_dir: the operator's folder of torchvision's sets.
        cache_dir: where decoded data is kept.
        uploads: local files by `"<dataset id>@<version>"`.
        max_parameters: of a model.
    """
    found = Findings(spec_warnings(spec))
    if spec.seed is None:
        spec = spec.model_copy(update={"seed": secrets.randbits(SEED_BITS)})
    places = Places(datasets_dir, cache_dir, uploads)
    found.refuse(data.random_in_eval(spec))
    found.refuse(updates.contradictions(spec))
    sets = found.attempt("/data", lambda: data.describe(spec, places))
    return found.report() if sets is None else judge(found, spec, sets, places, max_parameters)


def judge(found: Findings, spec: JobSpec, sets: data.Described, places: Places, max_parameters: int) -> Report:
    """Check everything that follows once the sets are known; `found` holds what was said before."""
    counts = counting.count(spec, sets)
    found.refuse(data.findings(spec, sets))
    found.refuse(counting.findings(spec, counts))
    job = found.attempt("/loss", lambda: task.resolve(spec, sets.train))
    if job is not None:
        found.refuse(monitors.findings(spec, job, has_val=counts.val is not None))
    form = found.attempt("/data", lambda: samples.form(spec, sets, places))
    if form is None:
        return found.report()
    found.warn(form.warnings)
    outputs_wanted = None if job is None else job.outputs
    inferred = build.infer(spec, form.shape, classes=outputs_wanted, dtype=form.dtype)
    found.refuse(inferred.issues)
    if inferred.module is None or inferred.output is None:
        return found.report()
    found.refuse(lookup.findings(spec, sets, inferred.layers))
    found.refuse(summary.findings(inferred.module, max_parameters))
    found.refuse(counting.batch_norm(counts, inferred.module))
    if job is None:
        return found.report(summary.summary(spec, inferred, counts, form))
    found.refuse(outputs.findings(spec, inferred, job))
    found.warn(outputs.warnings(spec, inferred))
    _check_updates(found, spec, inferred.module, counts)
    resolved = resolving.resolve(spec, inferred, job, counts)
    return found.report(summary.summary(spec, inferred, counts, form), resolved)


def _check_updates(found: Findings, spec: JobSpec, model: nn.Module, counts: counting.Counts) -> None:
    """Let torch check the arguments of optimizer and schedule, and check what it does not."""
    found.refuse(updates.sparse(spec, model))
    found.warn(updates.idle(spec, model, counts))
    with found.collecting("/optimizer"):
        optimizer = build.optimizer(spec, model)
        with found.collecting("/lr_scheduler"):
            build.lr_scheduler(spec, optimizer, steps_per_epoch=max(1, counts.updates), epochs=spec.epochs)
    found.refuse(updates.schedule_length(spec, counts))
    found.warn(updates.schedule_interval(spec))

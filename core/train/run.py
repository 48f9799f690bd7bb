"""One attempt of a job, in a process of its own: from the order to the last message.

order -> check the spec -> load data -> assemble -> resume -> fit -> finish
"""

import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.datasets.duplicates import Duplicates
from core.errors import DataInvalid, SpecInvalid
from core.faults import hit
from core.heap import keep_blocks
from core.messages import Done, Failed, Started, Stopped, TrainOrder
from core.spec import parse_object
from core.spec.job import JobSpec
from core.train import numerics, preflight, sets, spinning, task
from core.train.assembling import assemble
from core.train.checkpoint import FolderStore, load_first
from core.train.compiling import CannotCompile
from core.train.failures import as_failed
from core.train.feeding import feed
from core.train.finishing import finish
from core.train.journal import Journal
from core.train.loop import fit
from core.train.pipe import Pipe, SupervisorGoneError
from core.train.roles import Channel
from core.train.trainer import Trainer
from core.train.watch import Interrupted, TimeUsedUp, Watch


def main(channel: Channel, request: dict[str, Any]) -> None:
    """Carry out a `TrainOrder`; say over `channel` how it goes and how it ended.

    Args:
        channel: the pipe to the supervisor.
        request: a `TrainOrder` as a dict.
    """
    order = TrainOrder.model_validate(request)
    pipe = Pipe(channel)
    limit = (order.spec.get("execution") or {}).get("max_runtime_seconds")
    watch = Watch(pipe, pipe, earlier_seconds=order.active_seconds, limit_seconds=limit)
    attempt = Attempt(order, pipe, watch)
    try:
        last = attempt.run()
        hit("trainer.done")
        pipe.send(last)
    except SupervisorGoneError:
        sys.stdout.flush()
        os._exit(1)  # nobody waits for an answer; threads of torch may be busy


@dataclass
class Attempt:
    """What one attempt knows while it goes on."""

    order: TrainOrder
    pipe: Pipe
    watch: Watch
    trainer: Trainer | None = None

    def run(self) -> Done | Stopped | Failed:
        """Train; return the last message, whatever happens."""
        try:
            return self._train()
        except (Interrupted, TimeUsedUp) as end:
            return self._save_and_end(end)
        except Exception as error:  # noqa: BLE001 - the process boundary: every failure becomes a message
            return self._failed(error)
        finally:
            if self.watch.spinning is not None:
                self.watch.spinning.close()

    def _train(self) -> Done | Failed:
        hit("trainer.entered")
        order = self.order
        spec, resolved, warnings, summary = self._plan()
        seed = spec.seed if spec.seed is not None else 0
        device = numerics.device_of(order.device, spec.execution.device)
        threads = order.threads or spec.execution.threads or numerics.choose_threads(_flops_per_batch(spec, summary))
        numerics.settle(threads, is_deterministic=spec.deterministic)
        keep_blocks()
        self.watch.spinning = spinning.begin(threads)
        fingerprint = numerics.fingerprint(device, threads)
        if order.numerics is not None and order.numerics != fingerprint:
            warnings.append(_numerics_changed(order.numerics, fingerprint))
        if spec.execution.device == "gpu" and device.type == "cpu":
            detail = "no GPU was lent to this attempt: it trains on the CPU"
            warnings.append({"pointer": "/execution/device", "code": "no_gpu", "detail": detail})
        self.watch.look()
        self.watch.enter("loading_data")
        is_first = order.numerics is None
        data = sets.prepare(spec.data, seed=seed, places=_places(order), look_for_duplicates=is_first)
        warnings.extend(_duplicated(one) for one in data.duplicates)
        job = task.resolve(spec, data.source.facts())
        data = data.for_task(job)
        batches = feed(spec, data, seed=seed, device=device)
        folder = Path(order.folder)
        folder.mkdir(parents=True, exist_ok=True)
        journal = Journal(
            self.pipe,
            FolderStore(folder),
            every=spec.checkpoints.every,
            published_epochs=order.published_epochs,
            is_start_published=bool(order.checkpoints),
        )
        trainer = assemble(spec, data, job, batches, seed=seed, device=device, watch=self.watch, journal=journal)
        compiled, said = _compile(trainer, spec)
        warnings.extend(said)
        state, problems = load_first(order.checkpoints, order.checkpoint_digests)
        warnings.extend({"pointer": "", "code": "checkpoint_passed_over", "detail": problem} for problem in problems)
        if state is not None:
            trainer.load_state_dict(state)
        self.trainer = trainer
        resolved = _as_run(resolved, seed=seed, device=device.type, threads=threads, compiled=compiled)
        self.pipe.send(
            Started(resolved_spec=resolved, numerics=fingerprint, from_epoch=trainer.at.epoch, warnings=warnings)
        )
        hit("trainer.loaded")
        stop_reason = fit(trainer)
        return finish(
            trainer,
            stop_reason,
            spec=spec,
            resolved=resolved,
            fingerprint=fingerprint,
            sets=data,
            task=job,
            feed=batches,
            folder=folder,
        )

    def _plan(self) -> tuple[JobSpec, dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
        """Check the spec as preflight did (or could not); return it resolved, its warnings and its summary."""
        order = self.order
        spec = parse_object(order.spec)
        places = _places(order)
        report = preflight.check(
            spec,
            datasets_dir=places.datasets_dir,
            cache_dir=places.cache_dir,
            uploads=places.uploads,
            max_parameters=order.max_parameters,
        )
        if report.is_data_bad:
            raise DataInvalid(report.errors[0].detail, issues=report.errors)
        if report.errors:
            raise SpecInvalid(report.errors)
        spec = spec.model_copy(update={"seed": report.resolved_spec["seed"]})
        return spec, report.resolved_spec, [issue.as_json() for issue in report.warnings], report.summary

    def _save_and_end(self, end: Interrupted | TimeUsedUp) -> Stopped | Failed:
        try:
            return self._stopped(end.reason) if isinstance(end, Interrupted) else self._out_of_time(end)
        except Exception as error:  # noqa: BLE001 - the process boundary again: the last checkpoint may fail
            return self._failed(error)

    def _stopped(self, reason: str) -> Stopped:
        """Save where it stands; a cancelled job needs that only for rows that nobody has seen yet."""
        trainer = self.trainer
        if trainer is not None and trainer.is_under_way and (reason != "cancel" or trainer.journal.rows):
            trainer.save()
        self._settle()
        return Stopped(reason=reason, active_seconds=self.watch.active_seconds)

    def _out_of_time(self, over: TimeUsedUp) -> Failed:
        if self.trainer is not None and self.trainer.journal.rows:
            self.trainer.save()
        self._settle()
        return as_failed(over, self.watch.active_seconds)

    def _failed(self, error: Exception) -> Failed:
        try:
            self._settle()
        except Exception as earlier:  # noqa: BLE001 - its epoch was over before the one that failed
            error = earlier
        traceback.print_exception(error)  # to stderr: the job's log
        return as_failed(error, self.watch.active_seconds)

    def _settle(self) -> None:
        """Wait for the checkpoint that is under way: the last message follows all others."""
        if self.trainer is not None:
            self.trainer.journal.settle()


def _places(order: TrainOrder) -> sets.Places:
    return sets.Places(Path(order.datasets_dir), Path(order.cache_dir), order.datasets)


def _flops_per_batch(spec: JobSpec, summary: dict[str, Any]) -> float:
    samples = 1024 if spec.batch_size == "full" else spec.batch_size
    return float(summary.get("flops_per_sample") or 2 * summary.get("parameters", 0)) * samples


def _compile(trainer: Trainer, spec: JobSpec) -> tuple[bool, list[dict[str, Any]]]:
    """Compile the updates where that is asked for; return whether they are, and what to tell about it."""
    if spec.compile is not True:
        return False, []
    is_compiled, detail = True, "updates of full batches run compiled, as the spec asks"
    try:
        trainer.compile()
    except CannotCompile as error:
        is_compiled, detail = False, f"the updates run uncompiled: {error}"
    return is_compiled, [{"pointer": "/compile", "code": "compile", "detail": detail, "compiled": is_compiled}]


def _as_run(resolved: dict[str, Any], *, seed: int, device: str, threads: int, compiled: bool) -> dict[str, Any]:
    """Return the resolved spec with what only the attempt knew; it parses as a spec and gives the same run again."""
    execution = {
        **(resolved.get("execution") or {}),
        "threads": threads,
        "device": "gpu" if device == "cuda" else "cpu",
    }
    return {**resolved, "seed": seed, "compile": compiled, "execution": execution}


def _duplicated(found: Duplicates) -> dict[str, Any]:
    numbers = {"split": found.part, "duplicates": found.count, "samples": found.samples}
    return {"pointer": f"/data/{found.part}", "code": "duplicates", "detail": found.detail, **numbers}


def _numerics_changed(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    changed = {name: [before.get(name), value] for name, value in now.items() if before.get(name) != value}
    names = ", ".join(f"{name} {old} is now {new}" for name, (old, new) in changed.items())
    return {"pointer": "", "code": "numerics_changed", "detail": f"the last bits may differ from here on: {names}"}

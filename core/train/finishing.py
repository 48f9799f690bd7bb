"""The end of a job: go back to the best weights, test once, leave the artifacts."""

from pathlib import Path
from typing import Any

from core.messages import Done, Failed, StopReason
from core.spec.job import JobSpec
from core.train.export import FORMAT, write_json, write_weights
from core.train.failures import DIVERGED, NOT_FINITE
from core.train.feeding import Feed
from core.train.journal import with_finite_numbers
from core.train.keeping import Weights
from core.train.sets import Sets
from core.train.task import Task
from core.train.trainer import Trainer


def finish(
    trainer: Trainer,
    stop_reason: StopReason,
    *,
    spec: JobSpec,
    resolved: dict[str, Any],
    fingerprint: dict[str, Any],
    sets: Sets,
    task: Task,
    feed: Feed,
    folder: Path,
) -> Done | Failed:
    """Return the last message of a training that ended by itself.

    `model.safetensors` holds the best weights (the last ones where `restore_best` is off), `last.safetensors` the
    last ones; all are the averaged weights where the spec asks for an average. `checkpoints.keep_best` adds
    `best-2.safetensors` and so on (`best-1` too where the best ones were not restored), `keep_last` adds
    `last-2.safetensors`, the one before the last.
    """
    seconds = trainer.watch.active_seconds
    if stop_reason == "non_finite":
        return Failed(code="non_finite", message=NOT_FINITE, stop_reason=stop_reason, active_seconds=seconds)
    if stop_reason == "diverged":
        return Failed(code="diverged", message=DIVERGED, stop_reason=stop_reason, active_seconds=seconds)
    trainer.watch.limit_seconds = None  # training is over; what is left is short
    model = trainer.judged_model
    last = {name: value.detach().clone() for name, value in model.state_dict().items()}
    best = trainer.judge.best
    is_restored = bool(best.weights) and (spec.early_stopping is None or spec.early_stopping.restore_best)
    weights = best.weights if is_restored else last
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        return Failed(code="non_finite", message=NOT_FINITE, stop_reason="non_finite", active_seconds=seconds)
    test_metrics: dict[str, Any] | None = None
    if feed.test is not None:
        trainer.watch.enter("testing")
        model.load_state_dict(weights)
        test_metrics = with_finite_numbers(trainer.evaluator(model, feed.test))
    trainer.watch.enter("saving")
    kept, others = _kept(trainer, is_restored=is_restored)
    artifacts = [
        write_weights(folder, "model.safetensors", weights),
        write_weights(folder, "last.safetensors", last),
        *(write_weights(folder, name, copy) for name, copy in others.items()),
        write_json(folder, "spec.json", resolved),
    ]
    manifest = {
        "format": FORMAT,
        "task": task.name,
        "stop_reason": stop_reason,
        "epochs": trainer.at.epoch,
        "steps": trainer.at.step,
        "best": best.as_message(),
        "test_metrics": test_metrics,
        "is_best_restored": is_restored,
        "kept": kept,
        "input_shape": list(feed.sample_shape),
        "data": {
            "kind": sets.source.kind,
            "digest": sets.source.digest,
            "split_sha256": sets.split_sha256,
            "feature_names": sets.source.feature_names,
            "target_names": sets.source.target_names,
            "classes": sets.source.classes,
            "categories": sets.source.categories,
        },
        "preprocess": sets.preprocessor.to_json(),
        "transforms": (resolved["data"].get("transforms") or {}).get("eval", []),
        "numerics": fingerprint,
        "files": {file.name: {"sha256": file.sha256, "size_bytes": file.size_bytes} for file in artifacts},
    }
    artifacts.append(write_json(folder, "manifest.json", manifest))
    return Done(
        stop_reason=stop_reason,
        artifacts=artifacts,
        best=best.as_message(),
        test_metrics=test_metrics,
        active_seconds=trainer.watch.active_seconds,
    )


def _kept(trainer: Trainer, *, is_restored: bool) -> tuple[dict[str, Any], dict[str, Weights]]:
    """Return what the manifest says of the weights that were kept, the best and the newest first, and their files.

    Files of the best and the last weights themselves are not among them.
    """
    best, shelf, at = trainer.judge.best, trainer.judge.shelf, trainer.at
    files: dict[str, Weights] = {}
    about_best: list[dict[str, Any]] = []
    if best.weights and (is_restored or shelf.keep_best > 1):
        name = "model.safetensors" if is_restored else "best-1.safetensors"
        about_best.append({"file": name, "epoch": best.epoch, "step": best.step, "value": best.value})
        if not is_restored:
            files[name] = best.weights
    for rank, copy in enumerate(shelf.next_best, start=2):
        name = f"best-{rank}.safetensors"
        files[name] = copy.weights
        about_best.append({"file": name, "epoch": copy.epoch, "step": copy.step, "value": copy.value})
    about_last: list[dict[str, Any]] = [{"file": "last.safetensors", "epoch": at.epoch, "step": at.step}]
    for place, copy in enumerate(shelf.before(at.step), start=2):
        name = f"last-{place}.safetensors"
        files[name] = copy.weights
        about_last.append({"file": name, "epoch": copy.epoch, "step": copy.step})
    return {"best": about_best, "last": about_last}, files

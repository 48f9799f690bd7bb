"""The end of a job: go back to the best weights, test once, leave the artifacts."""

from pathlib import Path
from typing import Any

from core.messages import Done, Failed, StopReason
from core.spec.job import JobSpec
from core.train.export import FORMAT, write_json, write_weights
from core.train.failures import DIVERGED, NOT_FINITE
from core.train.feeding import Feed
from core.train.journal import with_finite_numbers
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
    last ones; both are the averaged weights where the spec asks for an average.
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
    artifacts = [
        write_weights(folder, "model.safetensors", weights),
        write_weights(folder, "last.safetensors", last),
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

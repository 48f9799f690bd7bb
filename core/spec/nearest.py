"""The right name for a wrong one: other spelling, other library's word, or a typing error."""

from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache

FIELDS = {
    "data": {"dataset": "train", "source": "train", "training": "train", "validation": "val", "valid": "val",
             "preprocessing": "preprocess", "augmentation": "transforms", "limit": "max_samples"},
    "": {"num_epochs": "epochs", "n_epochs": "epochs", "max_epochs": "epochs", "epoch": "epochs",
         "batchsize": "batch_size", "criterion": "loss", "loss_fn": "loss", "objective": "loss", "network": "model",
         "optim": "optimizer", "optimiser": "optimizer", "scheduler": "lr_scheduler", "lr_schedule": "lr_scheduler",
         "grad_clip": "gradient_clipping", "clip_grad_norm": "gradient_clipping", "dataset": "data",
         "random_seed": "seed", "random_state": "seed", "earlystopping": "early_stopping",
         "gradient_accumulation_steps": "accumulate_grad_batches", "regularizer": "regularization",
         "kernel_regularizer": "regularization", "tags": "metadata", "labels": "metadata"},
    "early_stopping": {"metric": "monitor", "restore_best_weights": "restore_best", "tolerance": "min_delta",
                       "warmup": "start_from_epoch", "delta": "min_delta"},
}  # fmt: skip
"""Words of other libraries for fields of the spec, by the pointer of the object without its slashes."""


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").replace(" ", "").lower()


def nearest(wrong: str, right: Collection[str], aliases: tuple[tuple[str, str], ...] = ()) -> str | None:
    """Return the name among `right` that was probably meant, or none.

    First another library's word for it (`aliases`, compared without case and underscores), then the same name in
    another spelling, then the most similar one.
    """
    return _nearest(wrong[:100], tuple(sorted(right)), aliases)


@lru_cache(maxsize=4096)
def _nearest(wrong: str, right: tuple[str, ...], aliases: tuple[tuple[str, str], ...]) -> str | None:
    plain = _plain(wrong)
    for other, name in aliases:
        if _plain(other) == plain and name in right:
            return name
    by_plain: dict[str, str] = {}
    for name in right:
        by_plain.setdefault(_plain(name), name)
    if plain in by_plain:
        return by_plain[plain]
    found = get_close_matches(plain, list(by_plain), n=1, cutoff=0.7)
    return by_plain[found[0]] if found else None

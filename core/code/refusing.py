"""What no script is written for: said at once, with the field and what to do."""

from collections.abc import Iterator

from core.code.job import CodeRefused, Job
from core.errors import Issue

PLUGIN = "plugin."


def check(job: Job) -> None:
    """Refuse a job that a script could not repeat.

    Raises:
        CodeRefused: names every part that stands in the way.
    """
    issues = list(_issues(job))
    if issues:
        raise CodeRefused(*issues)


def _issues(job: Job) -> Iterator[Issue]:
    spec = job.spec
    if spec.optimizer.type == "LBFGS" and spec.accumulate_grad_batches > 1:
        detail = "LBFGS over several accumulated batches is not written out."
        yield Issue("/accumulate_grad_batches", "lbfgs_accumulates", detail, "Take a larger batch_size instead.")

"""How often chance is tried: little in every run of the tests, much with EPOCHD_FAULT_REPETITIONS=full."""

import os

from hypothesis import HealthCheck, settings

IS_FULL = os.environ.get("EPOCHD_FAULT_REPETITIONS") == "full"


def repetitions(quick: int, full: int) -> int:
    """Return the number for this run."""
    return full if IS_FULL else quick


def examples(quick: int, full: int, *, steps: int = 50) -> settings:
    """Return Hypothesis' settings: the same examples in every quick run, others in each full one."""
    return settings(
        max_examples=repetitions(quick, full),
        stateful_step_count=steps,
        derandomize=not IS_FULL,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )

"""How often each fault is done, and the file that says how it went.

EPOCHD_FAULT_REPETITIONS=full    the right column (tests.repetitions)
EPOCHD_FAULT_SHARE=0.2           a share of that column, where time is short
EPOCHD_FAULT_SEED=7              another seed
EPOCHD_FAULT_REPORT=faults.json  where to write the summary; several test processes may share the file
"""

import json
import math
import os
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tests.repetitions import IS_FULL, repetitions
from tests.servers import held

Kind = Literal[
    "SIGKILL trainer",
    "SIGKILL worker",
    "SIGKILL API in POST",
    "SIGKILL PostgreSQL",
    "database away",
    "SIGKILL or FLUSHALL of Redis",
    "Redis frozen",
    "zombie",
    "half-open link",
    "SIGTERM drain",
    "crash points",
    "damaged checkpoint",
    "pause and cancel",
]
COUNTS: dict[Kind, tuple[int, int]] = {
    "SIGKILL trainer": (20, 300),
    "SIGKILL worker": (10, 150),
    "SIGKILL API in POST": (10, 100),
    "SIGKILL PostgreSQL": (3, 40),
    "database away": (1, 5),
    "SIGKILL or FLUSHALL of Redis": (3, 40),
    "Redis frozen": (1, 5),
    "zombie": (3, 50),
    "half-open link": (1, 20),
    "SIGTERM drain": (2, 30),
    "crash points": (1, 5),
    "damaged checkpoint": (1, 10),
    "pause and cancel": (1, 10),
}
"""In every run of the tests, and in a full one."""
SEED = int(os.environ.get("EPOCHD_FAULT_SEED", "20"))
LIMIT_SECONDS = repetitions(600, 14400)
"""For one test."""


def count(kind: Kind) -> int:
    """Return how often a fault of that kind is done in this run."""
    number = repetitions(*COUNTS[kind])
    share = float(os.environ.get("EPOCHD_FAULT_SHARE", "1")) if IS_FULL else 1.0
    return max(1, math.ceil(number * share))


def chance(kind: Kind) -> random.Random:
    """Return the source of randomness of a kind; the same faults come with the same seed."""
    return random.Random(f"{SEED} {kind}")


@dataclass
class Score:
    """How faults of one kind went."""

    faults: int = 0
    resumes: int = 0
    """Attempts that went on from a checkpoint."""
    jobs: int = 0
    violations: int = 0
    seconds: float = 0.0

    def add(self, other: "Score") -> "Score":
        """Return the sum of both."""
        return Score(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


def report(kind: Kind, score: Score) -> None:
    """Add to the summary, where one is asked for.

    Without a violation in n independent faults their rate is below 3/n with 95 %.
    """
    name = os.environ.get("EPOCHD_FAULT_REPORT")
    if not name:
        return
    path = Path(name)
    with held(path.with_name(f".{path.name}.lock")):
        summary = json.loads(path.read_text()) if path.is_file() else {}
        kinds = summary.get("kinds", {})
        earlier = Score(**{field: kinds[kind][field] for field in asdict(Score())}) if kind in kinds else Score()
        total = earlier.add(score)
        bound = min(1.0, 3 / total.faults) if total.faults and not total.violations else None
        kinds[kind] = {**asdict(total), "seconds": round(total.seconds, 1), "rate_below_95": bound}
        path.write_text(json.dumps({"seed": SEED, "kinds": kinds}, indent=2) + "\n")

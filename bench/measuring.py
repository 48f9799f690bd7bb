"""What the benchmarks share: taking turns, medians and ratios, and a report that says where it was measured."""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from typing_extensions import override

from tests import servers

PACKAGES = ("fastapi", "uvicorn", "sqlalchemy", "psycopg", "torch")


class Postgres(servers.Postgres):
    """A private PostgreSQL that is vacuumed and cached as a real one is. Without fsync, which would hide the rest."""

    @override
    def command(self) -> list[str]:
        settings = ("autovacuum=on", "autovacuum_naptime=5s", "shared_buffers=512MB", "jit=off")
        return [*super().command(), *(word for setting in settings for word in ("-c", setting))]


def arguments(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark understands: `--quick`. From now on SIGTERM stops what was started."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works, not to measure")
    return parser


def seconds(action: Callable[[], object]) -> float:
    """Return how long the action took."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def times(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return p50 and p99 in milliseconds over several rounds: the median of each round's own."""
    return {
        "p50_ms": round(1000 * statistics.median(quantile(values, 0.5) for values in rounds), 3),
        "p99_ms": round(1000 * statistics.median(quantile(values, 0.99) for values in rounds), 3),
        "runs": sum(map(len, rounds)),
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return how many times as large ours is as theirs, round by round: the median, the smallest and the largest."""
    by_round = [our / their for our, their in zip(ours, theirs, strict=True)]
    return {
        "ratio": round(statistics.median(by_round), 2),
        "least": round(min(by_round), 2),
        "most": round(max(by_round), 2),
    }


def report(name: str, rows: Sequence[Mapping[str, Any]], **facts: Any) -> None:
    """Print what was measured as JSON, then as a table for docs/measurements.md."""
    where = {
        "cores": os.cpu_count(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }
    command = " ".join([".venv/bin/python", "-m", f"bench.{name}", *sys.argv[1:]])
    print(json.dumps({"command": command, "machine": where, **facts, "rows": list(rows)}, indent=2))
    print(table(rows))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table; its columns are all keys, in the order of their first appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([str(row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

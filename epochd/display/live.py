"""A job while it runs: a progress bar on a terminal, a line for each epoch elsewhere."""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from epochd.display.numbers import number, scalars
from epochd.wire import Job, Row


class Display(Protocol):
    """Shows a job's updates."""

    def show(self, job: Job, rows: Sequence[Row]) -> None:
        """Show the job as it stands, and the rows that are new."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


def display_for(console: Console) -> Display:
    """Choose the display that the console can show."""
    return Bar(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


class Lines:
    """One line for each epoch and for each change of status."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, job: Job, rows: Sequence[Row]) -> None:
        """Print what is new."""
        if job["status"] != self._status and not job["is_terminal"]:
            self._print(f"{job['status']}{_remark(job)}")
        self._status = job["status"]
        for row in rows:
            self._print(f"epoch {row['epoch']}/{_epochs(job)}  {_numbers(row)}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)


class Bar:
    """A bar of epochs, and below it the last epoch's numbers."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"), TimeElapsedColumn(),
        )  # fmt: skip
        self._task = self._progress.add_task("", total=None, epoch=0, epochs="?")
        self._row: Row | None = None
        self._live = Live(self._progress, console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, job: Job, rows: Sequence[Row]) -> None:
        """Move the bar."""
        self._row = rows[-1] if rows else self._row
        epoch = self._row["epoch"] if self._row else 0
        epochs = _epochs(job)
        self._progress.update(
            self._task, description=f"{job['name'] or job['id']} {job['stage'] or job['status']}{_remark(job)}",
            total=epochs, completed=max(epoch, _done(job)), epoch=epoch, epochs=epochs,
        )  # fmt: skip
        self._live.update(Group(self._progress, Text(f"  {_numbers(self._row)}" if self._row else "")))


def _epochs(job: Job) -> int:
    return int(job["spec"]["epochs"])


def _done(job: Job) -> float:
    """Return finished epochs, the running one as a fraction."""
    fraction = (job["progress"] or {}).get("fraction")
    return fraction * _epochs(job) if fraction else 0.0


def _remark(job: Job) -> str:
    if job["status"] == "paused":
        return f" (epochd resume {job['id']} lets it go on)"
    return f" (attempt {job['attempt']})" if job["attempt"] > 1 else ""


def _numbers(row: Row) -> str:
    parts = [f"{split} {name} {value}" for split in ("train", "val") for name, value in scalars(row, split).items()]
    parts.append(f"lr {number(row['lr'][0])}")
    if row["samples_per_second"]:
        parts.append(f"{row['samples_per_second']:,.0f} samples/s")
    if check := row["early_stopping"]:
        parts.append(f"patience {check.get('wait', 0)}/{check.get('patience', '?')}")
    return "  ".join(parts)

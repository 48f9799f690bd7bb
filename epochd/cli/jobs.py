"""Verbs about jobs: preflight, ls, show, metrics, code, cancel, pause, resume, download."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from epochd.cli.shell import EXIT_BAD_INPUT, AsJson, JobId, Key, Shell, SpecFile, Url, app, shell, worded
from epochd.display.numbers import bytes_in_words, number, scalars
from epochd.wire import Job, Report, Row


@app.command()
def preflight(file: SpecFile, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Check a spec without queueing it: shapes, sizes, names, numbers."""
    with shell(url, key, as_json=as_json) as it:
        report = it.client.preflight(file.read())
        it.show(report, _report(report))
    if not report["ok"]:
        raise typer.Exit(EXIT_BAD_INPUT)


@app.command("ls")
def list_jobs(
    *,
    status: Annotated[str | None, typer.Option(help="Only jobs in this status.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    after: Annotated[str | None, typer.Option(metavar="JOB", help="Go on after this job.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    with shell(url, key, as_json=as_json) as it:
        page = it.client.jobs(status=status, name=name, limit=limit, after=after)
        it.show(page, _jobs(page["data"]))
        if page["has_more"]:
            it.note(f"more: epochd ls --after {page['data'][-1]['id']}")


@app.command()
def show(job_id: JobId, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show a job: where it stands, its best epoch, how it ended."""
    with shell(url, key, as_json=as_json) as it:
        job = it.client.job(job_id)
        if as_json:
            it.print_json(job)
        else:
            it.close(job)


@app.command()
def metrics(
    job_id: JobId,
    *,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print every epoch's metrics."""
    if as_csv and as_json:
        raise typer.BadParameter("give --csv or --json, not both")
    with shell(url, key, as_json=as_json) as it:
        if as_csv:
            typer.echo(it.client.metrics_csv(job_id), nl=False)
            return
        rows = list(it.client.metrics(job_id))
        it.show({"object": "list", "data": rows, "has_more": False}, _rows(rows))


@app.command()
def logs(job_id: JobId, *, url: Url = None, key: Key = None) -> None:
    """Print the trainer's log."""
    with shell(url, key) as it:
        typer.echo(it.client.logs(job_id), nl=False)


@app.command()
def code(job_id: JobId, *, url: Url = None, key: Key = None) -> None:
    """Print the job as one plain PyTorch file: epochd code JOB > train.py."""
    with shell(url, key) as it:
        typer.echo(it.client.code(job_id), nl=False)


@app.command()
def cancel(job_id: JobId, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """End a job; its last checkpoint is kept."""
    with shell(url, key, as_json=as_json) as it:
        _acted(it, it.client.cancel(job_id))


@app.command()
def pause(job_id: JobId, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Stop a job at a checkpoint and free its worker."""
    with shell(url, key, as_json=as_json) as it:
        _acted(it, it.client.pause(job_id))


@app.command()
def resume(job_id: JobId, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Queue a paused job again; it goes on exactly where it stopped."""
    with shell(url, key, as_json=as_json) as it:
        _acted(it, it.client.resume(job_id))


@app.command()
def download(
    job_id: JobId,
    name: Annotated[str | None, typer.Argument(help="One artifact; none: all of them.")] = None,
    *,
    to: Annotated[Path | None, typer.Option(help="Folder [. for one artifact, ./JOB for all].")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Fetch what a job left, each file checked against its digest."""
    with shell(url, key, as_json=as_json) as it:
        artifacts = it.client.artifacts(job_id)
        names = [name] if name else [artifact["name"] for artifact in artifacts]
        folder = to or Path("." if name else job_id)
        folder.mkdir(parents=True, exist_ok=True)
        for wanted in names:
            path = it.client.download(job_id, wanted, folder / Path(wanted).name)
            it.show({"name": wanted, "path": str(path)}, f"{path} ({bytes_in_words(path.stat().st_size)})")
        if not names:
            it.note(f"job {job_id} has left nothing yet")


def _acted(it: Shell, job: Job) -> None:
    it.show(job, Text(f"{job['id']} {job['status']}"))


def _jobs(jobs: Sequence[Job]) -> Table:
    table = Table("job", "name", "status", "epoch", "best", "created", box=None)
    for job in jobs:
        progress = job["progress"] or {}
        best = job["best"]
        table.add_row(
            job["id"], job["name"] or "", job["status"], f"{progress.get('epoch', 0)}/{job['spec'].get('epochs', '?')}",
            f"{best['monitor']} {number(best['value'])}" if best else "", job["created_at"][:19].replace("T", " "),
        )  # fmt: skip
    return table


def _rows(rows: Sequence[Row]) -> Table:
    names = {f"{split} {name}": None for row in rows for split in ("train", "val") for name in scalars(row, split)}
    table = Table("epoch", *names, "lr", box=None)
    for row in rows:
        values = {f"{split} {name}": value for split in ("train", "val") for name, value in scalars(row, split).items()}
        table.add_row(str(row["epoch"]), *(values.get(name, "") for name in names), number(row["lr"][0]))
    return table


def _report(report: Report) -> RenderableType:
    lines: list[RenderableType] = [Text.from_markup(worded(problem, "error", "red")) for problem in report["errors"]]
    lines += [Text.from_markup(worded(problem, "warning", "yellow")) for problem in report["warnings"]]
    if report["summary"]:
        lines.append(_layers(report["summary"]))
    lines.append("this spec can run" if report["ok"] else "this spec cannot run")
    return Group(*lines)


def _layers(summary: dict[str, Any]) -> Table:
    table = Table("layer", "type", "input", "output", "parameters", box=None)
    for layer in summary.get("layers", []):
        shapes = (str(layer.get("input_shape", "")), str(layer.get("output_shape", "")))
        table.add_row(layer["pointer"], layer["type"], *shapes, f"{layer['parameters']:,}")
    table.add_row("all", "", "", "", f"{summary['parameters']:,}")
    return table

"""Verbs for whoever runs a service: doctor, gc, backup."""

import json
import re
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from epochd import operating, remote
from epochd.cli.shell import EXIT_PROBLEM, Key, app, tell
from epochd.client import Client
from epochd.display.numbers import bytes_in_words
from epochd.errors import ClientError
from epochd.operating import Finding

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
COLORS = {"ok": "green", "warning": "yellow", "error": "red"}
WORDS = {
    "attempts": "files of attempts that nothing points to",
    "deleted_jobs": "files of jobs that were deleted",
    "uploads": "uploaded files without a data set",
    "scratch": "work folders of attempts that are over",
    "caches": "cached data that was not used for long",
    "temporary": "half-written files",
    "expired_jobs": "jobs that ended long ago",
    "datasets": "versions of data sets that no job names",
}

DataDir = Annotated[Path | None, typer.Option(envvar="EPOCHD_DATA_DIR", help="The service's data folder [~/.epochd].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def seconds(text: str) -> float:
    """Read a time such as `90d`, `12h`, `30m`, `45s`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time: give a number and s, m, h or d, such as 90d")
    return float(match[1]) * UNITS[match[2]]


@app.command()
def doctor(
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Start a trainer, too; takes a while.")] = False,
    data_dir: DataDir = None,
    url: Annotated[str | None, typer.Option("--url", help="Ask a service somewhere else, by its API alone.")] = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with the deployment on this machine, or with the service at --url; exit 1 for an error."""
    out, found = Console(soft_wrap=True, highlight=False), list[Finding]()
    with _told(as_json=as_json):
        for finding in _examined(url, key, ["--deep"] if deep else [], data_dir):
            found.append(finding)
            if not as_json:
                out.print(_worded(finding))
    has_error = any(finding["status"] == "error" for finding in found)
    if as_json:
        _print_json({"ok": not has_error, "findings": found})
    else:
        counts = {status: sum(finding["status"] == status for finding in found) for status in COLORS}
        out.print(", ".join(f"{number} {status}" for status, number in counts.items()))
    raise typer.Exit(EXIT_PROBLEM if has_error else 0)


@app.command()
def gc(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only; remove nothing.")] = False,
    older_than: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="Delete jobs that ended so long ago: 90d.")
    ] = None,
    unused_datasets: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="Delete versions, so old, that no job names: 90d."),
    ] = None,
    unused_cache: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="Caches that were not used for so long [30d].")
    ] = None,
    grace: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="Touch nothing that is younger [1h].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Though the database knows nothing of these files.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove what nothing points to; safe beside an API and workers that run."""
    times = {
        "--older-than-seconds": older_than,
        "--unused-datasets-seconds": unused_datasets,
        "--unused-cache-seconds": unused_cache,
        "--grace-seconds": grace,
    }
    flags = [flag for flag, is_set in (("--dry-run", dry_run), ("--force", force)) if is_set]
    flags += [f"{name}={value}" for name, value in times.items() if value is not None]
    with _told(as_json=as_json):
        report = operating.report_of("core.retention", flags, data_dir)
    if as_json:
        _print_json(report)
        return
    table = Table("would remove" if dry_run else "removed", "number", "size", box=None)
    for kind, tally in report["kinds"].items():
        if tally["entries"]:
            table.add_row(WORDS[kind], f"{tally['entries']:,}", bytes_in_words(tally["bytes"]))
    Console(soft_wrap=True).print(table if table.rows else "there is nothing to remove")


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; again and again, if you like.")],
    *,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Copy database and files of a running service, as of one moment."""
    with _told(as_json=as_json):
        report = operating.report_of("core.backup", [str(folder)], data_dir)
    lost = {"is missing": report["missing"], "is damaged": report["damaged"]}
    if as_json:
        _print_json(report)
    else:
        typer.echo(f"{report['database']} and {report['files']:,} new files ({bytes_in_words(report['bytes'])})")
        for word, keys in lost.items():
            for key in keys:
                typer.echo(f"{key} {word} in the deployment itself", err=True)
    raise typer.Exit(EXIT_PROBLEM if any(lost.values()) else 0)


def _examined(url: str | None, key: str | None, flags: list[str], data_dir: Path | None) -> Iterator[Finding]:
    if url is None:
        yield from operating.findings_of(flags, data_dir)
        return
    with Client(url, key, retry_seconds=0) as client:
        yield from remote.examine(client)


def _worded(finding: Finding) -> str:
    color, advice = COLORS[finding["status"]], finding["advice"]
    words = f"[{color}]{finding['status']:7}[/] {finding['check']}: {escape(finding['found'])}"
    return words if advice is None else f"{words}\n        [dim]→ {escape(advice)}[/]"


@contextmanager
def _told(*, as_json: bool) -> Generator[None]:
    try:
        yield
    except ClientError as failure:
        tell(failure, Console(stderr=True, soft_wrap=True), as_json=as_json)
        raise typer.Exit(EXIT_PROBLEM) from failure


def _print_json(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")

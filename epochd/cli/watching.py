"""Verbs that stay until a job has ended: submit and watch."""

from typing import Annotated

import typer

from epochd.cli.shell import (
    EXIT_INTERRUPTED,
    EXIT_JOB_CANCELLED,
    EXIT_JOB_FAILED,
    AsJson,
    JobId,
    Key,
    Shell,
    SpecFile,
    Url,
    app,
    shell,
)
from epochd.display.live import display_for
from epochd.wire import Job

PATIENCE_SECONDS = 300.0
"""A watch outlives a restart of the service."""
EXIT_BY_STATUS = {"succeeded": 0, "failed": EXIT_JOB_FAILED, "cancelled": EXIT_JOB_CANCELLED}


@app.command()
def submit(
    file: SpecFile,
    *,
    watch_it: Annotated[bool, typer.Option("--watch", help="Stay until the job has ended.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key and spec answer the same job again.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Queue a job and print its id."""
    with shell(url, key, as_json=as_json, retry_seconds=PATIENCE_SECONDS if watch_it else 10.0) as it:
        job = it.client.submit(file.read(), idempotency_key=idempotency_key)
        it.show(job, job["id"])
        if watch_it:
            _watch(it, job["id"])
        else:
            it.note(f"{job['status']}; follow it with: epochd watch {job['id']}")


@app.command()
def watch(job_id: JobId, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Follow a job to its end; exit 0 succeeded, 3 failed, 4 cancelled."""
    with shell(url, key, as_json=as_json, retry_seconds=PATIENCE_SECONDS) as it:
        _watch(it, job_id)


def _watch(it: Shell, job_id: str) -> None:
    try:
        job = _follow_as_json(it, job_id) if it.as_json else _follow(it, job_id)
    except KeyboardInterrupt:
        it.note(f"the job goes on without you: epochd watch {job_id}, or epochd cancel {job_id}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if not it.as_json:
        it.close(job, it.client.artifacts(job_id))
    raise typer.Exit(EXIT_BY_STATUS[job["status"]])


def _follow(it: Shell, job_id: str) -> Job:
    job = it.client.job(job_id)
    with display_for(it.out) as display:
        for update, rows in it.client.updates(job_id):
            job = update
            display.show(job, rows)
    return job


def _follow_as_json(it: Shell, job_id: str) -> Job:
    """Print one line for each epoch, and the job as the last."""
    job = it.client.job(job_id)
    for update, rows in it.client.updates(job_id):
        job = update
        for row in rows:
            it.print_json(row)
    it.print_json(job)
    return job

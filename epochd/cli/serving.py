"""Verbs that start a service: up and demo."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from epochd.cli.shell import EXIT_BAD_INPUT, Key, app, tell
from epochd.demo import run_demo
from epochd.up import CannotStart, Service


@app.command()
def up(
    host: Annotated[str, typer.Option(envvar="EPOCHD_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="EPOCHD_PORT", min=0, max=65535, help="0 takes any free port.")] = 8000,
    data_dir: Annotated[Path, typer.Option(envvar="EPOCHD_DATA_DIR", help="Database, artifacts, caches.")] = Path(
        "~/.epochd"
    ),
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 1,
    key: Key = None,
) -> None:
    """Start the API and workers here, and keep them alive until Ctrl-C."""
    try:
        Service(data_dir, host, port, workers=workers, key=key, say=typer.echo).run()
    except CannotStart as failure:
        tell(failure, Console(stderr=True, soft_wrap=True))
        raise typer.Exit(EXIT_BAD_INPUT) from failure


@app.command()
def demo(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A job spec.")],
) -> None:
    """Train a job on a throw-away service: start it, submit, watch, stop."""
    raise typer.Exit(run_demo(file, typer.echo))

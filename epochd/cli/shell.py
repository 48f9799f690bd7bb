"""What every command shares: options, output for people or for machines, exit codes, problems in words."""

import json
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.markup import escape

from epochd.client import Client
from epochd.display.summary import closing_table
from epochd.errors import BadInput, ClientError, NotPossibleNow, RequestRefused
from epochd.wire import Artifact, FieldProblem, Job

EXIT_PROBLEM = 1
EXIT_BAD_INPUT = 2
"""Also what a wrong option gives."""
EXIT_JOB_FAILED = 3
EXIT_JOB_CANCELLED = 4
EXIT_INTERRUPTED = 130

app = typer.Typer(
    help="Training as a service: submit a job spec, watch its epochs, fetch the model.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[
    str | None, typer.Option("--url", envvar="EPOCHD_URL", help="The service's address [http://127.0.0.1:8000].")
]
Key = Annotated[str | None, typer.Option("--key", envvar="EPOCHD_API_KEY", help="API key, epk_….")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the service answered it.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, job_….")]
SpecFile = Annotated[typer.FileBinaryRead, typer.Argument(metavar="FILE|-", help="A job spec; - reads standard input.")]


@dataclass(frozen=True)
class Shell:
    """One command's client and where it prints."""

    client: Client
    as_json: bool
    out: Console
    err: Console

    def show(self, answer: Any, words: RenderableType) -> None:
        """Print an answer: itself for machines, its words for people."""
        if self.as_json:
            self.print_json(answer)
        else:
            self.out.print(words)

    def print_json(self, answer: Any) -> None:
        """Print one JSON value on one line, at once."""
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def close(self, job: Job, artifacts: Sequence[Artifact] = ()) -> None:
        """Print the table that tells where a job stands, or how it ended."""
        best = job["best"]
        rows = self.client.rows(job["id"], after=best["epoch"] - 1, limit=1)["data"] if best else []
        self.out.print(closing_table(job, self.client.decisions(job["id"]), artifacts, rows[0] if rows else None))

    def note(self, words: str) -> None:
        """Say something beside the answer, to people only."""
        if not self.as_json:
            self.err.print(words, style="dim", highlight=False)


@contextmanager
def shell(url: str | None, key: str | None, *, as_json: bool = False, retry_seconds: float = 10.0) -> Generator[Shell]:
    """Open a client for one command; turn errors into words on stderr and an exit status."""
    out, err = Console(soft_wrap=not sys.stdout.isatty()), Console(stderr=True, soft_wrap=True)
    try:
        with Client(url, key, retry_seconds=retry_seconds) as client:
            yield Shell(client, as_json, out, err)
    except ClientError as failure:
        tell(failure, err, as_json=as_json)
        raise typer.Exit(exit_code(failure)) from failure


def exit_code(failure: ClientError) -> int:
    """Return 2 when the input has to change, 1 otherwise."""
    return EXIT_BAD_INPUT if isinstance(failure, BadInput) else EXIT_PROBLEM


def tell(failure: ClientError, err: Console, *, as_json: bool = False) -> None:
    """Print an error: a problem as JSON for machines, sentence by sentence for people."""
    if as_json:
        problem = failure.problem if isinstance(failure, RequestRefused) else {"detail": str(failure)}
        sys.stderr.write(json.dumps(problem, ensure_ascii=False) + "\n")
        return
    problems = failure.problem.get("errors", []) if isinstance(failure, RequestRefused) else []
    if not problems:
        err.print(f"[red]error[/]: {escape(str(failure))}", highlight=False)
    for problem in problems:
        err.print(worded(problem, "error", "red"), highlight=False)
    if isinstance(failure, NotPossibleNow) and (allowed := failure.problem.get("allowed_actions")):
        err.print(f"  possible now: {', '.join(allowed)}", highlight=False)


def worded(problem: FieldProblem, word: str, color: str) -> str:
    """Return pointer, sentence, and hint of one problem, as rich markup."""
    place = f" at [bold]{escape(problem['pointer'])}[/]" if problem["pointer"] else ""
    hint = f"\n  hint: {escape(problem['hint'])}" if "hint" in problem else ""
    return f"[{color}]{word}[/]{place}: {escape(problem['detail'])}{hint}"

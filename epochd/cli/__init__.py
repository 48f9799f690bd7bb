"""The command line: `epochd <verb>`."""

from epochd.cli import jobs, keys, operating, serving, watching
from epochd.cli.shell import app

__all__ = ["app", "jobs", "keys", "main", "operating", "serving", "watching"]


def main() -> None:
    """Run one command; the exit status says whether what was asked happened."""
    app(prog_name="epochd")

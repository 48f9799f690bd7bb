"""Verbs about API keys."""

from typing import Annotated

import typer
from rich.table import Table

from epochd.cli.shell import AsJson, Key, Url, app, shell

keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys, name="keys")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, or what for.")],
    *,
    project: Annotated[str | None, typer.Option(help="The project that it belongs to [your own].")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="jobs:read, jobs:write, datasets:read, datasets:write or admin; repeatable."),
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its secret, which is shown this once."""
    with shell(url, key, as_json=as_json) as it:
        made = it.client.create_key(name, project=project, scopes=scope)
        it.show(made, made.get("key", ""))
        it.note(f"{made['id']} for project {made['project']}: keep the secret, it is not shown again")


@keys.command("ls")
def list_keys(*, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List keys, without their secrets."""
    with shell(url, key, as_json=as_json) as it:
        found = it.client.keys()
        table = Table("key", "name", "project", "scopes", "begins", "", box=None)
        for one in found:
            state = "revoked" if one["revoked_at"] else ""
            table.add_row(one["id"], one["name"], one["project"], " ".join(one["scopes"]), one["hint"], state)
        it.show({"object": "list", "data": found, "has_more": False}, table)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `keys ls` shows it.")],
    *,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a key invalid, at once and for good."""
    with shell(url, key, as_json=as_json) as it:
        it.client.revoke_key(key_id)
        it.show({"id": key_id, "revoked": True}, f"{key_id} revoked")

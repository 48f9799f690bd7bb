"""`python -m core.doctor`: one JSON object a line, a finding each; the exit status is 1 where one is an error."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator

from pydantic import ValidationError

from core.db.engine import Database
from core.doctor import broker, database, machine, service, storage, template
from core.doctor.findings import Finding, error, ok, warning
from core.errors import DatabaseAway
from core.settings import Settings, load_settings

Look = Callable[[], Iterator[Finding]]


def examine(*, is_deep: bool = False) -> Iterator[Finding]:
    """Yield what is found, room by room; one that fails does not keep the others from being looked at."""
    try:
        settings = load_settings()
    except ValidationError as failure:
        for problem in failure.errors():
            name = f"EPOCHD_{'_'.join(map(str, problem['loc'])).upper()}"
            yield error("settings", f"{name}: {problem['msg']}.", "See docs/configuration.md.")
        return
    yield _leases(settings)
    yield from _guarded("database", lambda: _database(settings))
    rooms: dict[str, Look] = {
        "broker": lambda: broker.look(settings),
        "storage": lambda: storage.look(settings),
        "machine": lambda: machine.look(settings),
    }
    if is_deep:
        rooms["template"] = lambda: template.look(settings)
    for name, look in rooms.items():
        yield from _guarded(name, look)


def _database(settings: Settings) -> Iterator[Finding]:
    absent = list(database.is_there(settings))
    if absent:
        yield from absent
        return
    opened = Database(settings.sqlalchemy_url)
    is_ours = True
    try:
        for finding in database.look(settings, opened):
            is_ours &= finding.check != "database.revision" or finding.status != "error"
            yield finding
        if is_ours:
            yield from service.look(opened)
    except DatabaseAway as failure:
        yield database.away(failure)
    finally:
        opened.dispose()


def _leases(settings: Settings) -> Finding:
    beat, lease = settings.heartbeat_seconds, settings.lease_seconds
    found = f"A lease of {lease:g} s is renewed every {beat:g} s."
    if beat * 2 < lease:
        return ok("settings", found, lease_seconds=lease, heartbeat_seconds=beat)
    advice = "One late heartbeat loses the job: set EPOCHD_LEASE_SECONDS to three heartbeats or more."
    return warning("settings", found, advice, lease_seconds=lease, heartbeat_seconds=beat)


def _guarded(room: str, look: Look) -> Iterator[Finding]:
    try:
        yield from look()
    except Exception as failure:  # noqa: BLE001 - whatever is broken, the other rooms are looked at
        yield error(
            room, f"It could not be looked at: {type(failure).__name__}: {failure}", "This is the trouble itself."
        )


def main() -> int:
    """Print the findings."""
    parser = argparse.ArgumentParser(prog="python -m core.doctor", description="Started by `epochd doctor`.")
    parser.add_argument("--deep", action="store_true", help="start a trainer, too")
    has_error = False
    for finding in examine(is_deep=parser.parse_args().deep):
        has_error |= finding.status == "error"
        sys.stdout.write(json.dumps(finding.as_json()) + "\n")
        sys.stdout.flush()
    return 1 if has_error else 0


if __name__ == "__main__":
    sys.exit(main())

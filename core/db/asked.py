"""What every poll asks: who holds a secret, whether a key was ever made, and whether a job has news.

One statement for all of it: a round trip costs a poll more than what is looked up.
"""

import hmac
from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Boolean, CompoundSelect, and_, bindparam, case, literal_column, null, select, union_all

from core.db import keys
from core.db.among import Reader, among, is_postgresql, values
from core.db.keys import Holder
from core.db.states import TERMINAL
from core.db.tables import ApiKey, Job


class Head(NamedTuple):
    """Of a job what tells whether anything is new.

    Attributes:
        version: +1 with every change a client can see.
        last_epoch: the newest row of metrics, none while there is no row.
    """

    job_id: str
    project: str
    version: int
    state: str
    last_epoch: int | None

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self.state in TERMINAL


class Answers(NamedTuple):
    """What was found; what is not there, or no key any more, is left out.

    Attributes:
        holders: by secret.
        heads: by job, of any project.
        has_keys: whether a key was ever made; false where that was not asked.
    """

    holders: dict[str, Holder]
    heads: dict[str, Head]
    has_keys: bool


def answers(
    reader: Reader, *, secrets: Collection[str] = (), job_ids: Collection[str] = (), asks_for_keys: bool = False
) -> Answers:
    """Look up several questions at once. Writes nothing.

    The index finds a key by digest, of which a caller cannot choose single digits; the comparison that counts takes
    the same time for any of them.
    """
    on_postgresql = is_postgresql(reader)
    digests = {secret: keys.digest(secret) for secret in secrets}
    rows = reader.execute(
        _statement(on_postgresql=on_postgresql),
        {
            **values(digests.values(), name="digests", on_postgresql=on_postgresql),
            **values(job_ids, name="job_ids", on_postgresql=on_postgresql),
            "asks_for_keys": asks_for_keys,
        },
    )
    kept: dict[str, tuple[str, Holder]] = {}
    heads: dict[str, Head] = {}
    has_keys = False
    for row in rows:
        match tuple(row):
            case ("job", job_id, *head):
                heads[job_id] = Head(job_id, *head[:4])
            case ("key", digest, project, _, key_id, _, scopes):
                kept[digest] = digest, Holder(key_id, project, scopes)
            case _:
                has_keys = True
    holders = {
        secret: kept[digest][1]
        for secret, digest in digests.items()
        if digest in kept and hmac.compare_digest(kept[digest][0], digest)
    }
    return Answers(holders, heads, has_keys)


@cache
def _statement(*, on_postgresql: bool) -> CompoundSelect[Any]:
    """Build the statement; the types of its columns are those of the first rows."""
    key, job, any_key = (literal_column(f"'{kind}'") for kind in ("key", "job", "any"))
    last_epoch = case((Job.latest_metrics.is_not(None), Job.epochs_done))
    return union_all(
        select(key, ApiKey.secret_sha256, ApiKey.project, null(), ApiKey.id, null(), ApiKey.scopes).where(
            among(ApiKey.secret_sha256, name="digests", on_postgresql=on_postgresql), ApiKey.revoked_at.is_(None)
        ),
        select(job, Job.id, Job.project, Job.version, Job.state, last_epoch, null()).where(
            among(Job.id, name="job_ids", on_postgresql=on_postgresql)
        ),
        select(any_key, null(), null(), null(), null(), null(), null()).where(
            and_(bindparam("asks_for_keys", type_=Boolean), keys.EXIST)
        ),
    )

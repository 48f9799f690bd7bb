"""API keys: who may call, for which project, to do what. Only the digest of a secret is kept."""

from collections.abc import Sequence
from hashlib import sha256
from secrets import token_urlsafe
from typing import Literal, NamedTuple, get_args

from sqlalchemy import ColumnElement, exists, or_, select, update
from sqlalchemy.orm import Session

from core import ids
from core.db.clock import now
from core.db.inserts import insert
from core.db.tables import ApiKey
from core.errors import NotFound

Scope = Literal["jobs:read", "jobs:write", "datasets:read", "datasets:write", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_PROJECT = "default"
PREFIX = "epk_"
SECRET_BYTES = 32
HINT_CHARACTERS = 8
USED_SECONDS = 60.0  # the last use is written down at most so often


def create(session: Session, project: str, name: str, scopes: Sequence[Scope]) -> tuple[ApiKey, str]:
    """Make a key and return it with its secret, which nobody can read again.

    Raises:
        ValueError: a scope is none of `SCOPES`.
    """
    if unknown := set(scopes) - set(SCOPES):
        raise ValueError(f"unknown scopes {sorted(unknown)}; there are {', '.join(SCOPES)}")
    secret = PREFIX + token_urlsafe(SECRET_BYTES)
    key = ApiKey(id=ids.new("key"), project=project, name=name, scopes=list(scopes), **_kept(secret))
    session.add(key)
    session.flush()
    return key, secret


def ensure(session: Session, secret: str, project: str = DEFAULT_PROJECT) -> None:
    """Make sure that the operator's own first key exists, as an admin's of the project. A revoked one stays revoked."""
    session.execute(
        insert(session, ApiKey)
        .values(id=ids.new("key"), project=project, name="EPOCHD_API_KEY", scopes=["admin"], **_kept(secret))
        .on_conflict_do_nothing(index_elements=["secret_sha256"])
    )


class Holder(NamedTuple):
    """Whom a secret belongs to."""

    id: str
    project: str
    scopes: list[Scope]


def used(session: Session, key_id: str) -> None:
    """Write down that the key was used, at most once a minute."""
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now(-USED_SECONDS)))
        .values({"last_used_at": now()}),
        execution_options={"synchronize_session": False},
    )


EXIST = exists().where(ApiKey.id.is_not(None))
"""Whether a key was ever made: revoking the last one does not open the service again."""


def any_exist(session: Session) -> bool:
    """Tell whether a key was ever made."""
    return bool(session.execute(select(EXIST)).scalar_one())


def listing(session: Session, project: str | None) -> list[ApiKey]:
    """Return the project's keys (none: of all projects), revoked ones too, the first one first."""
    return list(session.scalars(select(ApiKey).where(*_of(project)).order_by(ApiKey.id)))


def revoke(session: Session, project: str | None, key_id: str) -> ApiKey:
    """End a key of the project (none: of any) for good; again changes nothing.

    Raises:
        NotFound: the project has no such key.
    """
    session.execute(
        update(ApiKey)
        .where(*_of(project), ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values({"revoked_at": now()}),
        execution_options={"synchronize_session": False},
    )
    statement = select(ApiKey).where(*_of(project), ApiKey.id == key_id)
    key = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if key is None:
        raise NotFound(f"There is no key {key_id!r} in this project.")
    return key


def _of(project: str | None) -> list[ColumnElement[bool]]:
    return [] if project is None else [ApiKey.project == project]


def digest(secret: str) -> str:
    """Digest the secret; its 32 random bytes need no salt and no slow hash."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _kept(secret: str) -> dict[str, str]:
    return {"secret_sha256": digest(secret), "hint": secret[:HINT_CHARACTERS]}

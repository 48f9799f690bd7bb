"""API keys, for admins."""

from typing import Any

from fastapi import APIRouter

from api.dependencies import Admin, JsonBody, Svc
from api.parameters import KeyId, problems
from api.schemas.base import Listing
from api.schemas.operation import KeyBody, KeyWanted, NewKeyBody, key_body
from api.schemas.parsing import parsed
from core.db import keys
from core.errors import Forbidden

router = APIRouter(prefix="/keys", tags=["keys"])

BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": KeyWanted.ref(), "example": {"name": "laptop"}}},
}


@router.post("", status_code=201, openapi_extra={"requestBody": BODY}, responses=problems(400, 413, 415, 422))
def create(svc: Svc, who: Admin, body: JsonBody) -> NewKeyBody:
    """Make a key. From the first one on nothing is answered without a key."""
    wanted = parsed(KeyWanted, body)
    if wanted.project != who.project and not who.rules_all:
        raise Forbidden(f"this key makes keys of its own project {who.project!r} only")
    with svc.database.session_scope() as session:
        row, secret = keys.create(session, wanted.project, wanted.name, wanted.scopes)
        session.refresh(row)
    return NewKeyBody(**key_body(row).model_dump(), key=secret)


@router.get("")
def listing(svc: Svc, who: Admin) -> Listing[KeyBody]:
    """List the keys, revoked ones too; no secret is among them."""
    with svc.database.session_scope(write=False) as session:
        rows = keys.listing(session, None if who.rules_all else who.project)
    return Listing(data=[key_body(row) for row in rows])


@router.delete("/{key_id}", status_code=204, responses=problems(404))
def revoke(svc: Svc, who: Admin, key_id: KeyId) -> None:
    """Revoke a key at once and for good."""
    with svc.database.session_scope() as session:
        keys.revoke(session, None if who.rules_all else who.project, key_id)

"""Conditional requests (RFC 9110) and `Prefer: wait` (RFC 7240): polling that costs little."""

import re
from typing import Any

from fastapi import Request, Response

WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9}(?:\.\d+)?)\"?\s*(?=[,;]|$)", re.IGNORECASE)


def _header(name: str, description: str, example: str) -> dict[str, Any]:
    schema = {"type": "string", "examples": [example]}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


_SEEN = _header("If-None-Match", "An ETag that was seen; 304 while it is still right.", '"7"')
_PREFER = _header("Prefer", "`wait=30`: answer at the next change, after 30 seconds at the latest.", "wait=30")
CONDITIONAL: dict[str, Any] = {"parameters": [_SEEN]}
POLLED: dict[str, Any] = {"parameters": [_PREFER, _SEEN]}
"""What the document says of a route's headers (`openapi_extra`). They are read here and not by FastAPI, which takes as
long for parameters that a poll does not use as for those that it does."""


def etag_of(version: int) -> str:
    """Return the ETag of a job's representation."""
    return f'"{version}"'


def wait_seconds(request: Request, most: float) -> float:
    """Return for how long the client would wait, at most `most`; 0 where it does not say or not readably."""
    found = WAIT.search(",".join(request.headers.getlist("prefer")))
    return min(float(found[1]), most) if found else 0.0


def has_seen(request: Request, etag: str) -> bool:
    """Say whether If-None-Match names this ETag."""
    seen = request.headers.get("if-none-match", "")
    return etag in {tag.strip().removeprefix("W/") for tag in seen.split(",")} or seen.strip() == "*"


def conditional(
    request: Request, body: bytes, etag: str, *, media: str, vary: str | None = None, waited: float = 0.0
) -> Response:
    """Return the body with its ETag, or a 304 where the client has seen it."""
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if vary is not None:
        headers["Vary"] = vary
    if waited:
        headers["Preference-Applied"] = f"wait={waited:g}"
    if has_seen(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media, headers=headers)

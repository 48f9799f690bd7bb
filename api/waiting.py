"""Conditional requests (RFC 9110) and `Prefer: wait` (RFC 7240): polling that costs little."""

import re
from typing import Annotated

from fastapi import Header, Request, Response

WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9}(?:\.\d+)?)\"?\s*(?=[,;]|$)", re.IGNORECASE)

Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`wait=30`: answer at the next change, after 30 seconds at the latest.",
        examples=["wait=30"],
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", description="An ETag that was seen; 304 while it is still right.", examples=['"7"']),
]


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

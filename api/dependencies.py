"""What routes ask for: the application's services, the caller, and a body that was read under its limit.

They are coroutines, also where they wait for nothing: FastAPI runs a plain function in a thread, which costs a request
more than all that is done here. They name no dependencies of their own: FastAPI solves a tree of them anew for every
place that names it, and half of a poll's time went there.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from api.access import Caller
from api.services import Services
from core.db.keys import Scope
from core.errors import Forbidden, Malformed, TooLarge, UnsupportedMedia


async def services(request: Request) -> Services:
    """Return what this application was made with."""
    return cast("Services", request.app.state.services)


Svc = Annotated[Services, Depends(services)]


async def caller(request: Request) -> Caller:
    """Return who asks, found out once a request; every router but health's depends on it.

    Raises:
        Unauthenticated: no key where one is needed, or one that is not valid.
        Forbidden: a keyless request that may come from a stranger's web page.
        UnsupportedMedia: a keyless request with a body that is no JSON.
    """
    known: Caller | None = getattr(request.state, "caller", None)
    if known is None:
        known = request.state.caller = await (await services(request)).gate.identify(request)
    return known


def needs(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """Return a dependency that lets callers with `scope` pass."""

    async def check(request: Request) -> Caller:
        who = await caller(request)
        if not who.may(scope):
            raise Forbidden(f"this key lacks the scope `{scope}`; it has {', '.join(sorted(who.scopes)) or 'none'}")
        return who

    return check


job_reader = needs("jobs:read")
JobReader = Annotated[Caller, Depends(job_reader)]
JobWriter = Annotated[Caller, Depends(needs("jobs:write"))]
DatasetReader = Annotated[Caller, Depends(needs("datasets:read"))]
DatasetWriter = Annotated[Caller, Depends(needs("datasets:write"))]
Admin = Annotated[Caller, Depends(needs("admin"))]


def check_length(request: Request, limit: int) -> None:
    """Refuse a body that says of itself that it is too large, before a byte of it is read.

    Raises:
        Malformed: the length is no number.
        TooLarge: it is more than `limit`.
    """
    length = request.headers.get("content-length", "0")
    if not length.isdecimal():
        raise Malformed(f"Content-Length {length!r} is no number")
    if int(length) > limit:
        raise TooLarge(f"the body has {length} bytes; {limit} are allowed here")


async def limited(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """Yield the body piece by piece, whatever its length header says; `state.is_body_read` tells when it was whole.

    Raises:
        TooLarge: more than `limit` came.
        ClientDisconnect: the client is gone.
    """
    size, is_whole = 0, False
    while not is_whole:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, is_whole = message.get("body", b""), not message.get("more_body", False)
        request.state.is_body_read = is_whole
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than the {limit} bytes that are allowed here")
        yield chunk


async def json_body(request: Request) -> bytes:
    """Return the bytes of a JSON body, unread by FastAPI: parsers of our own know line, column and pointer.

    Raises:
        UnsupportedMedia: the content type is not JSON.
        TooLarge: more than `settings.max_body_bytes`.
    """
    limit = (await services(request)).settings.max_body_bytes
    await caller(request)  # a stranger's body is not read
    check_length(request, limit)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise UnsupportedMedia(f"the content type is {media or 'missing'}; this route takes application/json")
    return b"".join([chunk async for chunk in limited(request, limit)])


JsonBody = Annotated[bytes, Depends(json_body)]

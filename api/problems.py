"""Every error as `application/problem+json` (RFC 9457), FastAPI's and Starlette's own included."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from api.broker import BrokerAway
from core.errors import (
    ChildFailed,
    DatabaseAway,
    EpochdError,
    Issue,
    Malformed,
    StorageFull,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
)

log = structlog.get_logger(__name__)

TYPE_BASE = "https://epochd.dev/problems/"
RETRY_AFTER_SECONDS = {DatabaseAway: 2, BrokerAway: 2, ChildFailed: 2, TooManyRequests: 1, StorageFull: 60}
LINGER_SECONDS = 20.0
"""After a 413 or 507 a client may go on sending for so long; what comes is dropped, so that it reads the answer."""


class Problem(JSONResponse):
    """A problem on its way out."""

    media_type = "application/problem+json"


class LingeringProblem(Problem):
    """A 413 or 507: answered at once; then the rest of the body is read and dropped: a reset would hide the answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, then drain."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        expects_a_word = any(name == b"expect" for name, _ in scope["headers"])  # has sent nothing, and will not
        if not expects_a_word:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while (await receive()).get("more_body", False):
                        pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def body_of(
    request: Request,
    *,
    slug: str,
    title: str,
    status: int,
    detail: str,
    issues: Sequence[Issue] = (),
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a problem's JSON."""
    return {
        "type": TYPE_BASE + slug,
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "errors": [issue.as_json() for issue in issues],
        **(extra or {}),
    }


def render(request: Request, error: EpochdError) -> Response:
    """Return an error of our own tree as a response."""
    if error.status >= 500 and not isinstance(error, tuple(RETRY_AFTER_SECONDS)):
        return _internal(request)
    body = body_of(
        request,
        slug=error.slug,
        title=error.title,
        status=error.status,
        detail=error.detail,
        issues=error.issues,
        extra=error.extra,
    )
    seconds = next((seconds for kind, seconds in RETRY_AFTER_SECONDS.items() if isinstance(error, kind)), None)
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    may_still_send = isinstance(error, TooLarge | StorageFull) and not getattr(request.state, "is_body_read", False)
    if may_still_send:
        headers["Connection"] = "close"  # the next request would wait behind what is still being drained
    kind = LingeringProblem if may_still_send else Problem
    return kind(body, error.status, headers=headers)


async def on_error(request: Request, error: Exception) -> Response:
    """Answer an error of our own tree."""
    own = cast("EpochdError", error)
    if own.status >= 500:
        log.warning("request.failed", path=request.url.path, error=own.slug, detail=own.detail)
    return render(request, own)


async def on_validation(request: Request, error: Exception) -> Response:
    """Answer parameters that are not what the route asks for: 400 where they stand in the URL, 422 in the body."""
    errors = cast("RequestValidationError", error).errors()
    issues = [_issue(item) for item in errors]
    in_body = any(item["loc"][0] == "body" for item in errors)
    wanted = any(item["type"] == "json_invalid" for item in errors)
    detail = "; ".join(issue.detail for issue in issues)
    if in_body and not wanted:
        body = body_of(request, slug="invalid", title="Cannot work", status=422, detail=detail, issues=issues)
        return Problem(body, 422)
    return render(request, Malformed(detail, issues=issues))


async def on_http(request: Request, error: Exception) -> Response:
    """Answer what Starlette and FastAPI raise by themselves: unknown paths, methods, unreadable bodies."""
    own = cast("HTTPException", error)
    status = HTTPStatus(own.status_code)
    words = _DETAILS.get(own.status_code)
    detail = words.format(method=request.method, path=request.url.path) if words else str(own.detail)
    return refusal(request, status.value, detail, headers=own.headers)


def refusal(request: Request, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem of HTTP itself, named by its status."""
    title = HTTPStatus(status).phrase
    body = body_of(request, slug=title.lower().replace(" ", "-"), title=title, status=status, detail=detail)
    return Problem(body, status, headers=headers)


async def on_crash(request: Request, _error: Exception) -> Response:
    """Answer what should not happen, without its internals; the server logs the traceback."""
    return _internal(request)


def install(app: FastAPI) -> None:
    """Make the application answer every error as a problem."""
    app.add_exception_handler(EpochdError, on_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_crash)


_DETAILS = {
    404: "There is no {path} here; see /docs for what there is.",
    405: "{method} is not possible on {path}; the Allow header names what is.",
}


def _internal(request: Request) -> Response:
    detail = "Something went wrong inside the service; its log says what. The request may be repeated."
    return Problem(body_of(request, slug="error", title="Internal error", status=500, detail=detail), 500)


def _issue(item: Any) -> Issue:
    place, *path = item["loc"]
    if place == "body":
        pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
        return Issue(pointer, item["type"], f"{pointer or 'The body'}: {item['msg']}")
    name = str(path[0]) if path else str(place)
    return Issue("", item["type"], f"{place} parameter `{name}`: {item['msg']}", hint="see /docs for its range")

"""Routes that are asked again and again: the usual request reaches them past FastAPI's way to an endpoint.

FastAPI searches included routers, and solves a route's parameters and dependencies anew, for every request; that took
most of a poll's time. What is declared still holds: it documents the route, and it judges every request that is not
as usual.
"""

import re
from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api.dependencies import job_reader, services

JOB_ID = "(?P<job_id>job_[0-9a-f]{32})"
PAGE = re.compile(rb"(?:after=(?P<after>\d{1,7}))?(?:(?:^|(?<=\d)&)limit=(?P<limit>[1-9]\d{0,3}))?")
"""The queries that need no judgement: within the bounds of every page, in the order in which clients send them."""
ASKED = "epochd.page"
"""Where the scope keeps what the query asks for."""


class Polled(BaseRoute):
    """A route that takes the usual GET of one job by a reader, and leaves every other request to the declared one.

    It checks key and scope by the dependency that the declared route names.

    Args:
        prefix: of the declared route's path.
        declared: takes no parameters but `after` and `limit`.
    """

    def __init__(self, prefix: str, declared: APIRoute) -> None:
        self._endpoint = declared.endpoint
        self._path = re.compile(re.escape(prefix + declared.path).replace(r"\{job_id\}", JOB_ID))
        self._is_paged = "after" in signature(declared.endpoint).parameters

    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Take a request if it is as usual."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return Match.NONE, {}
        found = self._path.fullmatch(scope["path"])
        page = None if found is None else self._page(scope["query_string"])
        if found is None or page is None:
            return Match.NONE, {}
        return Match.FULL, {"route": self, "path_params": found.groupdict(), ASKED: page}

    @override
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer it."""
        request = Request(scope, receive, send)
        who = await job_reader(request)
        job_id, page = scope["path_params"]["job_id"], scope[ASKED]
        answer: Response = await self._endpoint(await services(request), who, job_id, request, **page)
        await answer(scope, receive, send)

    @override
    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Leave names to the declared route."""
        raise NoMatchFound(name, path_params)

    def _page(self, query: bytes) -> dict[str, int] | None:
        """Return what the query asks for, None where it is FastAPI's to judge."""
        if not query:
            return {}
        found = PAGE.fullmatch(query) if self._is_paged else None
        return None if found is None else {name: int(value) for name, value in found.groupdict().items() if value}


def polled(prefix: str, routes: Sequence[BaseRoute]) -> Iterator[Polled]:
    """Yield what has to come before the declared routes."""
    return (Polled(prefix, route) for route in routes if isinstance(route, APIRoute))

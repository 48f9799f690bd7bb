"""Routes that are asked again and again: the usual request reaches them past FastAPI's search for parameters.

FastAPI solves a route's parameters and dependencies anew for every request; that took half of a poll's time. What is
declared still holds: it documents the route, and it judges every request that is not as usual.
"""

import re
from collections.abc import Callable, Coroutine
from inspect import signature
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from typing_extensions import override

from api.dependencies import job_reader, services
from core import ids

PAGE = re.compile(rb"(?:after=(?P<after>\d{1,7}))?(?:(?:^|(?<=\d)&)limit=(?P<limit>[1-9]\d{0,3}))?")
"""The queries that need no judgement: within the bounds of every page, in the order in which clients send them."""


class Polled(APIRoute):
    """A GET of one job by readers, which takes no parameters but `after` and `limit`."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        declared, endpoint = super().get_route_handler(), self.endpoint
        is_paged = "after" in signature(endpoint).parameters

        async def handle(request: Request) -> Response:
            job_id: str = request.path_params["job_id"]
            page = _page(request.scope["query_string"], is_paged=is_paged)
            if page is None or not ids.is_id("job", job_id):
                return await declared(request)
            who = await job_reader(request)
            answer: Response = await endpoint(await services(request), who, job_id, request, **page)
            return answer

        return handle


def _page(query: bytes, *, is_paged: bool) -> dict[str, int] | None:
    """Return what the query asks for, None where it is FastAPI's to judge."""
    if not query:
        return {}
    found = PAGE.fullmatch(query) if is_paged else None
    return None if found is None else {name: int(value) for name, value in found.groupdict().items() if value}

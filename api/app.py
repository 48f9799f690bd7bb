"""The application: `create_app(settings)` puts services, routes and problems together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from typing_extensions import override

from api import openapi, problems
from api.dependencies import caller
from api.parameters import problems as documented
from api.polled import polled
from api.preflight import PRELOAD, SPARE
from api.routes import artifacts, code, components, datasets, documents, health, jobs, keys, operation, polls, series
from api.services import Services
from api.telemetry import Measured
from core import versions
from core.process import Template
from core.settings import Settings

PREFIX = "/v1"
DESCRIPTION = """Training as a service: post what to train as JSON, a worker trains it with PyTorch, and every epoch's
metrics and every early-stopping decision are rows that you poll.

Errors are `application/problem+json` (RFC 9457). Times are UTC. Polling is cheap with `ETag` and `Prefer: wait=30`."""


def create_app(settings: Settings, *, template: Template | None = None) -> FastAPI:
    """Build the service; its database must be migrated before it answers.

    Args:
        settings: of this deployment.
        template: the warm process that preflight's children are forked from; none: one of its own.
    """
    log = settings.home / "logs" / "preflight.log"
    env = {"TORCHINDUCTOR_CACHE_DIR": str(settings.caches / "inductor")}
    services = Services.build(settings, template or Template(PRELOAD, env=env, log=log, spare=SPARE))
    app = Api(
        title="epochd",
        summary="Training as a service",
        description=DESCRIPTION,
        version=versions.own(),
        openapi_url=None,  # served by a route, for callers with a key
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    app.add_middleware(Measured, telemetry=services.telemetry)
    problems.install(app)
    _include_guarded(app)
    app.include_router(health.router)
    return app


class Api(FastAPI):
    """FastAPI with a document that knows the bodies which FastAPI does not parse."""

    @override
    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        return openapi.document(self)


def _include_guarded(app: FastAPI) -> None:
    """Add the routes that ask who calls, all but health's; those that are polled come first, where they are found."""
    app.router.routes.extend(polled(PREFIX, polls.router.routes))
    for module in (polls, jobs, series, artifacts, code, datasets, components, operation, keys, documents):
        app.include_router(
            module.router,
            prefix="" if module is documents else PREFIX,
            dependencies=[Depends(caller)],
            responses=documented(401, 403, 503),
        )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with app.state.services.running():
        yield

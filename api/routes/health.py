"""Whether the process is up, and what it needs is there. Alone open to everybody."""

from fastapi import APIRouter

from api.dependencies import Svc
from api.parameters import problems
from api.schemas.operation import Health, Readiness

router = APIRouter(tags=["operation"])


@router.get("/healthz")
async def healthz() -> Health:
    """Say that the process is up."""
    return Health()


@router.get("/readyz", responses=problems(503))
def readyz(svc: Svc) -> Readiness:
    """Say whether database and broker answer. Without the broker jobs are still accepted, and start later."""
    svc.database.ping()
    return Readiness(broker=None if svc.broker is None else svc.broker.ping())

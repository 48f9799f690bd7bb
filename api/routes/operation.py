"""Workers and the queue."""

from fastapi import APIRouter

from api.dependencies import JobReader, Svc
from api.schemas.base import Listing
from api.schemas.operation import QueueBody, WorkerBody, worker_body
from core.db import workers as rows

router = APIRouter(tags=["operation"])


@router.get("/workers")
def workers(svc: Svc, who: JobReader) -> Listing[WorkerBody]:
    """List the workers that are there, and which of the project's jobs each runs."""
    with svc.database.session_scope(write=False) as session:
        found, running = rows.listing(session), rows.running(session, who.project)
    return Listing(data=[worker_body(row, running.get(row.id, [])) for row in found])


@router.get("/queue")
def queue(svc: Svc, who: JobReader) -> Listing[QueueBody]:
    """Count the project's jobs that wait and run, by queue."""
    with svc.database.session_scope(write=False) as session:
        counts = rows.queue(session, who.project)
    return Listing(data=[QueueBody(name=name, **count) for name, count in counts.items()])

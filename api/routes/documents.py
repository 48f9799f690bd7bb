"""Prometheus' page, and the API's own documentation: for callers with a key, as everything but health."""

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import HTMLResponse, JSONResponse

from api.dependencies import JobReader, Svc

router = APIRouter(tags=["operation"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": "epochd_jobs 1\n"}}}},
)
def metrics(svc: Svc, who: JobReader) -> Response:
    """Give numbers to Prometheus: requests, latencies, and jobs by state (an operator's key counts all projects)."""
    return Response(svc.telemetry.exposition(None if who.rules_all else who.project), media_type=CONTENT_TYPE_LATEST)


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request) -> JSONResponse:
    """Describe this API."""
    return JSONResponse(request.app.openapi())


@router.get("/docs", include_in_schema=False)
def docs() -> HTMLResponse:
    """Show the description to people."""
    return get_swagger_ui_html(openapi_url="/openapi.json", title="epochd")

"""Files of jobs: artifacts on their way out, logs, and what a deleted job leaves."""

import mimetypes
import os
from collections.abc import Iterator
from typing import IO
from urllib.parse import quote

import structlog
from fastapi import Request, Response
from starlette.responses import FileResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from api.problems import refusal
from api.services import Services
from api.waiting import has_seen
from core.db.tables import Artifact
from core.errors import NotFound

log = structlog.get_logger(__name__)

CHUNK_BYTES = 1 << 18
LOG_NAME = "trainer.log"


def send(svc: Services, request: Request, artifact: Artifact) -> Response:
    """Return an artifact's bytes, with ranges where they lie on this machine.

    Raises:
        NotFound: the row is there and the file is not.
    """
    headers = {"ETag": f'"{artifact.sha256}"', "Cache-Control": "private, no-cache"}
    if has_seen(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    path = svc.storage.local_path(artifact.key)
    if path is not None and path.is_file():
        return Download(path, headers=headers, media_type=_media(artifact), filename=artifact.name)
    try:
        file = svc.storage.open(artifact.key)
    except FileNotFoundError as error:
        raise NotFound(f"the file of {artifact.name!r} is gone from the storage") from error
    headers["Content-Length"] = str(artifact.size_bytes)
    headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(artifact.name)}"
    return StreamingResponse(_chunks(file), headers=headers, media_type=_media(artifact))


class Download(FileResponse):
    """A file whose ranges, where they make no sense, are refused with a problem."""

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or the part of it that is asked for."""
        refused: int | None = None

        async def unless_refused(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
                refused = message["status"]
            if refused is None:
                await send(message)

        await super().__call__(scope, receive, unless_refused)
        if refused is not None:
            problem = refusal(Request(scope), refused, _REFUSALS[refused])
            await problem(scope, receive, send)


_REFUSALS = {400: "the Range header cannot be read", 416: "the range lies outside of the file"}


def log_tail(svc: Services, job_id: str, fence: int, tail: int | None) -> bytes:
    """Return the end of an attempt's log, empty where there is none yet."""
    try:
        with svc.storage.open(f"{folder_of(job_id)}/{fence}/{LOG_NAME}") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - min(tail or size, svc.settings.max_log_bytes)))
            return file.read(svc.settings.max_log_bytes)
    except FileNotFoundError:
        return b""


def forget(svc: Services, job_id: str) -> None:
    """Delete a deleted job's files; what cannot be deleted now is garbage for later."""
    try:
        svc.storage.delete_prefix(folder_of(job_id))
    except OSError as error:
        log.warning("files.not_deleted", job_id=job_id, error=str(error))


def folder_of(job_id: str) -> str:
    """Return the key below which all files of a job lie."""
    return f"jobs/{job_id}"


def _media(artifact: Artifact) -> str:
    return mimetypes.guess_type(artifact.name)[0] or "application/octet-stream"


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk

"""The upload form: multipart, streamed to disk under a limit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, BinaryIO

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.dependencies import check_length, limited
from core.datasets.formats import FORMATS
from core.errors import Invalid, Issue, Malformed, UnsupportedMedia

FORM_BYTES = 1 << 16
"""Of everything in the form but the file."""
MAX_NAME = 200

UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "format"],
                "properties": {
                    "file": {"type": "string", "format": "binary", "description": "The bytes."},
                    "format": {
                        "enum": list(FORMATS),
                        "description": "`images`: a zip of one folder per class; `jsonl`: sequences of ids or vectors.",
                    },
                    "name": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": MAX_NAME,
                        "description": "The data set's; a known one gets a new version. The file's name by default.",
                    },
                },
            }
        }
    },
}


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: str
    name: str = Field(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00-\x1f]*$")


@dataclass(frozen=True, slots=True)
class UploadForm:
    """What was sent."""

    name: str
    format: str
    filename: str | None
    file: BinaryIO


@asynccontextmanager
async def upload_form(request: Request, max_bytes: int) -> AsyncIterator[UploadForm]:
    """Read the form; its temporary file is gone at the end of the block.

    Raises:
        UnsupportedMedia: no multipart form.
        TooLarge: more bytes than allowed.
        Malformed: the form cannot be read.
        Invalid: a field is missing or wrong.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "multipart/form-data":
        raise UnsupportedMedia(f"the content type is {media or 'missing'}; this route takes multipart/form-data")
    check_length(request, max_bytes + FORM_BYTES)
    parser = MultiPartParser(
        request.headers, limited(request, max_bytes + FORM_BYTES), max_files=1, max_fields=4, max_part_size=FORM_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Malformed(f"the form cannot be read: {error.message}") from error
    try:
        yield _checked(form)
    finally:
        await form.close()


def _checked(form: FormData) -> UploadForm:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        detail = "the form has no file in its field `file`"
        raise Invalid(detail, issues=[Issue("/file", "missing", detail)])
    filename = PurePath(file.filename or "").name or None
    given = {name: value for name, value in form.multi_items() if name != "file"}
    try:
        fields = _Fields.model_validate({"name": filename, **given})
    except ValidationError as error:
        issues = [Issue("/" + "/".join(map(str, item["loc"])), item["type"], item["msg"]) for item in error.errors()]
        raise Invalid("; ".join(f"{issue.pointer}: {issue.detail}" for issue in issues), issues=issues) from error
    return UploadForm(fields.name, fields.format, filename, file.file)

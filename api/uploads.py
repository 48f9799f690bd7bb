"""Uploads: from a form to a version in storage, and from a spec that names one to its file."""

import copy
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.forms import UploadForm
from api.schemas.datasets import DatasetBody, dataset_body
from api.services import Services
from core.datasets.formats import Limits
from core.datasets.uploads import receive
from core.db import datasets
from core.db.tables import DatasetVersion
from core.errors import Issue, NotFound, SpecInvalid, StorageFull
from core.full_disk import is_full
from core.messages import DatasetFile

PLACES = ("train", "val", "test")


def attach(svc: Services, project: str, spec: dict[str, Any]) -> tuple[dict[str, Any], dict[str, DatasetFile]]:
    """Find the uploads that a spec names.

    Returns:
        The spec with every version named, and the files by `"<id>@<version>"`.

    Raises:
        SpecInvalid: the project has no such data set or version.
    """
    pinned = copy.deepcopy(spec)
    files: dict[str, DatasetFile] = {}
    issues: list[Issue] = []
    with svc.database.session_scope(write=False) as session:
        for place, source in _sources(pinned):
            try:
                version = datasets.version(session, project, str(source.get("id", "")), source.get("version"))
            except NotFound as error:
                issues.append(Issue(f"/data/{place}/id", "dataset_missing", error.detail, "see GET /v1/datasets"))
                continue
            source["version"] = version.version
            files[f"{version.dataset_id}@{version.version}"] = DatasetFile(
                path=str(local_file(svc, version)), format=version.format, sha256=version.sha256
            )
    if issues:
        raise SpecInvalid(issues)
    return pinned, files


def local_file(svc: Services, version: DatasetVersion) -> Path:
    """Return a version's bytes as a file of this machine, fetched once where storage is elsewhere."""
    path = svc.storage.local_path(version.key)
    if path is not None:
        return path
    cached = svc.settings.caches / "uploads" / version.sha256
    if not cached.is_file():
        svc.storage.fetch(version.key, cached)
    return cached


def incoming(svc: Services) -> Path:
    """Return the folder in which uploads are checked before they are kept."""
    return svc.settings.caches / "incoming"


@contextmanager
def space_needed() -> Generator[None, None, None]:
    """Turn what a full disk says into a problem.

    Raises:
        StorageFull: there was no space for a file within the block.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        detail = "A disk of the service is full, so nothing was kept; its operator has to free space."
        raise StorageFull(detail) from error


def _sources(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    data = spec.get("data", {})
    for place in PLACES:
        source = data.get(place)
        if isinstance(source, dict) and source.get("type") == "dataset":
            yield place, source


def store(svc: Services, project: str, form: UploadForm) -> tuple[DatasetBody, bool]:
    """Check an upload, keep its bytes under their digest, and number the version.

    A crash between file and row leaves a file that the same upload, sent again, will own.

    Returns:
        The data set, and whether the version is new.

    Raises:
        TooLarge: more than `settings.max_upload_bytes`.
        DataInvalid: it is not what its format says.
    """
    limits = Limits(max_bytes=svc.settings.max_upload_bytes, max_unpacked_bytes=svc.settings.max_unpacked_bytes)
    with receive(form.file, format=form.format, folder=incoming(svc), limits=limits) as upload:
        key = f"datasets/{project}/{upload.sha256}"
        svc.storage.put_file(upload.path, key)  # also where it is there: retention leaves alone what is new
        new = datasets.NewVersion(
            format=upload.format,
            filename=form.filename,
            key=key,
            sha256=upload.sha256,
            size_bytes=upload.size_bytes,
            profile=upload.profile,
        )
    with svc.database.session_scope() as session:
        dataset, version, is_new = datasets.add_version(session, project, form.name, new)
        return dataset_body(dataset, datasets.versions(session, dataset.id), version), is_new

"""The order of one attempt: everything the trainer needs, as local files and plain values. No credential is in it."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sqlalchemy.orm import Session

from core.db import datasets
from core.db.leases import Claim
from core.db.tables import DatasetVersion
from core.messages import DatasetFile, TrainOrder
from core.settings import Settings
from core.storage import Storage
from worker.devices import Assignment


@dataclass(frozen=True, slots=True)
class Upload:
    """A version of a data set that the spec names."""

    name: str
    """`<id>@<version>`"""
    key: str
    format: str
    sha256: str


def uploads_of(session: Session, claim: Claim) -> tuple[Upload, ...]:
    """Look up the uploads that a job's spec names.

    Raises:
        NotFound: one of them is not there any more.
    """
    found = [
        datasets.version(session, claim.project, source["id"], source.get("version"))
        for source in dataset_sources(spec_of(claim))
    ]
    return tuple(_upload(version) for version in found)


def _upload(version: DatasetVersion) -> Upload:
    return Upload(f"{version.dataset_id}@{version.version}", version.key, version.format, version.sha256)


def spec_of(claim: Claim) -> dict[str, Any]:
    """Return the resolved spec where preflight or an attempt has resolved it, else the spec as posted."""
    return claim.resolved_spec or claim.spec


def dataset_sources(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the sources of a spec that are uploads."""
    data = spec.get("data", {})
    for name in ("train", "val", "test"):
        source = data.get(name)
        if isinstance(source, dict):
            source = cast("dict[str, Any]", source)
            if source.get("type") == "dataset" and isinstance(source.get("id"), str):
                yield source


def make_order(
    claim: Claim,
    uploads: tuple[Upload, ...],
    *,
    settings: Settings,
    storage: Storage,
    folder: Path,
    assignment: Assignment,
) -> TrainOrder:
    """Bring the files to this machine and write the order.

    Raises:
        OSError: a file cannot be fetched.
    """
    checkpoints = [
        (str(fetched(storage, one.key, folder / "resume" / one.key.replace("/", "_"))), one.digest)
        for one in (claim.checkpoint, claim.previous_checkpoint)
        if one is not None
    ]
    spec = spec_of(claim)
    threads = spec.get("execution", {}).get("threads") or settings.threads
    return TrainOrder(
        job_id=claim.job_id,
        attempt=claim.attempt,
        spec=spec,
        folder=str(folder),
        cache_dir=str(settings.caches),
        datasets_dir=str(settings.torchvision_dir),
        datasets={
            upload.name: DatasetFile(
                path=str(fetched(storage, upload.key, settings.caches / "uploads" / upload.sha256)),
                format=upload.format,
                sha256=upload.sha256,
            )
            for upload in uploads
        },
        checkpoints=[path for path, _ in checkpoints],
        checkpoint_digests=[digest for _, digest in checkpoints],
        published_epochs=claim.epochs_done,
        device=assignment.device,
        threads=(claim.numerics or {}).get("threads") or threads,
        numerics=claim.numerics,
        active_seconds=claim.active_seconds,
        max_parameters=settings.max_parameters,
    )


def fetched(storage: Storage, key: str, place: Path) -> Path:
    """Return a local file with the key's content: its own place in a folder, or a copy at `place`.

    A file that is gone is no error here: the trainer falls back to the checkpoint before, or says what is missing.
    """
    local = storage.local_path(key)
    if local is not None:
        return local
    try:
        os.utime(place)  # in use: retention looks at the time
    except FileNotFoundError:
        if storage.exists(key):
            place.parent.mkdir(parents=True, exist_ok=True)
            storage.fetch(key, place)
    return place

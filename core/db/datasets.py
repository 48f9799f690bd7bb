"""Uploaded data sets: a name in a project, and numbered versions known by the digest of their bytes."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import ids
from core.db.inserts import insert
from core.db.paging import Order
from core.db.paging import page as keyset_page
from core.db.tables import Dataset, DatasetVersion
from core.errors import NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A checked upload, already in the storage under `key`."""

    format: str
    filename: str | None
    key: str
    sha256: str
    size_bytes: int
    profile: dict[str, Any]


def add_version(session: Session, project: str, name: str, new: NewVersion) -> tuple[Dataset, DatasetVersion, bool]:
    """Add a version to the project's data set of that name, which is made where there is none.

    Returns:
        Data set, version, and whether the version is new: the same bytes in the same format give the one they are.
    """
    dataset = _named(session, project, name)
    same = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset.id, DatasetVersion.sha256 == new.sha256)
    if (version := session.scalars(same).one_or_none()) is not None:
        return dataset, version, False
    last = session.scalar(select(func.max(DatasetVersion.version)).where(DatasetVersion.dataset_id == dataset.id))
    version = DatasetVersion(
        dataset_id=dataset.id,
        version=(last or 0) + 1,
        format=new.format,
        filename=new.filename,
        key=new.key,
        sha256=new.sha256,
        size_bytes=new.size_bytes,
        profile=new.profile,
    )
    session.add(version)
    session.flush()
    return dataset, version, True


def _named(session: Session, project: str, name: str) -> Dataset:
    """Return the data set with its row locked: version numbers are given one after another."""
    session.execute(
        insert(session, Dataset)
        .values(id=ids.new("ds"), project=project, name=name)
        .on_conflict_do_nothing(index_elements=["project", "name"])
    )
    statement = select(Dataset).where(Dataset.project == project, Dataset.name == name).with_for_update()
    return session.scalars(statement).one()


def get(session: Session, project: str, dataset_id: str) -> Dataset:
    """Return the data set.

    Raises:
        NotFound: the project has none of that id.
    """
    statement = select(Dataset).where(Dataset.project == project, Dataset.id == dataset_id)
    dataset = session.scalars(statement).one_or_none()
    if dataset is None:
        raise NotFound(f"There is no data set {dataset_id!r} in this project.")
    return dataset


def page(
    session: Session, project: str, *, limit: int = 20, after: str | None = None, order: Order = "desc"
) -> tuple[list[Dataset], bool]:
    """Return up to `limit` data sets of the project beyond the id `after`, and whether there are more."""
    statement = select(Dataset).where(Dataset.project == project)
    return keyset_page(session, statement, Dataset.id, after=after, limit=limit, order=order)


def versions(session: Session, dataset_id: str) -> list[DatasetVersion]:
    """Return every version of the data set, the first one first."""
    statement = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset_id)
    return list(session.scalars(statement.order_by(DatasetVersion.version)))


def version(session: Session, project: str, dataset_id: str, number: int | None = None) -> DatasetVersion:
    """Return one version of the data set, the newest where no number is given.

    Raises:
        NotFound: the project has no such data set, or that no such version.
    """
    dataset = get(session, project, dataset_id)
    statement = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset.id)
    if number is not None:
        statement = statement.where(DatasetVersion.version == number)
    found = session.scalars(statement.order_by(DatasetVersion.version.desc()).limit(1)).one_or_none()
    if found is None:
        raise NotFound(f"Data set {dataset_id!r} has no version {number}.")
    return found

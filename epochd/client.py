"""A small synchronous client of the HTTP contract."""

import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from epochd.errors import ClientError, DigestMismatch
from epochd.transport import Transport
from epochd.wire import ApiKey, Artifact, Job, Page, Report, Row, Spec

DEFAULT_URL = "http://127.0.0.1:8000"
WAIT_SECONDS = 20.0
"""How long one poll lets the service wait for news."""
MIN_POLL_SECONDS = 0.1
"""Between two polls of a job, should the service answer without waiting."""

Order = Literal["asc", "desc"]
Body = Spec | str | bytes
"""A spec as a dictionary, or as the JSON text of a file: then the service names the line of a mistake."""


class Client:
    """Submit jobs, follow them, fetch what they left.

    Args:
        url: the service's address; none: `EPOCHD_URL`, or `http://127.0.0.1:8000`.
        key: the API key; none: `EPOCHD_API_KEY`, or no key at all.
        retry_seconds: for so long a request that may be repeated is repeated while the service is away.
    """

    def __init__(self, url: str | None = None, key: str | None = None, *, retry_seconds: float = 30.0) -> None:
        address = url or os.environ.get("EPOCHD_URL") or DEFAULT_URL
        self._transport = Transport(
            address.rstrip("/"), key or os.environ.get("EPOCHD_API_KEY"), retry_seconds=retry_seconds
        )

    @property
    def url(self) -> str:
        """The service's address."""
        return self._transport.url

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Jobs

    def preflight(self, spec: Body) -> Report:
        """Check a spec without queueing it.

        Raises:
            BadInput: the body is no spec at all.
        """
        return self._transport.request("POST", "/v1/preflight", is_safe=True, **_body(spec)).json()

    def submit(self, spec: Body, *, idempotency_key: str | None = None) -> Job:
        """Queue a job. Repeated by itself while the service is away, and queued once whatever happens.

        Args:
            spec: the job spec.
            idempotency_key: the same key and spec answer the same job again; none: a new one.

        Raises:
            BadInput: the spec cannot run; `problem["errors"]` says where and why.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return self._transport.request("POST", "/v1/jobs", is_safe=True, **_body(spec, headers)).json()

    def job(self, job_id: str) -> Job:
        """Return a job as it stands now."""
        return self._get(f"/v1/jobs/{job_id}").json()

    def jobs(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        limit: int = 20,
        after: str | None = None,
        order: Order = "desc",
    ) -> Page[Job]:
        """Return one page of the project's jobs, the newest first."""
        wanted = {"status": status, "name": name, "limit": limit, "after": after, "order": order}
        return self._get("/v1/jobs", **wanted).json()

    def cancel(self, job_id: str) -> Job:
        """Ask for the job's end; its checkpoint is kept."""
        return self._act(job_id, "cancel")

    def pause(self, job_id: str) -> Job:
        """Ask the job to stop at a checkpoint and free its worker."""
        return self._act(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        """Queue a paused job again; it goes on exactly where it stopped."""
        return self._act(job_id, "resume")

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended, with everything it left."""
        self._transport.request("DELETE", f"/v1/jobs/{job_id}")

    # What a job says while it runs

    def rows(self, job_id: str, *, after: int | None = None, limit: int | None = None) -> Page[Row]:
        """Return one page of the rows of the epochs after `after` (none: from the first), in order."""
        return self._get(f"/v1/jobs/{job_id}/metrics", after=after, limit=limit).json()

    def metrics(self, job_id: str, *, after: int | None = None) -> Iterator[Row]:
        """Yield every row there is after epoch `after`, page by page."""
        while True:
            page = self.rows(job_id, after=after)
            yield from page["data"]
            if not page["has_more"] or not page["data"]:
                return
            after = page["data"][-1]["epoch"]

    def metrics_csv(self, job_id: str) -> str:
        """Return all rows as CSV."""
        headers = {"Accept": "text/csv"}
        return self._transport.request("GET", f"/v1/jobs/{job_id}/metrics", headers=headers).text

    def updates(self, job_id: str) -> Iterator[tuple[Job, list[Row]]]:
        """Yield the job and its new rows at every change, until it has ended and every row was seen."""
        etag: str | None = None
        seen: int | None = None
        while True:
            asked_at = time.monotonic()
            headers = {"If-None-Match": etag} if etag else {}
            wait = WAIT_SECONDS if etag else 0.0
            answer = self._transport.request("GET", f"/v1/jobs/{job_id}", headers=headers, wait_seconds=wait)
            if answer.status_code != 304:
                etag, job = answer.headers.get("ETag"), answer.json()
                rows = list(self.metrics(job_id, after=seen))
                seen = rows[-1]["epoch"] if rows else seen
                yield job, rows
                if job["is_terminal"]:
                    return
            time.sleep(max(0.0, MIN_POLL_SECONDS - (time.monotonic() - asked_at)))

    def follow(self, job_id: str) -> Iterator[Row]:
        """Yield each epoch's row as soon as it is there, until the job has ended."""
        for _, rows in self.updates(job_id):
            yield from rows

    def wait(self, job_id: str) -> Job:
        """Return the job once it has ended."""
        job = self.job(job_id)
        for job, _ in self.updates(job_id):  # noqa: B007 - the last one is wanted
            pass
        return job

    def decisions(self, job_id: str) -> list[dict[str, Any]]:
        """Return what epochd decided about the job, each with the numbers that caused it."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._get(f"/v1/jobs/{job_id}/decisions", after=found[-1]["id"] if found else None).json()
            found += page["data"]
            if not page["has_more"] or not page["data"]:
                return found

    def code(self, job_id: str) -> str:
        """Return the job as one plain PyTorch file that needs nothing of epochd.

        Raises:
            NotPossibleNow: it uses what a script cannot repeat; `problem["errors"]` says which field.
        """
        return self._get(f"/v1/jobs/{job_id}/code").text

    def logs(self, job_id: str) -> str:
        """Return the trainer's log."""
        return self._get(f"/v1/jobs/{job_id}/logs").text

    # What a job leaves

    def artifacts(self, job_id: str) -> list[Artifact]:
        """Return the files that the job left."""
        return self._get(f"/v1/jobs/{job_id}/artifacts").json()["data"]

    def download(self, job_id: str, name: str, path: str | Path) -> Path:
        """Fetch one artifact into `path`; the file appears when it is whole and its digest is right.

        Raises:
            DigestMismatch: what came is not what the service recorded.
        """
        known = {artifact["name"]: artifact["sha256"] for artifact in self.artifacts(job_id)}
        if name not in known:
            have = ", ".join(sorted(known)) or "none yet"
            raise ClientError(f"job {job_id} has no artifact {name!r}; it has: {have}")
        target = Path(path)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
        try:
            digest = self._fetch(f"/v1/jobs/{job_id}/artifacts/{name}", partial)
            if digest != known[name]:
                raise DigestMismatch(f"{name} came with SHA-256 {digest}, recorded is {known[name]}; try again")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    # The service

    def is_ready(self) -> bool:
        """Tell whether the service and its database answer now; asks once."""
        try:
            return self._transport.request("GET", "/readyz", is_safe=False).is_success
        except ClientError:
            return False

    def readiness(self) -> dict[str, Any]:
        """Return what the service says about its database and broker; asks once.

        Raises:
            TryLater: one of them is away; `problem` says which.
        """
        return self._transport.request("GET", "/readyz", is_safe=False).json()

    def version(self) -> str:
        """Return the version of the service."""
        return self._get("/openapi.json").json()["info"]["version"]

    def queues(self) -> list[dict[str, Any]]:
        """Return how many of the project's jobs wait and run, by queue."""
        return self._get("/v1/queue").json()["data"]

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers that are there."""
        return self._get("/v1/workers").json()["data"]

    def create_key(self, name: str, *, project: str | None = None, scopes: Sequence[str] | None = None) -> ApiKey:
        """Make an API key; its secret is in this answer and nowhere else."""
        wanted = {"name": name, "project": project, "scopes": list(scopes) if scopes else None}
        body = {field: value for field, value in wanted.items() if value is not None}
        return self._transport.request("POST", "/v1/keys", json=body).json()

    def keys(self) -> list[ApiKey]:
        """Return the keys, revoked ones too, without their secrets."""
        return self._get("/v1/keys").json()["data"]

    def revoke_key(self, key_id: str) -> None:
        """Make a key invalid, at once and for good."""
        self._transport.request("DELETE", f"/v1/keys/{key_id}", is_safe=True)

    def _get(self, path: str, **params: Any) -> Any:
        return self._transport.request("GET", path, params={k: v for k, v in params.items() if v is not None})

    def _act(self, job_id: str, action: str) -> Job:
        # A repeated action is a no-op, so it may be repeated.
        return self._transport.request("POST", f"/v1/jobs/{job_id}/{action}", is_safe=True).json()

    def _fetch(self, path: str, target: Path) -> str:
        digest = hashlib.sha256()
        with self._transport.stream(path) as answer, target.open("wb") as file:
            for piece in answer.iter_bytes():
                digest.update(piece)
                file.write(piece)
        return digest.hexdigest()


def _body(spec: Body, headers: dict[str, str] | None = None) -> dict[str, Any]:
    if isinstance(spec, dict):
        return {"json": spec, "headers": headers}
    return {"content": spec, "headers": {**(headers or {}), "Content-Type": "application/json"}}

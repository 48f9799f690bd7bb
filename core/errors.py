"""Every error that epochd raises on purpose.

    EpochdError
    ├── Malformed               400  the request is not what it says it is
    ├── Unauthenticated         401  no key, or one that is not valid
    ├── Forbidden               403  a valid key without the scope
    ├── NotFound                404  not there, or another project's
    ├── Conflict                409  not possible in this state
    ├── TooLarge                413  more bytes than the operator allows
    ├── UnsupportedMedia        415  a content type that this route does not take
    ├── Invalid                 422  understood, but it cannot work
    │   ├── SpecInvalid              a job spec that cannot run
    │   ├── DataInvalid              a data set that cannot be read as what it claims
    │   └── IdempotencyMismatch      the same key with another body
    ├── TooManyRequests         429
    ├── DatabaseAway            503  the database does not answer
    ├── SchemaNewer             503  the database was migrated by a newer epochd
    ├── SchemaInUse             503  a migration would break programs that still run
    ├── DigestUnknown           503  a newer epochd recorded a file's digest
    ├── StorageFull             507  no space left for a file
    ├── OwnershipLost                another worker owns the job now: stop at once
    └── ChildFailed                  an isolated process died, hung or broke its limits

Each class has a `slug` (the tail of the problem's `type`), an HTTP `status`, and a `title`; `detail` says what is
wrong with which value and what to do next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with one place of a request body.

    Attributes:
        pointer: JSON pointer (RFC 6901) into the body, `""` for the body as a whole.
        code: stable machine word, lower case with underscores.
        detail: one plain sentence with the offending value.
        hint: what to do about it, where that is known.
        fix: JSON Patch (RFC 6902) that mends the body, where there is one.
    """

    pointer: str
    code: str
    detail: str
    hint: str | None = None
    fix: tuple[dict[str, Any], ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the issue as it stands on the wire; absent parts are left out."""
        body: dict[str, Any] = {"pointer": self.pointer, "code": self.code, "detail": self.detail}
        if self.hint is not None:
            body["hint"] = self.hint
        if self.fix is not None:
            body["fix"] = list(self.fix)
        return body


class EpochdError(Exception):
    """The root of the tree."""

    slug: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, issues: Sequence[Issue] = (), extra: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.issues = tuple(issues)
        self.extra = extra or {}


class Malformed(EpochdError):
    """The request is not what it says it is."""

    slug, status, title = "malformed", 400, "Malformed request"


class Unauthenticated(EpochdError):
    """No API key was given, or it is not valid."""

    slug, status, title = "unauthenticated", 401, "API key needed"


class Forbidden(EpochdError):
    """The key is valid but may not do this."""

    slug, status, title = "forbidden", 403, "Not allowed"


class NotFound(EpochdError):
    """Nothing of that name exists in the caller's project."""

    slug, status, title = "not-found", 404, "Not found"


class Conflict(EpochdError):
    """The thing is in a state in which this is not possible."""

    slug, status, title = "conflict", 409, "Not possible in this state"


class TooLarge(EpochdError):
    """More bytes than the operator allows."""

    slug, status, title = "too-large", 413, "Too large"


class UnsupportedMedia(EpochdError):
    """This route does not take that content type."""

    slug, status, title = "unsupported-media-type", 415, "Unsupported content type"


class Invalid(EpochdError):
    """The request was understood, but it cannot work."""

    slug, status, title = "invalid", 422, "Cannot work"


class SpecInvalid(Invalid):
    """The job spec cannot run; `issues` says where and why."""

    slug, title = "spec-invalid", "This job spec cannot run"

    def __init__(self, issues: Sequence[Issue]) -> None:
        count = len(issues)
        detail = issues[0].detail if count == 1 else f"{count} problems; the first: {issues[0].detail}"
        super().__init__(detail, issues=issues)


class DataInvalid(Invalid):
    """The data cannot be read as what it claims to be."""

    slug, title = "data-invalid", "This data set cannot be read"


class IdempotencyMismatch(Invalid):
    """An Idempotency-Key came again with another body."""

    slug, title = "idempotency-mismatch", "Idempotency-Key used for another body"


class TooManyRequests(EpochdError):
    """The caller goes faster than the service allows."""

    slug, status, title = "too-many-requests", 429, "Too many requests"


class DatabaseAway(EpochdError):
    """The database does not answer; repeat the request with the same Idempotency-Key."""

    slug, status, title = "database-away", 503, "Database not reachable"


class SchemaNewer(EpochdError):
    """The database was migrated by a newer version of epochd; install that version or a newer one."""

    slug, status, title = "schema-newer", 503, "Database newer than this program"


class DigestUnknown(EpochdError):
    """A newer version of epochd recorded a file's digest; install that version or a newer one."""

    slug, status, title = "digest-unknown", 503, "Digest newer than this program"


class StorageFull(EpochdError):
    """A disk of the service is full; the same request works once there is space."""

    slug, status, title = "storage-full", 507, "No space left"


class SchemaInUse(EpochdError):
    """A migration changes what running programs of an older epochd use; stop them first."""

    slug, status, title = "schema-in-use", 503, "Older programs still use the database"


class OwnershipLost(EpochdError):
    """Another worker owns the job now; stop the trainer and write nothing more."""

    slug, title = "ownership-lost", "The job belongs to another worker"


class ChildFailed(EpochdError):
    """An isolated process died, did not answer in time, or went over a limit."""

    slug, status, title = "child-failed", 503, "An isolated process failed"

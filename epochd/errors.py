"""What can go wrong between a caller and the service.

ClientError
├── ServiceAway             nothing answers at that address, or the answers are not epochd's
├── DigestMismatch          a download is not the file that the service recorded
└── RequestRefused          an answer of 4xx or 5xx, as its problem+json says it
    ├── BadInput            400, 413, 415, 422: the request itself has to change
    ├── AccessDenied        401, 403
    ├── Missing             404
    ├── NotPossibleNow      409: `allowed_actions` says what is
    └── TryLater            429, 503: still so after all repetitions
"""

from typing import Any, cast

from epochd.wire import Problem


class ClientError(Exception):
    """The root of the tree."""


class ServiceAway(ClientError):
    """Nothing answers at the address, or what answers is not epochd."""


class DigestMismatch(ClientError):
    """A download's bytes do not have the digest that the service recorded."""


class RequestRefused(ClientError):
    """The service answered with a problem.

    Attributes:
        status: the HTTP status.
        problem: the body (RFC 9457), with `errors` naming each place of the request that is wrong.
    """

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or f"HTTP {status}")
        self.status = status
        self.problem = problem


class BadInput(RequestRefused):
    """The request cannot work as it is; `problem["errors"]` says what to change."""


class AccessDenied(RequestRefused):
    """No key, a key that is not valid, or one without the scope."""


class Missing(RequestRefused):
    """Nothing of that name in this project."""


class NotPossibleNow(RequestRefused):
    """The job's state does not allow this; `problem["allowed_actions"]` says what it allows."""


class TryLater(RequestRefused):
    """The service is too busy, or its database is away."""

    retry_after_seconds: float | None = None
    """What the service asked for."""


_BY_STATUS: dict[int, type[RequestRefused]] = {
    400: BadInput, 413: BadInput, 415: BadInput, 422: BadInput,
    401: AccessDenied, 403: AccessDenied, 404: Missing, 409: NotPossibleNow, 429: TryLater, 503: TryLater,
}  # fmt: skip


def refusal(status: int, body: Any) -> RequestRefused:
    """Make the error of a status and a decoded problem body."""
    problem = cast("Problem", body) if isinstance(body, dict) else Problem(title=f"HTTP {status}")
    return _BY_STATUS.get(status, RequestRefused)(status, problem)

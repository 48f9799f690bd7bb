"""What a check says."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: `<room>.<what>`, a stable word for machines.
        found: one sentence with numbers.
        advice: what to do; none where all is well.
        numbers: what was measured.
    """

    check: str
    status: Status
    found: str
    advice: str | None = None
    numbers: dict[str, Any] = field(default_factory=dict[str, Any])

    def as_json(self) -> dict[str, Any]:
        """Return it as `epochd doctor --json` prints it."""
        return asdict(self)


def ok(check: str, found: str, **numbers: Any) -> Finding:
    """Say that all is well."""
    return Finding(check=check, status="ok", found=found, numbers=numbers)


def warning(check: str, found: str, advice: str, **numbers: Any) -> Finding:
    """Say that something will go wrong one day."""
    return Finding(check=check, status="warning", found=found, advice=advice, numbers=numbers)


def error(check: str, found: str, advice: str, **numbers: Any) -> Finding:
    """Say that something does not work."""
    return Finding(check=check, status="error", found=found, advice=advice, numbers=numbers)

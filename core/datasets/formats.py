"""The formats of uploads, what they may cost, and the error of whatever cannot be read as what it claims to be."""

from dataclasses import dataclass
from typing import Any

from core.errors import DataInvalid, Issue

FORMATS = ("csv", "parquet", "npz", "images", "idx", "jsonl")
TABLES = ("csv", "parquet")
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one upload may cost.

    Attributes:
        max_bytes: of the file.
        max_unpacked_bytes: of everything in it, unpacked or decoded.
        max_entries: files in an archive.
        max_pixels: of one image.
        max_ratio: an archive that unpacks to more than `ratio_free_bytes` may grow by this factor.
        ratio_free_bytes: smaller archives may grow by any factor.
    """

    max_bytes: int = 2048 * MIB
    max_unpacked_bytes: int = 8192 * MIB
    max_entries: int = 1_000_000
    max_pixels: int = 50_000_000
    max_ratio: float = 200.0
    ratio_free_bytes: int = 64 * MIB


class UnreadableError(Exception):
    """Data that is not what it claims to be: `code`, one sentence that names the place, and what to do about it."""

    def __init__(
        self, code: str, detail: str, hint: str | None = None, *, at: str = "", fix: dict[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint
        self.at = at
        """The pointer, where the caller's words are wrong rather than the data's."""
        self.fix = fix
        """One operation of a JSON Patch that mends the caller's words."""

    def as_invalid(self, pointer: str) -> DataInvalid:
        """Return the error for the caller, pointing to where the data is named."""
        fix = None if self.fix is None else (self.fix,)
        return DataInvalid(self.detail, issues=[Issue(self.at or pointer, self.code, self.detail, self.hint, fix)])

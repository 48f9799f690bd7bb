"""What preflight found."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from core.errors import DataInvalid, Issue, SpecInvalid
from core.train.build.inference import COMPLAINTS
from core.train.components import condensed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of `POST /v1/preflight`."""

    errors: tuple[Issue, ...] = ()
    """Why the spec cannot run; none when it can."""
    warnings: tuple[Issue, ...] = ()
    """What is allowed but probably not meant."""
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    """Parameters, layers, steps, operations, memory; empty where the model cannot be built."""
    resolved_spec: dict[str, Any] = field(default_factory=dict[str, Any])
    """The spec with every default and every inferred size; empty where the model cannot be built."""
    is_data_bad: bool = False
    """Whether every error comes from the data and not from the spec."""

    def as_json(self) -> dict[str, Any]:
        """Return the report as it stands on the wire."""
        return {
            "ok": not self.errors,
            "errors": [issue.as_json() for issue in self.errors],
            "warnings": [issue.as_json() for issue in self.warnings],
            "summary": self.summary or None,
            "resolved_spec": self.resolved_spec or None,
        }


class Findings:
    """Collects issues while the checks go on; each place is reported once for the same reason."""

    def __init__(self, warnings: Iterable[Issue] = ()) -> None:
        self.errors: dict[tuple[str, str], Issue] = {}
        self.warnings: dict[tuple[str, str], Issue] = {}
        self.of_data: set[tuple[str, str]] = set()
        self.warn(warnings)

    def refuse(self, issues: Iterable[Issue]) -> None:
        """Keep errors."""
        for issue in issues:
            self.errors.setdefault((issue.pointer, issue.code), issue)

    def warn(self, issues: Iterable[Issue]) -> None:
        """Keep warnings."""
        for issue in issues:
            self.warnings.setdefault((issue.pointer, issue.code), issue)

    def attempt(self, pointer: str, make: Callable[[], T]) -> T | None:
        """Return what `make` gives; None, with its issues kept, where it refuses or torch does."""
        with self.collecting(pointer):
            return make()
        return None

    @contextmanager
    def collecting(self, pointer: str) -> Iterator[None]:
        """Keep the issues of a refusal; what torch says by itself stands at `pointer`."""
        try:
            yield
        except (SpecInvalid, DataInvalid) as error:
            issues = error.issues or [Issue(pointer, error.slug.replace("-", "_"), error.detail)]
            self.refuse(issues)
            if isinstance(error, DataInvalid):
                self.of_data.update((issue.pointer, issue.code) for issue in issues)
        except COMPLAINTS as error:
            self.refuse([Issue(pointer, "torch_refuses", f"torch refuses this: {condensed(error).rstrip('.')}.")])

    def report(self, summary: dict[str, Any] | None = None, resolved: dict[str, Any] | None = None) -> Report:
        """Return what was found."""
        return Report(
            tuple(self.errors.values()),
            tuple(self.warnings.values()),
            summary or {},
            resolved or {},
            is_data_bad=bool(self.errors) and self.errors.keys() <= self.of_data,
        )

"""The job that is written out, and what of it cannot be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import Conflict, Issue
from core.spec import catalog, component
from core.spec.chance import NOTHING_TO_DO, is_random
from core.spec.job import Component, JobSpec

SETS = ("val", "test")
PLAIN = "32-true"


@dataclass(frozen=True, slots=True)
class Upload:
    """One version of an uploaded data set, as far as the script must know it."""

    format: str
    """`csv`, `parquet`, `jsonl`, `npz`, `images`, `idx`."""
    sha256: str
    """Of the file."""
    profile: Mapping[str, Any]
    """What was found in it when it came."""


class CodeRefused(Conflict):
    """The job uses what a script cannot repeat; `issues` says which field and what to do."""

    slug, title = "code-refused", "This job cannot be written as a script"

    def __init__(self, *issues: Issue) -> None:
        count = len(issues)
        detail = issues[0].detail if count == 1 else f"{count} parts cannot be written; the first: {issues[0].detail}"
        super().__init__(detail, issues=issues)


@dataclass(frozen=True)
class Job:
    """A resolved spec, with the questions that several parts of the script ask of it."""

    spec: JobSpec
    uploads: Mapping[str, Upload] = field(default_factory=dict[str, Upload])

    @property
    def task(self) -> str:
        """What is learned."""
        return self.spec.task or "classification"

    def has(self, name: str) -> bool:
        """Whether there is a `val` or a `test` set."""
        return getattr(self.spec.data, name) is not None

    @property
    def own_sets(self) -> list[str]:
        """Sets that have a source of their own."""
        return [name for name in SETS if isinstance(getattr(self.spec.data, name), Component)]

    def source(self, name: str) -> Component:
        """Return the source of a set that has one."""
        found: Component = getattr(self.spec.data, name)
        return found

    @property
    def is_windowed(self) -> bool:
        """Whether a table is cut into windows."""
        return self.spec.data.train.arguments.get("window") is not None

    @property
    def is_augmented(self) -> bool:
        """Whether training batches go through random transforms."""
        return any(is_random(part) for part in self.transforms("train"))

    def transforms(self, name: str) -> list[Component]:
        """Return the transforms of `train` or `eval`, those that do nothing left out."""
        transforms = self.spec.data.transforms
        parts = () if transforms is None else transforms.train if name == "train" else transforms.eval
        return [part for part in _flat(parts) if part.type not in NOTHING_TO_DO]

    def has_transforms(self, name: str) -> bool:
        """Whether any are named, those that do nothing included."""
        transforms = self.spec.data.transforms
        return transforms is not None and bool(transforms.train if name == "train" else transforms.eval)

    @property
    def is_on_gpu(self) -> bool:
        """Whether the script looks for a GPU; a job that has run says where it ran."""
        return self.spec.execution.device != "cpu"

    @property
    def judges_within_epochs(self) -> bool:
        """Whether the validation set is looked at after so many updates, not epochs."""
        return self.spec.validate_every.steps is not None and self.has("val")

    @property
    def counts_steps(self) -> bool:
        """Whether the number of updates decides anything."""
        return self.spec.max_steps is not None or self.judges_within_epochs

    @property
    def uses_train_eval(self) -> bool:
        """Whether the training set is needed with the transforms of evaluation."""
        return self.spec.evaluate_at_start or self.spec.swa is not None

    @property
    def losses(self) -> list[Component]:
        """The terms of the loss."""
        return list(self.spec.loss) if isinstance(self.spec.loss, tuple) else [self.spec.loss]


def _flat(parts: Any) -> list[Component]:
    """Return transforms in their order, those of a `Compose` in its place."""
    found: list[Component] = []
    for part in map(component, parts):
        found += _flat(part.arguments["transforms"]) if part.type == "Compose" else [part]
    return found


def arguments_of(kind: str, part: Component, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the arguments that differ from the library's defaults, in the order of its signature."""
    entry = catalog.find(kind, part.type)
    known = entry.by_name if entry else {}
    given = {name: part.arguments[name] for name in known if name in part.arguments}
    given |= {name: value for name, value in part.arguments.items() if name not in given}
    return {
        name: value
        for name, value in given.items()
        if name not in without and not (name in known and _is_default(value, known[name]))
    }


def _is_default(value: Any, parameter: catalog.Parameter) -> bool:
    is_optional = not parameter.required and not parameter.inferred
    return is_optional and value == parameter.default and isinstance(value, bool) == isinstance(parameter.default, bool)


def refuse(pointer: str, code: str, detail: str, hint: str) -> CodeRefused:
    """Build the error of one place of the spec."""
    return CodeRefused(Issue(pointer, code, detail, hint))

"""From what was posted to a `JobSpec`, or to everything that is wrong with it."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from pydantic import ValidationError

from core.errors import Issue, SpecInvalid
from core.spec import components, graph, rules, structure
from core.spec.decode import check_plain, decode
from core.spec.job import JobSpec

MAX_ISSUES = 100
"""A spec with more is answered with the first so many."""


def parse(body: bytes | str) -> JobSpec:
    """Read a spec from JSON text.

    Raises:
        Malformed: the body is not JSON (line and column), or has duplicate keys, NaN, or numbers too large.
        SpecInvalid: it is JSON but not a spec that can run; `issues` says where and why.
    """
    return _validate(decode(body))


def parse_object(body: Any) -> JobSpec:
    """Read a spec from decoded JSON.

    Raises:
        Malformed: something in it has no form in JSON, such as NaN.
        SpecInvalid: it is not a spec that can run; `issues` says where and why.
    """
    check_plain(body)
    return _validate(body)


def _validate(body: Any) -> JobSpec:
    try:
        spec = JobSpec.model_validate(body)
    except ValidationError as error:
        raise SpecInvalid(_selected(chain(structure.issues_of(error, body), components.check(body)))) from error
    if issues := _selected(chain(rules.violations(spec), components.check(body))):
        raise SpecInvalid(issues)
    if spec.model.type == "Graph" and (issues := _selected(graph.violations(spec.model))):
        raise SpecInvalid(issues)
    return spec


def _selected(found: Iterator[Issue]) -> tuple[Issue, ...]:
    """Return the first issues, without those that the fix of another one mends."""
    issues = list(islice(found, MAX_ISSUES))
    moved = set(_moved_to(issues))
    return tuple(issue for issue in issues if not (issue.code.startswith("missing") and issue.pointer in moved))


def _moved_to(issues: Iterable[Issue]) -> Iterator[str]:
    for issue in issues:
        for operation in issue.fix or ():
            if operation["op"] == "move":
                yield operation["path"]

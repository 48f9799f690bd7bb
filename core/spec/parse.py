"""From what was posted to a `JobSpec`, or to everything that is wrong with it."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from pydantic import ValidationError

from core.errors import Issue, SpecInvalid
from core.spec.decode import check_plain, decode
from core.spec.job import JobSpec
from core.spec.structure import issues_of

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
        found: Iterator[Issue] = iter(())
    except ValidationError as error:
        spec, found = None, issues_of(error, body)
    issues = tuple(islice(chain(found), MAX_ISSUES))
    if spec is None or issues:
        raise SpecInvalid(issues)
    return spec

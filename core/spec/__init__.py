"""The job spec that users write. No torch here."""

from core.spec.canonical import component, digest, to_json
from core.spec.job import Component, JobSpec
from core.spec.parse import parse, parse_object

__all__ = ["Component", "JobSpec", "component", "digest", "parse", "parse_object", "to_json"]

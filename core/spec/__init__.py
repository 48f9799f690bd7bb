"""The job spec that users write. No torch here."""

from core.spec.canonical import component, digest, to_json
from core.spec.job import Component, JobSpec
from core.spec.parse import parse, parse_object
from core.spec.rules import mode_of, warnings

__all__ = ["Component", "JobSpec", "component", "digest", "mode_of", "parse", "parse_object", "to_json", "warnings"]

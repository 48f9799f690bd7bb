"""Prove that a spec can run before it is queued: build it without memory, push one fake batch through."""

from core.train.preflight.checking import check, main
from core.train.preflight.report import Report

__all__ = ["Report", "check", "main"]

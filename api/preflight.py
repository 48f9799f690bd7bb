"""Preflight in a warm isolated child: this process never imports torch."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from typing import Any

import structlog
from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from core.errors import ChildFailed
from core.messages import DatasetFile
from core.process import Limits, Template, call
from core.settings import Settings

log = structlog.get_logger(__name__)

PRELOAD = ("core.train.preload", "core.train.preflight")
ENTRY = "core.train.preflight.main"
TOGETHER = max(2, os.cpu_count() or 2)
"""Children at the same time; more only slow each other down."""


class Preflight:
    """Asks a child whether a spec can run."""

    def __init__(self, template: Template, settings: Settings) -> None:
        self._template = template
        self._settings = settings
        self._limiter = CapacityLimiter(TOGETHER)
        self._limits = Limits(memory_bytes=settings.preflight_memory_bytes, file_bytes=settings.max_unpacked_bytes)

    def start(self) -> None:
        """Begin to warm the template, without waiting for it."""
        with contextlib.suppress(ChildFailed):
            self._template.start()

    async def stop(self) -> None:
        """End the template and its children."""
        await run_sync(self._template.close)

    async def check(self, spec: dict[str, Any], uploads: Mapping[str, DatasetFile]) -> dict[str, Any]:
        """Return the child's answer: `ok`, `errors`, `warnings`, `summary`, `resolved_spec`.

        Raises:
            ChildFailed: there was none in time: the template is not warm yet, the child died, hung, or grew too large.
        """
        seconds = self._settings.preflight_seconds
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._limiter.acquire_on_behalf_of(token := object())
        except TimeoutError as error:
            raise ChildFailed(f"preflight was busy with other specs for {seconds:g} s") from error
        try:
            return await run_sync(self._call, self._request(spec, uploads), max(0.1, deadline - loop.time()))
        finally:
            self._limiter.release_on_behalf_of(token)

    def _call(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        return call(self._template, ENTRY, request, seconds=seconds, limits=self._limits)

    def _request(self, spec: dict[str, Any], uploads: Mapping[str, DatasetFile]) -> dict[str, Any]:
        return {
            "spec": spec,
            "datasets_dir": str(self._settings.torchvision_dir),
            "cache_dir": str(self._settings.caches),
            "uploads": {key: file.model_dump() for key, file in uploads.items()},
            "max_parameters": self._settings.max_parameters,
        }

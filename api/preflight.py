"""Preflight in a warm isolated child: this process never imports torch."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import structlog
from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from api.answers import Answer, Answers
from core.errors import ChildFailed, Invalid, Issue
from core.messages import DatasetFile
from core.process import Limits, Template, call
from core.settings import Settings

log = structlog.get_logger(__name__)

PRELOAD = ("core.train.preload", "core.train.preflight", "core.train.preflight.drawing")
SPARE = "core.train.preflight.warming.table_and_images"
ENTRY = "core.train.preflight.main"
DRAWING = "core.train.preflight.drawing.main"
TOGETHER = max(2, os.cpu_count() or 2)
"""Children at the same time; more only slow each other down."""
KNOWN_BYTES = 8 << 20
KNOWN_SECONDS = 60
"""A report is used again for so long at most: files of the operator's folder may come and go."""
LABELS = ("name", "metadata")
"""What does not change whether a spec can run."""


class Preflight:
    """Asks a child whether a spec can run."""

    def __init__(self, template: Template, settings: Settings) -> None:
        self._template = template
        self._settings = settings
        self._limiter = CapacityLimiter(TOGETHER)
        self._known = Answers(KNOWN_BYTES)
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

        A spec that could run a moment ago is not built again under another name, as when it is submitted after a
        preflight. One without a seed is: every job of it gets a seed of its own.

        Raises:
            ChildFailed: there was none in time: the template is not warm yet, the child died, hung, or grew too large.
        """
        unnamed = {key: value for key, value in spec.items() if key not in LABELS}
        request, minute = self._request(unnamed, uploads), int(time.monotonic() / KNOWN_SECONDS)
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).digest()  # of one size, for its room's sake
        known = self._known.get(key, minute)
        if known is not None:
            return _named(json.loads(known.body), spec)
        report = await self._asked(ENTRY, request)
        if report["ok"] and spec.get("seed") is not None:
            self._known.put(key, minute, Answer(json.dumps(report).encode(), etag=""))
        return _named(report, spec)

    async def draw(self, file: DatasetFile, transforms: list[Any], *, rows: int, draws: int, seed: int) -> bytes:
        """Return a PNG of an upload's samples, each drawn so many times through the transforms.

        Raises:
            Invalid: no images, or a transform that does not take them.
            ChildFailed: as `check`.
        """
        request = {"file": file.model_dump(), "cache_dir": str(self._settings.caches), "transforms": transforms}
        answer = await self._asked(DRAWING, {**request, "rows": rows, "draws": draws, "seed": seed})
        if answer["errors"]:
            raise Invalid(answer["errors"][0]["detail"], issues=[issue_of(item) for item in answer["errors"]])
        return base64.b64decode(answer["png"])

    async def _asked(self, entry: str, request: dict[str, Any]) -> dict[str, Any]:
        seconds = self._settings.preflight_seconds
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._limiter.acquire_on_behalf_of(token := object())
        except TimeoutError as error:
            raise ChildFailed(f"preflight was busy with other specs for {seconds:g} s") from error
        try:
            return await run_sync(self._call, entry, request, max(0.1, deadline - loop.time()))
        finally:
            self._limiter.release_on_behalf_of(token)

    def _call(self, entry: str, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        return call(self._template, entry, request, seconds=seconds, limits=self._limits)

    def _request(self, spec: dict[str, Any], uploads: Mapping[str, DatasetFile]) -> dict[str, Any]:
        return {
            "spec": spec,
            "datasets_dir": str(self._settings.torchvision_dir),
            "cache_dir": str(self._settings.caches),
            "uploads": {key: file.model_dump() for key, file in uploads.items()},
            "max_parameters": self._settings.max_parameters,
        }


def issue_of(item: Mapping[str, Any]) -> Issue:
    """Return an issue that came as JSON from a child."""
    fix = item.get("fix")
    return Issue(item["pointer"], item["code"], item["detail"], item.get("hint"), None if fix is None else tuple(fix))


def _named(report: dict[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Put the labels of a spec into a report that was made without them."""
    if report["resolved_spec"] is None:
        return report
    labels = {key: spec[key] for key in LABELS if spec.get(key) is not None}
    return {**report, "resolved_spec": {**labels, **report["resolved_spec"], **labels}}

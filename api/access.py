"""Who may call: a key, or on the embedded default nobody but programs of this machine."""

import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.heads import Heads
from core.db import keys
from core.db.engine import Database
from core.db.keys import Scope
from core.errors import Forbidden, Unauthenticated, UnsupportedMedia
from core.settings import Settings

ALL_SCOPES: frozenset[str] = frozenset(keys.SCOPES)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
KEYLESS_MEDIA = frozenset({"application/json", "multipart/form-data"})
"""Uploads are multipart; a browser says where such a form comes from, and other origins are refused."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Every query takes the project from here."""

    project: str
    scopes: frozenset[str]
    key_id: str | None = None

    def may(self, scope: Scope) -> bool:
        """Say whether the caller has the scope; `admin` includes all."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def rules_all(self) -> bool:
        """Whether this is the operator: an admin of the project `default` manages the keys of every project."""
        return self.project == keys.DEFAULT_PROJECT and self.may("admin")


class Gate:
    """Tells callers apart."""

    def __init__(self, database: Database, settings: Settings, heads: Heads) -> None:
        self._database = database
        self._settings = settings
        self._heads = heads
        self._noted_at: dict[str, float] = {}
        """When this process last wrote down the use of a key; most requests need no write for it."""

    async def identify(self, request: Request) -> Caller:
        """Return the caller of a request.

        Raises:
            Unauthenticated: no key where one is needed, or one that is not valid.
            Forbidden: a keyless request that may come from a stranger's web page.
            UnsupportedMedia: a keyless request with a body that is no JSON.
        """
        self._heads.begin(request)
        authorization = request.headers.get("authorization")
        if authorization is not None:
            return await self._by_key(authorization)
        await self._check_keyless(request)
        return Caller(keys.DEFAULT_PROJECT, ALL_SCOPES)

    async def _by_key(self, authorization: str) -> Caller:
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret.startswith(keys.PREFIX):
            raise Unauthenticated("the Authorization header must be `Bearer epk_…`")
        key = await self._heads.key(secret)
        if key is None:
            raise Unauthenticated("this API key is not known or was revoked; `epochd keys create` makes one")
        await self._note_use(key.id)
        return Caller(key.project, frozenset(key.scopes), key.id)

    async def _note_use(self, key_id: str) -> None:
        noted_at = self._noted_at.get(key_id)
        if noted_at is not None and time.monotonic() - noted_at < keys.USED_SECONDS:
            return
        self._noted_at[key_id] = time.monotonic()
        await run_in_threadpool(self._used, key_id)

    async def _check_keyless(self, request: Request) -> None:
        needed = "an API key is needed: `Authorization: Bearer epk_…`; `epochd keys create` makes one"
        is_near = request.client is not None and is_loopback(request.client.host)
        if not is_near or "forwarded" in request.headers or "x-forwarded-for" in request.headers:
            raise Unauthenticated(needed)
        if await self._heads.any_key():
            raise Unauthenticated(needed)
        _check_host(request.headers, self._settings)
        if request.method not in SAFE_METHODS:
            _check_origin(request.headers)
            _check_media(request.headers)

    def _used(self, key_id: str) -> None:
        with self._database.session_scope() as session:
            keys.used(session, key_id)


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Say whether an address or name can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _check_host(headers: Mapping[str, str], settings: Settings) -> None:
    """Refuse names that a stranger may have pointed at this machine (DNS rebinding)."""
    host = headers.get("host", "")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name.lower() not in settings.allowed_hosts:
        allowed = ", ".join(settings.allowed_hosts)
        raise Forbidden(f"the Host {host!r} is not answered without a key; allowed are {allowed}")


def _check_origin(headers: Mapping[str, str]) -> None:
    """Refuse what a browser sends for a page of another origin."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    is_ours = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if not is_ours or site not in {"none", "same-origin"}:
        raise Forbidden(f"a page of another origin ({origin or site}) may not call this service without a key")


def _check_media(headers: Mapping[str, str]) -> None:
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if has_body and media not in KEYLESS_MEDIA:
        raise UnsupportedMedia(f"the content type is {media or 'missing'}; this service takes application/json")

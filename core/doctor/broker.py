"""The broker: does it answer, and does it keep what it is told?"""

import time
from collections.abc import Iterator
from typing import Any, cast

import redis

from core.doctor.findings import Finding, error, ok, warning
from core.settings import Settings

WAIT_SECONDS = 2.0
SLOW_SECONDS = 0.02
FULL_SHARE = 0.9


def look(settings: Settings) -> Iterator[Finding]:
    """Check the doorbell's Redis, where there is one."""
    if settings.broker_url is None:
        yield ok("broker.reachable", "None is configured: workers poll the database.")
        return
    client = redis.Redis.from_url(
        settings.broker_url.get_secret_value(), socket_connect_timeout=WAIT_SECONDS, socket_timeout=WAIT_SECONDS
    )
    try:
        seconds = min(_ping(client) for _ in range(3))
        about = cast("dict[str, Any]", client.info())
    except (redis.RedisError, OSError) as failure:
        advice = "Jobs are accepted and start once it is back. See that it runs and that EPOCHD_BROKER_URL names it."
        yield error("broker.reachable", f"The broker does not answer: {failure}", advice)
        return
    finally:
        client.close()
    yield _reachable(seconds, str(about.get("redis_version", "of an unknown version")))
    yield _memory(about)


def _ping(client: "redis.Redis") -> float:
    began = time.perf_counter()
    client.ping()
    return time.perf_counter() - began


def _reachable(seconds: float, version: str) -> Finding:
    found = f"Redis {version} answers in {seconds * 1000:.1f} ms."
    if seconds <= SLOW_SECONDS:
        return ok("broker.reachable", found, version=version, round_trip_seconds=seconds)
    advice = "A ring is given up after 40 ms; jobs then wait for a worker's next look (EPOCHD_REAP_SECONDS)."
    return warning("broker.reachable", found, advice, version=version, round_trip_seconds=seconds)


def _memory(about: dict[str, Any]) -> Finding:
    policy = str(about.get("maxmemory_policy", "unknown"))
    used, most = int(about.get("used_memory", 0)), int(about.get("maxmemory", 0))
    numbers = {"policy": policy, "used_bytes": used, "most_bytes": most}
    found = f"It uses {used:,} bytes of {f'{most:,}' if most else 'all there is'}; when full it does: {policy}."
    if policy not in ("noeviction", "unknown"):
        advice = "Set maxmemory-policy to noeviction: another one throws rings away, and jobs start seconds later."
        return warning("broker.memory", found, advice, **numbers)
    if most and used > FULL_SHARE * most:
        return warning("broker.memory", found, "Raise maxmemory; what else is kept in this Redis?", **numbers)
    return ok("broker.memory", found, **numbers)

"""Whether the broker answers; what is sent to it goes through `core.doorbell`."""

from typing import ClassVar, Literal

import redis

from core.errors import EpochdError

PING_SECONDS = 1.0


class BrokerAway(EpochdError):
    """The broker does not answer; jobs are accepted and start when it is back."""

    slug: ClassVar[str] = "broker-away"
    status: ClassVar[int] = 503
    title: ClassVar[str] = "Broker not reachable"


class Broker:
    """The deployment's Redis."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url, socket_connect_timeout=PING_SECONDS, socket_timeout=PING_SECONDS, health_check_interval=0
        )

    def ping(self) -> Literal["ok"]:
        """Ask for a sign of life.

        Raises:
            BrokerAway: there was none.
        """
        try:
            self._client.ping()
        except (redis.RedisError, OSError) as error:
            raise BrokerAway("the broker does not answer; jobs are accepted and start when it is back") from error
        return "ok"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

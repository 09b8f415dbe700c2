"""How we connect to Redis: a bounded pool, no retries, nothing said on connecting that is not needed.

A URL flows in, a client flows out, which connects when it is first used. Always holds: there are never more than `MAX_CONNECTIONS`.
Whether a failed call is repeated, and when a connection is given up, its user decides (`api/breaker.py`).
"""

from contextlib import suppress

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

#: Of a worker: reads under way at the same time (`api.cache.MAX_READS`), and some for what writes.
MAX_CONNECTIONS = 72
#: To connect, and to part from a server that does not answer.
CONNECT_TIMEOUT_S = 1.0


def redis_client(url: str) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`. Raises ValueError where `url` is none of these."""
    return Redis.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        # Every call runs within a budget of its own. redis-py's time-out would also make a task of each write (Python 3.11): one
        # more turn of a loop that learning may hold in between.
        socket_timeout=None,
        retry=Retry(NoBackoff(), 0),
        # No greeting: a new connection costs one round trip.
        protocol=2,
        driver_info=None,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )


async def close_redis(client: Redis) -> None:
    """Close all connections, whether or not the server is there."""
    with suppress(RedisError, OSError):
        await client.aclose()

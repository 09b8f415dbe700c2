"""How we connect to Redis: a bounded pool, no retries, nothing said on connecting that is not needed.

A URL flows in, a client flows out, which connects when it is first used. Always holds: there are never more than `MAX_CONNECTIONS`,
and no message has anything of the URL in it but what `shown` leaves. Whether a failed call is repeated, and when a connection is given
up, its user decides (`api/breaker.py`).
"""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.maint_notifications import MaintNotificationsConfig

log = structlog.get_logger(__name__)

#: Of a worker: reads under way at the same time (`api.cache.MAX_READS`), and some for what writes.
MAX_CONNECTIONS = 72
#: To connect, and to part from a server that does not answer.
CONNECT_TIMEOUT_S = 1.0
#: To see at the start whether a server lets us in.
LOOK_TIMEOUT_S = 2.0
EXPECTED = (
    "expected redis://, rediss:// (TLS) or unix://, as in rediss://USER@HOST:6379; characters of a password that mean something in "
    "an address are written as %XX, or the password is left to HEADRACE_REDIS_PASSWORD (or HEADRACE_REDIS_PASSWORD_FILE)"
)


def redis_client(url: str, password: str | None = None, ca_file: Path | None = None) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://`. Raises ValueError where `url` is none of these.

    Parameters
    ----------
    password : where `url` has none
    ca_file : PEM, of the authority of a server's certificate; None trusts whom the system trusts
    """
    secure: dict[str, Any] = {}
    if ca_file is not None:
        if not url.startswith("rediss://"):
            raise ValueError("HEADRACE_REDIS_CA_FILE is for TLS, and the address does not begin with rediss://")
        try:
            ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"HEADRACE_REDIS_CA_FILE={str(ca_file)!r}: no certificates in PEM can be read there: {error}"
            ) from error
        secure["ssl_ca_certs"] = str(ca_file)
    if password is not None:
        secure["password"] = password
    try:
        return _client(url, **secure)
    except (ValueError, TypeError):
        # Theirs have parts of the address in them, which may be parts of a password.
        raise ValueError(EXPECTED) from None


def _client(url: str, **secure: Any) -> Redis:
    return Redis.from_url(
        url,
        **secure,
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


def shown(url: str) -> str:
    """The address without user, password and options."""
    try:
        parts = urlsplit(url)
        place = f"{parts.hostname or ''}{'' if parts.port is None else f':{parts.port}'}"
    except ValueError:
        return "REDIS_URL"
    return f"{parts.scheme}://{place}{parts.path}"


async def refusal(client: Redis) -> str | None:
    """Why the server that is there does not let us in, and what to check; None if it does, or none is there.

    Raises
    ------
    RedisError, OSError, TimeoutError
        None is there, or none that answers.
    """
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            await client.ping()
    except (AuthenticationError, NoPermissionError) as error:
        return (
            f"Redis refuses us ({error}): check the user and password in REDIS_URL, or HEADRACE_REDIS_PASSWORD (or its file), "
            "and that the user may run PING, GET, SET, DEL, EVAL and TIME on the keys of this worker"
        )
    except (RedisError, OSError) as error:
        if (cause := _tls_failure(error)) is not None:
            return (
                f"TLS with Redis fails ({cause}): check HEADRACE_REDIS_CA_FILE, and that REDIS_URL names the host as its "
                "certificate does"
            )
        if "closed by server" in str(error):
            return "Redis closes the connection: if it speaks TLS, REDIS_URL has to begin with rediss://"
        raise
    return None


async def say_refusal(client: Redis) -> None:
    """Log it where the server that is there does not let us in: a worker goes on without it."""
    with suppress(RedisError, OSError, TimeoutError):
        if (why := await refusal(client)) is not None:
            log.error("no lists are kept in Redis", why=why)


def _tls_failure(error: BaseException | None) -> str | None:
    """What TLS has said, if it was that."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return getattr(error, "verify_message", None) or error.reason or str(error)
        error = error.__cause__ or error.__context__
    return None


async def close_redis(client: Redis) -> None:
    """Close all connections, whether or not the server is there."""
    with suppress(RedisError, OSError):
        await client.aclose()

"""A Redis that asks for a user, over TLS: let in with the right password, and told why where it is not.

The server of the tests has no TLS of its own: what has it stands before it.
"""

import ssl
from pathlib import Path

import pytest
import structlog
import trustme
from redis.exceptions import RedisError

from api.cache import ListCache
from api.redis_client import close_redis, redis_client, refusal, say_refusal, shown
from infra.kafka_probe import free_port
from tests.api.redis_server import HOST, RedisServer
from tests.api.tls_front import tls_front

USER, PASSWORD = "headrace", "Correct#horse@7"
QUOTED = "Correct%23horse%407"


@pytest.fixture
def guarded(server: RedisServer) -> RedisServer:
    """One that lets in our user alone, to what a worker does."""
    for user in ([USER, "on", f">{PASSWORD}", "~*", "+ping", "+get", "+set", "+del", "+eval"], ["default", "off"]):
        server.direct.execute_command("ACL", "SETUSER", *user)  # type: ignore[no-untyped-call] # theirs
    return server


async def told(url: str, password: str | None = None, ca_file: Path | None = None) -> str | None:
    client = redis_client(url, password, ca_file)
    try:
        return await refusal(client)
    finally:
        await close_redis(client)


async def test_a_user_is_let_in_by_url_or_by_password(guarded: RedisServer) -> None:
    place = f"{HOST}:{guarded.port}"
    assert await told(f"redis://{USER}:{QUOTED}@{place}") is None
    assert await told(f"redis://{USER}@{place}", PASSWORD) is None
    for url, password in (
        (f"redis://{USER}@{place}", "guessed"),
        (f"redis://{place}", None),
        (f"redis://x:y@{place}", None),
    ):
        why = await told(url, password)
        assert why is not None
        assert why.startswith("Redis refuses us (")
        assert "HEADRACE_REDIS_PASSWORD" in why
        assert "guessed" not in why


async def test_lists_are_kept_by_a_user_with_few_rights(guarded: RedisServer) -> None:
    client = redis_client(f"redis://{USER}@{HOST}:{guarded.port}", PASSWORD)
    lists = ListCache(client, "app:v1")
    await lists.start()
    lists.put("u1", b"list")
    await lists.stop()
    assert await client.get(lists.key("u1")) == b"list"
    assert await lists.delete("u2", budget_s=0.01) is False  # not started any more: nobody tells Redis
    await close_redis(client)


async def test_tls_needs_an_authority_that_is_trusted(guarded: RedisServer, tmp_path: Path) -> None:
    ca, other, context = trustme.CA(), trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(context)
    for name, authority in (("ca.pem", ca), ("other.pem", other)):
        authority.cert_pem.write_to_path(tmp_path / name)
    async with tls_front(guarded.port, context) as port:
        url = f"rediss://{USER}@{HOST}:{port}"
        assert await told(url, PASSWORD, tmp_path / "ca.pem") is None
        assert "Redis refuses us" in str(await told(url, "guessed", tmp_path / "ca.pem"))
        for ca_file in (tmp_path / "other.pem", None):
            why = await told(url, PASSWORD, ca_file)
            assert "TLS with Redis fails" in str(why)
            assert "check HEADRACE_REDIS_CA_FILE" in str(why)
        assert "has to begin with rediss://" in str(await told(f"redis://{USER}@{HOST}:{port}", PASSWORD))


async def test_a_worker_says_why_redis_is_not_used(guarded: RedisServer) -> None:
    client, absent = redis_client(f"redis://{HOST}:{guarded.port}"), redis_client(f"redis://{HOST}:{free_port(HOST)}")
    with structlog.testing.capture_logs() as logs:
        await say_refusal(client)
        await say_refusal(absent)  # one that is away is the breaker's news
    assert [line["event"] for line in logs] == ["no lists are kept in Redis"]
    with pytest.raises(RedisError):
        await refusal(absent)
    await close_redis(client)
    await close_redis(absent)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        f"redis://u:{PASSWORD}@h:6379",
        "http://u:s3cret@h",
        "redis://u:p#s3cret@h",
        "redis://h?db=s3cret&x=1",
    ],
)
def test_a_wrong_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match="expected redis://") as caught:
        redis_client(url)
    assert "s3cret" not in str(caught.value)
    assert "horse" not in str(caught.value)


def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"HEADRACE_REDIS_CA_FILE='.*absent.pem'"):
        redis_client("rediss://h", ca_file=tmp_path / "absent.pem")
    with pytest.raises(ValueError, match="does not begin with rediss://"):
        redis_client("redis://h", ca_file=tmp_path / "absent.pem")


def test_what_is_shown_of_an_address() -> None:
    assert shown(f"rediss://{USER}:s3cret@h:6380/2?ssl_cert_reqs=none") == "rediss://h:6380/2"
    assert shown("redis://u:p#s3cret@h") == "REDIS_URL"

"""A real server for each test of what is in Redis: most of them kill, stall or fill it. And a broker a file."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from api.redis_client import close_redis, redis_client
from tests.api.redis_server import RedisServer
from tests.containers import running_broker


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker for one file alone: all workers of a broker share its catalogue, and a list would have what other files put there."""
    with running_broker(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    """As a worker has it."""
    connected = redis_client(server.url)
    yield connected
    await close_redis(connected)

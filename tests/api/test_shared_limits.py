"""One limit of several workers, through a real server."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from api.limits import RateLimits
from api.redis_client import close_redis, redis_client
from api.shared_limits import SharedLimits
from infra.kafka_probe import free_port
from tests.api.counted import Counted
from tests.api.redis_server import HOST, RedisServer

NAMESPACE = "headrace:v1"
#: Slow, so that little is paid back while a busy machine is at a test; and fast, for the tests of that.
SLOW, FAST = 0.5, 50.0
BURST = 10


class Worker:
    """Buckets and the exchange of one process."""

    def __init__(self, client: Redis, rate: float = SLOW) -> None:
        self.limits = RateLimits(rate, BURST)
        self.shared = SharedLimits(self.limits, client, NAMESPACE)

    def granted(self, client: str, asks: int) -> int:
        return sum(self.limits.allow(client) == 0.0 for _ in range(asks))


@pytest.fixture
async def workers(client: Redis) -> AsyncIterator[list[Worker]]:
    three = [Worker(client) for _ in range(3)]
    yield three
    for worker in three:
        await worker.shared.stop()


async def test_what_one_worker_granted_is_spent_in_the_other(workers: list[Worker]) -> None:
    one, two, _ = workers
    assert one.granted("a", 8) == 8
    await one.shared.exchange()
    assert two.granted("a", 1) == 1  # who has heard nothing yet grants
    await two.shared.exchange()
    assert two.granted("a", 10) <= 3
    assert two.granted("b", 20) == 10


async def test_a_client_of_three_workers_gets_one_rate(client: Redis) -> None:
    workers = [Worker(client, FAST) for _ in range(3)]
    for worker in workers:
        await worker.shared.start()
    began, granted = time.monotonic(), 0
    while time.monotonic() - began < 2:
        granted += sum(worker.granted("a", 1) for worker in workers)
        await asyncio.sleep(0.002)
    took_s = time.monotonic() - began
    for worker in workers:
        await worker.shared.stop()
    # Alone, they would have granted three rates and three bursts, 330. Bursts may be granted before they have heard of each other.
    assert FAST * took_s * 0.7 < granted < FAST * took_s + 3 * BURST + FAST


async def test_what_is_owed_is_paid_back_and_leaves_no_key(server: RedisServer, client: Redis) -> None:
    one, two = Worker(client, FAST), Worker(client, FAST)
    one.limits.allow("a", 100)
    await one.shared.exchange()
    [key] = server.direct.keys()
    assert key == b"headrace:v1:1:limit:50:a"
    await asyncio.sleep(100 / FAST + 0.05)
    assert not server.direct.exists(key)
    two.granted("a", 1)
    await two.shared.exchange()
    assert two.granted("a", 9) == 9


async def test_what_is_spent_while_an_exchange_is_under_way_is_kept(server: RedisServer, workers: list[Worker]) -> None:
    one, two, _ = workers
    two.granted("a", 4)
    await two.shared.exchange()
    one.granted("a", 1)
    server.stall()
    exchange = asyncio.create_task(one.shared.exchange())
    await asyncio.sleep(0.02)
    assert one.granted("a", 3) == 3
    server.resume()
    await exchange
    assert one.granted("a", 10) <= 3  # eight of ten were spent
    assert one.limits.take_spent()["a"] >= 3


async def test_without_a_server_each_worker_limits_for_itself() -> None:
    client = redis_client(f"redis://{HOST}:{free_port(HOST)}")
    worker, counted = Worker(client, FAST), Counted("headrace_limit_exchanges_total", "outcome")
    await worker.shared.start()
    assert worker.granted("a", 50) >= 10
    await asyncio.sleep(0.3)
    assert worker.granted("a", 50) >= 10
    await asyncio.sleep(0.2)
    await worker.shared.stop()
    assert counted().keys() == {"failed"}
    await close_redis(client)


async def test_a_server_that_is_killed_loses_debts_and_is_used_again(
    server: RedisServer, workers: list[Worker]
) -> None:
    one, two, _ = workers
    one.granted("a", 6)
    await one.shared.exchange()
    server.kill()
    for _ in range(6):
        one.limits.allow("x")
        await one.shared.exchange()
    await asyncio.to_thread(server.start)
    await asyncio.sleep(0.3)  # the breaker's first pause
    one.granted("b", 10)
    two.granted("b", 1)
    assert one.granted("a", 1) == 1
    await one.shared.exchange()
    await two.shared.exchange()
    assert two.granted("b", 10) <= 3
    assert one.granted("a", 10) <= 5  # it has not forgotten what it granted itself


async def test_many_clients_go_in_scripts_of_a_bounded_size(server: RedisServer, workers: list[Worker]) -> None:
    one, two, _ = workers
    for worker in (one, two):
        for number in range(1_200):
            assert worker.limits.allow(f"c {number}\n", 7) == 0.0
    counted = Counted("headrace_limit_exchanges_total", "outcome")
    await one.shared.exchange()
    await two.shared.exchange()
    assert counted() == {"done": 6}
    assert server.direct.dbsize() == 1_200
    assert all(two.limits.allow(f"c {number}\n", 7) > 0 for number in range(1_200))


async def test_workers_of_another_rate_have_another_limit(client: Redis, workers: list[Worker]) -> None:
    other = Worker(client, 2 * SLOW)
    workers[0].granted("a", 10)
    await workers[0].shared.exchange()
    other.granted("a", 1)
    await other.shared.exchange()
    assert other.granted("a", 10) == 9

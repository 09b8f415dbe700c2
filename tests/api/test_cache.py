"""Last lists in a real server that is there, killed, stalled, full, started anew, or never was."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from api import cache as cache_module
from api import write_behind
from api.cache import MAX_READS, ListCache
from api.redis_client import MAX_CONNECTIONS, close_redis, redis_client
from infra import metrics
from infra.kafka_probe import free_port
from tests.api.counted import Counted
from tests.api.redis_server import HOST, RedisServer

NAMESPACE = "headrace:v1"
#: Of a read with the default budget, on a busy machine.
SOON_S = 0.15


@pytest.fixture
async def cache(client: Redis) -> AsyncIterator[ListCache]:
    lists = ListCache(client, NAMESPACE)
    await lists.start()
    yield lists
    await lists.stop()


def lookups() -> Counted:
    return Counted("headrace_cache_lookups_total", "outcome")


def writes() -> Counted:
    return Counted("headrace_cache_writes_total", "outcome")


def breaker(service: str) -> float | None:
    return metrics.REGISTRY.get_sample_value("headrace_breaker_state", {"service": service})


async def until(met: Callable[[], Awaitable[bool]] | Callable[[], bool], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while True:
        answer = met()
        if answer is True or (not isinstance(answer, bool) and await answer):
            return
        assert time.monotonic() < deadline, "not within the time"
        await asyncio.sleep(0.02)


async def flushed(count: Counted, lists: int) -> None:
    """Wait until that many lists have come to an end, whichever."""
    await until(lambda: sum(count().values()) >= lists)


async def test_the_latest_list_of_a_user_is_found_by_another_worker(server: RedisServer, cache: ListCache) -> None:
    written, found = writes(), lookups()
    for number in range(3):
        cache.put("u1", b"list %d" % number)
    cache.put("u2", b"other")
    await flushed(written, 4)
    assert written() == {"stored": 2, "replaced": 2}

    other = redis_client(server.url)
    theirs = ListCache(other, NAMESPACE)
    assert await theirs.get("u1") == b"list 2"
    assert await theirs.get("u2") == b"other"
    assert await theirs.get("u3") is None
    assert found() == {"hit": 2, "miss": 1}
    await close_redis(other)


async def test_keys_are_versioned_and_expire(server: RedisServer, cache: ListCache, client: Redis) -> None:
    written = writes()
    cache.put("u1", b"list")
    await flushed(written, 1)
    [key] = server.direct.keys()
    assert key == b"headrace:v1:1:list:u1"
    assert 86_000 < server.direct.ttl(key) <= 86_400
    assert await ListCache(client, "headrace:v2").get("u1") is None


async def test_a_list_is_found_before_it_is_written(client: Redis) -> None:
    lists = ListCache(client, NAMESPACE)  # which never starts to write
    lists.put("u1", b"list")
    assert await lists.get("u1") == b"list"


async def test_what_is_not_there_is_asked_for_once(server: RedisServer, cache: ListCache) -> None:
    found = lookups()
    before = server.direct.info("commandstats").get("cmdstat_get", {"calls": 0})["calls"]
    for _ in range(10):
        assert await cache.get("nobody") is None
    assert found() == {"miss": 1, "negative": 9}
    assert server.direct.info("commandstats")["cmdstat_get"]["calls"] - before == 1

    server.direct.set(cache.key("nobody"), b"of another worker")
    await asyncio.sleep(1.05)
    assert await cache.get("nobody") == b"of another worker"
    assert await cache.get("late") is None
    cache.put("late", b"list")
    written = writes()
    await flushed(written, 1)
    assert await cache.get("late") == b"list"  # not after a second, at once


@given(st.lists(st.text(min_size=1, max_size=128), min_size=1, max_size=20, unique=True))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_id_is_a_key_of_its_own(server: RedisServer, users: list[str]) -> None:
    async def run() -> None:
        client = redis_client(server.url)
        lists = ListCache(client, NAMESPACE)
        await lists.start()
        for user in users:
            lists.put(user, user.encode())
        await lists.stop()  # writes what waits
        for user in users:
            assert await ListCache(client, NAMESPACE).get(user, 1000) == user.encode()
        await close_redis(client)

    server.direct.flushall()
    asyncio.run(run())
    assert server.direct.dbsize() == len(users)


@pytest.mark.parametrize(
    "user", ["a b", "a\r\nb", "*?[x]", "{tag}", "headrace:v1:1:list:u1", "ü€😀", "\x00", "\ud800", "x" * 128]
)
async def test_odd_ids_are_ids(cache: ListCache, user: str) -> None:
    written = writes()
    cache.put(user, b"odd")
    await flushed(written, 1)
    assert written() == {"stored": 1}
    assert await cache.get(user) == b"odd"
    assert await cache.delete(user)
    assert await cache.get(user) is None
    assert cache.key(user) != cache.key("?")


async def test_no_url_is_no_cache() -> None:
    found, written = lookups(), writes()
    lists = ListCache(None, NAMESPACE)
    await lists.start()
    lists.put("u1", b"list")
    assert await lists.get("u1") is None
    assert await lists.delete("u1")
    await lists.stop()
    assert (found(), written()) == ({}, {})


async def test_a_server_that_comes_later_is_used_without_a_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    late = RedisServer(tmp_path_factory.mktemp("late"))
    client = redis_client(late.url)
    lists = ListCache(client, NAMESPACE)
    await lists.start()
    found, written = lookups(), writes()
    for number in range(20):
        lists.put(f"u{number}", b"list")
        assert await lists.get("nobody") is None
    await flushed(written, 20)
    assert found().keys() == {"failed", "open"}
    assert written().keys() <= {"failed", "dropped"}
    with late:
        await until(lambda: _comes_back(lists), 15)
        await lists.stop()
        await close_redis(client)


async def _comes_back(lists: ListCache) -> bool:
    """Whether a list that is put now is read back from the server, not from what waits."""
    written = writes()
    lists.put("back", b"list")
    await flushed(written, 1)
    return await lists.get("back") == b"list"


async def test_a_server_killed_under_load_costs_no_request_and_is_used_again(
    server: RedisServer, cache: ListCache
) -> None:
    """Each step of a request's way is done for a second before the kill, a second after, and until it is back."""
    found = lookups()
    slowest_s, ended = 0.0, False
    answers: list[bytes | None] = []

    async def requests() -> None:
        nonlocal slowest_s
        number = 0
        while not ended:
            number += 1
            cache.put(f"u{number % 50}", b"list")
            began = time.perf_counter()
            answers.append(await cache.get(f"u{(number + 25) % 50}"))
            slowest_s = max(slowest_s, time.perf_counter() - began)
            await asyncio.sleep(0.001)

    load = asyncio.gather(*(requests() for _ in range(5)))
    await asyncio.sleep(1)
    assert found()["hit"] > 100
    server.kill()
    await asyncio.sleep(1)
    assert breaker("redis_write") != 0
    during = len(answers)
    await asyncio.to_thread(server.start)
    hits = found()["hit"]
    await until(lambda: breaker("redis_write") == 0, 10)
    await until(lambda: found()["hit"] > hits + 100, 10)
    ended = True
    await load
    assert during > 500
    assert slowest_s < 0.3


async def test_the_read_breaker_opens_and_closes_by_reads_alone(server: RedisServer, client: Redis) -> None:
    lists = ListCache(client, NAMESPACE)
    server.direct.set(lists.key("u1"), b"list")
    assert await lists.get("u1") == b"list"
    server.kill()
    found = lookups()
    for _ in range(20):
        assert await lists.get("u1") is None
    assert found() == {"failed": 5, "open": 15}
    assert breaker("redis_read") == 2
    await asyncio.to_thread(server.start)
    server.direct.set(lists.key("u1"), b"list")

    async def back() -> bool:
        return await lists.get("u1") == b"list"

    await until(back, 10)
    assert breaker("redis_read") == 0


async def test_idle_connections_that_a_restart_has_broken_are_not_noticed(server: RedisServer, client: Redis) -> None:
    lists = ListCache(client, NAMESPACE)
    assert await lists.get("u0") is None
    server.kill()
    await asyncio.to_thread(server.start)
    found = lookups()
    assert await lists.get("u1") is None
    assert found() == {"miss": 1}


async def test_a_stalled_server_costs_a_budget_and_then_nothing(server: RedisServer, client: Redis) -> None:
    lists = ListCache(client, NAMESPACE)
    server.direct.set(lists.key("u1"), b"list")
    assert await lists.get("u1") == b"list"
    server.stall()
    found = lookups()
    for _ in range(5):
        began = time.perf_counter()
        assert await lists.get("u1", 20) is None
        assert 0.015 < time.perf_counter() - began < SOON_S
    began = time.perf_counter()
    for _ in range(100):
        assert await lists.get("u1", 20) is None
    assert time.perf_counter() - began < SOON_S
    assert found() == {"failed": 5, "open": 100}
    server.resume()

    async def back() -> bool:
        return await lists.get("u1") == b"list"

    await until(back, 10)


async def test_a_loop_that_learning_holds_loses_no_list(server: RedisServer, client: Redis) -> None:
    """Each turn of the loop takes longer than the budget: the answer is there before anybody can look."""
    lists, found = ListCache(client, NAMESPACE), lookups()
    server.direct.set(lists.key("u1"), b"list")
    assert await lists.get("u1") == b"list"

    async def learn() -> None:
        while True:
            time.sleep(0.03)  # noqa: ASYNC251 - to hold it is the point
            await asyncio.sleep(0)

    learning = asyncio.create_task(learn())
    for _ in range(20):
        await lists.get("u1", 20)
    learning.cancel()
    # On a busy machine the server itself is late at times; a time-out that does not look would find none.
    assert found()["hit"] > 15
    assert breaker("redis_read") == 0


async def test_thousands_of_reads_of_a_stalled_server_neither_queue_nor_pile_up(
    server: RedisServer, client: Redis
) -> None:
    lists = ListCache(client, NAMESPACE)
    server.stall()
    found, process = lookups(), psutil.Process()
    connections = []
    for round_ in range(3):
        began = time.perf_counter()
        answers = await asyncio.gather(*(lists.get(f"u{round_}-{number}", 20) for number in range(5_000)))
        assert answers == [None] * 5_000
        assert time.perf_counter() - began < 2
        connections.append(len(process.net_connections()))
        if round_ == 0:
            assert found()["busy"] == 5_000 - MAX_READS
            before = process.memory_info().rss
        await asyncio.sleep(0.3)  # a trial each
    assert found()["failed"] <= MAX_READS + 2
    assert max(connections) <= MAX_CONNECTIONS + 10  # of the test's own
    assert process.memory_info().rss - before < 8 << 20


async def test_lists_for_a_stalled_server_take_no_more_and_more_memory(
    server: RedisServer, cache: ListCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "WRITE_BUDGET_S", 0.1)
    written, process = writes(), psutil.Process()
    server.stall()
    number = 0

    async def put(megabytes: int) -> None:
        nonlocal number
        for _ in range(megabytes * 20):
            for _ in range(25):
                number += 1
                cache.put(f"u{number}", os.urandom(2_000))
            await asyncio.sleep(0.005)

    while breaker("redis_write") == 0:
        await put(1)
    before = process.memory_info().rss
    await put(16)
    assert process.memory_info().rss - before < 8 << 20
    server.resume()
    await until(lambda: _comes_back(cache), 10)
    await flushed(written, number)
    assert written()["dropped"] > 6_000


async def test_what_waits_is_bounded_in_number_and_in_bytes(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "MAX_WAITING", 10)
    monkeypatch.setattr(write_behind, "MAX_WAITING_BYTES", 1_000)
    lists, written = ListCache(client, NAMESPACE), writes()
    for number in range(12):
        lists.put(f"u{number}", b"x" * 50)
    assert written() == {"dropped": 2}
    lists.put("u3", b"x" * 500)  # 950 bytes, and no further user
    lists.put("u4", b"x" * 101)
    assert written() == {"dropped": 3, "replaced": 1}
    assert [await lists.get("u3"), await lists.get("u4")] == [b"x" * 500, b"x" * 50]
    await lists.start()
    await flushed(written, 14)
    for number in range(10):  # what has been written has made room
        lists.put(f"v{number}", b"x" * 100)
    assert written() == {"dropped": 3, "replaced": 1, "stored": 10}


async def test_a_full_server_refuses_lists_and_gives_those_it_has(server: RedisServer, cache: ListCache) -> None:
    written = writes()
    cache.put("first", b"list")
    await flushed(written, 1)
    server.direct.config_set("maxmemory-policy", "noeviction")
    server.direct.config_set("maxmemory", 1)
    for number in range(50):
        cache.put(f"u{number}", b"list")
    await flushed(written, 51)
    assert written() == {"stored": 1, "failed": 50}
    assert await cache.get("first") == b"list"
    assert (breaker("redis_read"), breaker("redis_write")) == (0, 0)
    cache.put("u0", b"list")
    assert await cache.delete("first")  # in the same pipeline; it makes room, and so is allowed
    server.direct.config_set("maxmemory", 0)
    cache.put("u0", b"list")
    await flushed(written, 53)
    assert written() == {"stored": 2, "failed": 51}


async def test_a_key_of_another_kind_is_none_and_is_overwritten(server: RedisServer, cache: ListCache) -> None:
    server.direct.lpush(cache.key("u1"), "x")
    found, written = lookups(), writes()
    for _ in range(10):
        assert await cache.get("u1") is None
    assert found() == {"failed": 10}
    assert breaker("redis_read") == 0
    cache.put("u1", b"list")
    await flushed(written, 1)
    assert await cache.get("u1") == b"list"


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_a_port_where_something_else_answers_is_no_list(says: bytes) -> None:
    connections = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(says)
        await writer.drain()
        writer.close()

    port = free_port(HOST)
    async with await asyncio.start_server(answer, HOST, port):
        client = redis_client(f"redis://{HOST}:{port}")
        lists = ListCache(client, NAMESPACE)
        await lists.start()
        written = writes()
        lists.put("u1", b"list")
        await flushed(written, 1)
        for _ in range(10):
            assert await lists.get("u1") is None
        assert written() == {"failed": 1}
        assert breaker("redis_read") == 2
        assert connections == 6  # nothing is tried twice
        await lists.stop()
        await close_redis(client)


async def test_a_server_that_answers_nothing_is_tried_without_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "WRITE_BUDGET_S", 0.05)
    got: list[bytes] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(-1))
        writer.close()

    port = free_port(HOST)
    async with await asyncio.start_server(swallow, HOST, port):
        client = redis_client(f"redis://{HOST}:{port}")
        lists = ListCache(client, NAMESPACE)
        await lists.start()
        for number in range(100):
            lists.put(f"u{number}", b"x" * 100)
            await asyncio.sleep(0.02)
        await lists.stop()
        await close_redis(client)
    assert [b"SET" in commands for commands in got[:6]] == [True] * 5 + [False]
    assert len(got) > 6
    assert set(got[5:]) == {b"*1\r\n$4\r\nPING\r\n"}


async def test_a_deletion_is_confirmed_once_nothing_is_left(server: RedisServer, cache: ListCache) -> None:
    written = writes()
    cache.put("u1", b"stored")
    await flushed(written, 1)
    cache.put("u1", b"waiting")
    assert await cache.delete("u1")
    assert server.direct.dbsize() == 0
    assert await cache.get("u1") is None
    cache.put("u1", b"new")  # they are back
    assert await cache.get("u1") == b"new"
    await flushed(written, 2)
    assert server.direct.get(cache.key("u1")) == b"new"


async def test_a_deletion_that_is_not_confirmed_counts_here_at_once_and_there_later(
    server: RedisServer, cache: ListCache
) -> None:
    written = writes()
    cache.put("u1", b"list")
    cache.put("u2", b"list")
    await flushed(written, 2)
    server.stall()
    assert not await cache.delete("u1", 0.05)
    server.resume()
    assert await cache.get("u1", 1_000) is None  # although it is still there
    assert await cache.get("u2", 1_000) == b"list"
    await until(lambda: server.direct.dbsize() == 1, 10)
    assert await cache.get("u1") is None


async def test_a_deletion_does_not_wait_for_company(cache: ListCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "FLUSH_PAUSE_S", 60)
    assert await cache.delete("u1")  # the pause that had begun
    assert await cache.delete("u1")


async def test_a_deletion_beats_lists_that_are_being_written(server: RedisServer, cache: ListCache) -> None:
    written = writes()
    cache.put("warm", b"list")
    await flushed(written, 1)
    server.stall()
    first = asyncio.create_task(cache.delete("u1", 5))
    await asyncio.sleep(0)
    cache.put("u1", b"list")  # goes with the first deletion, after it
    cache.put("u2", b"list")
    await until(lambda: cache._writer is not None and cache._writer.waiting(cache.key("u1")) is None)  # under way
    others = asyncio.gather(cache.delete("u1", 5), cache.delete("u2", 5))
    await asyncio.sleep(0.05)
    server.resume()
    assert await first
    assert all(await others)
    assert server.direct.keys() == [cache.key("warm")]


async def test_two_deletions_of_one_user_are_both_confirmed(cache: ListCache) -> None:
    assert all(await asyncio.gather(cache.delete("u1"), cache.delete("u1")))


async def test_deletions_that_wait_are_bounded(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "MAX_DELETED", 2)
    lists = ListCache(client, NAMESPACE)  # which never starts to write
    for user in ("u1", "u2", "u3", "u1"):
        assert not await lists.delete(user, 0.01)
    assert await lists.get("u1") is None
    assert lists._writer is not None
    assert not lists._writer.is_deleted(lists.key("u3"))
    await lists.start()
    await until(lambda: lists.delete("u3"))  # once the first two have made room
    await lists.stop()


async def test_what_waits_at_the_end_is_written(server: RedisServer, client: Redis) -> None:
    lists = ListCache(client, NAMESPACE)
    await lists.start()
    for number in range(500):
        lists.put(f"u{number}", b"list")
    await lists.stop()
    assert server.direct.dbsize() == 500
    await lists.stop()  # again does nothing


async def test_ending_with_a_stalled_server_takes_a_moment(server: RedisServer, client: Redis) -> None:
    lists, written = ListCache(client, NAMESPACE), writes()
    await lists.start()
    server.stall()
    for number in range(5_000):
        lists.put(f"u{number}", b"list")
    began = time.monotonic()
    await lists.stop()
    assert time.monotonic() - began < 2
    assert written()["failed"] > 0


async def test_a_wrong_url_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="redis://"):
        redis_client("localhost:6379")
    assert cache_module.LAYOUT == 1

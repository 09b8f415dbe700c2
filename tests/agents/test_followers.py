"""The thread that follows other workers' videos, with a consumer of lists."""

import asyncio
from typing import Any, cast

import pytest
from confluent_kafka import Consumer

from agents.followers import Followers, Rows
from state.errors import SchemaMismatch, StateFull


class Message:
    def __init__(self, partition: int, offset: int, key: bytes, value: bytes | None) -> None:
        self._fields = partition, offset, key, value

    def error(self) -> None:
        return None

    def partition(self) -> int:
        return self._fields[0]

    def offset(self) -> int:
        return self._fields[1]

    def key(self) -> bytes:
        return self._fields[2]

    def value(self) -> bytes | None:
        return self._fields[3]


class ListConsumer:
    """Two records in each partition, read from wherever it is assigned."""

    def __init__(self) -> None:
        self.assigned: list[list[tuple[int, int]]] = []
        self.closed = False
        self._due: list[Message] = []

    def assign(self, places: list[Any]) -> None:
        self.assigned.append(sorted((place.partition, place.offset) for place in places))
        self._due = [
            Message(place.partition, offset, b"i:%d" % offset, None if offset else b"row")
            for place in places
            for offset in range(max(place.offset, 0), 2)
        ]

    def consume(self, most: int, timeout: float) -> list[Message]:
        del timeout
        taken, self._due = self._due[:most], self._due[most:]
        return taken

    def close(self) -> None:
        self.closed = True


class Broken(ListConsumer):
    def consume(self, most: int, timeout: float) -> list[Message]:
        raise RuntimeError(f"consumer is gone: {most}, {timeout}")


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the thread under test sets no event
            await asyncio.sleep(0.01)


def followers(consumer: ListConsumer, take: Any, failures: list[Exception]) -> Followers:
    return Followers(lambda: cast(Consumer, consumer), "items", take, failures.append)


async def test_rows_arrive_in_order_and_a_partition_that_comes_back_is_read_anew() -> None:
    consumer, failures = ListConsumer(), list[Exception]()
    taken: list[tuple[int, bytes, bytes | None]] = []

    def take(partition: int, rows: Rows) -> None:
        taken.extend((partition, key, value) for key, value in rows)

    following = followers(consumer, take, failures)
    following.follow({1, 2})
    await until(lambda: len(taken) == 4)
    assert sorted(taken) == [(p, key, value) for p in (1, 2) for key, value in ((b"i:0", b"row"), (b"i:1", None))]
    following.follow({2})
    await until(lambda: len(consumer.assigned) == 2)
    following.follow({1, 2})
    await until(lambda: len(taken) == 6)
    await following.stop()
    assert consumer.assigned == [[(1, -2), (2, -2)], [(2, 2)], [(1, -2), (2, 2)]]
    assert consumer.closed
    assert failures == []


async def test_nothing_to_follow_starts_no_thread() -> None:
    following = followers(ListConsumer(), None, [])
    following.follow(set())
    assert following._thread is None
    await following.stop()


async def test_a_thread_that_dies_is_heard_of() -> None:
    failures: list[Exception] = []
    following = followers(Broken(), None, failures)
    following.follow({1})
    await until(lambda: failures)
    assert "consumer is gone" in str(failures[0])
    await following.stop()


@pytest.mark.parametrize(("error", "heard"), [(SchemaMismatch("layout 9"), True), (StateFull("no room"), False)])
async def test_rows_that_cannot_be_taken_are_heard_of(error: Exception, heard: bool) -> None:
    """Unless there is merely no room: then our own videos go on."""
    failures: list[Exception] = []
    tried: list[int] = []

    def take(partition: int, _rows: Rows) -> None:
        tried.append(partition)
        raise error

    following = followers(ListConsumer(), take, failures)
    following.follow({1, 2})
    await until(lambda: len(tried) == 2)
    await following.stop()
    assert bool(failures) == heard

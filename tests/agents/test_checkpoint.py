"""What a checkpoint says when it fails."""

import asyncio
from typing import Any

import numpy as np
import pytest
from aiokafka.errors import IllegalOperation, KafkaTimeoutError, ProducerFenced

from agents.checkpoint import ShardTopics, ShardWriter
from state.rows import Cut
from state.shard import Checkpoint
from tests.agents.world import liked, world
from topics.specs import INTERACTIONS


class Fenced:
    """A producer whose first batch is refused while the next is being sent, as when another owner has taken the shard."""

    def __init__(self) -> None:
        self.sent: list[asyncio.Future[Any]] = []

    def create_batch(self) -> "Fenced":
        return self

    def append(self, **_: Any) -> object:
        return object()

    def record_count(self) -> int:
        return 1

    async def send_batch(self, *_: Any, **__: Any) -> "asyncio.Future[Any]":
        if self.sent:
            self.sent[0].set_exception(ProducerFenced())
            raise IllegalOperation("Can't send messages while not in transaction")
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[0]


async def test_a_fenced_checkpoint_names_the_fence_and_not_what_followed_from_it() -> None:
    writer = ShardWriter.__new__(ShardWriter)
    writer.topics, writer.partition = ShardTopics.of("a", "v1"), 0
    writer._producer = Fenced()
    taken = Checkpoint([(b"u", b"1")], [(b"i", b"1")], [], [], Cut({}), np.empty(0, np.int32))
    with pytest.raises(ProducerFenced):
        await writer._send(taken)


class Recovering:
    """A producer that fails once, when a transaction begins, and would take the next one."""

    def __init__(self) -> None:
        self.begun = 0

    async def begin_transaction(self) -> None:
        self.begun += 1
        await asyncio.sleep(0)
        raise KafkaTimeoutError


async def recovering() -> tuple[ShardWriter, Recovering]:
    writer, producer = ShardWriter("127.0.0.1:1", ShardTopics.of("a", "v1"), 0), Recovering()
    await writer.stop()
    writer._producer = producer
    return writer, producer


async def test_nothing_is_committed_behind_a_checkpoint_that_failed() -> None:
    """Two wait for the lock, a periodic one and an early one: the second would commit a cut without the first one's rows."""
    state = world(partitions=1)
    shard = state.engine.shards[0]
    writer, producer = await recovering()
    state.send(liked("ann", "a", 1), liked("ann", "b", 2))
    state.step(INTERACTIONS, 0, 1)
    first = asyncio.ensure_future(writer.checkpoint(state.engine, shard))
    second = asyncio.ensure_future(writer.checkpoint(state.engine, shard))
    await asyncio.sleep(0)
    state.step(INTERACTIONS, 0)
    for checkpoint in (first, second):
        with pytest.raises(KafkaTimeoutError):
            await checkpoint
    assert producer.begun == 1
    assert shard.dirty


async def test_nothing_is_committed_behind_a_batch_that_failed() -> None:
    state = world(partitions=1)
    writer, producer = await recovering()
    state.send(liked("ann", "a", 1))
    state.step(INTERACTIONS, 0)
    writer.give_up(ValueError("a batch"))
    with pytest.raises(ValueError, match="a batch"):
        await writer.checkpoint(state.engine, state.engine.shards[0])
    assert producer.begun == 0

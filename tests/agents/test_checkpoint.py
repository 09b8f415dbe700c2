"""What a checkpoint says when it fails."""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import IllegalOperation, ProducerFenced

from agents.checkpoint import ShardTopics, ShardWriter
from state.rows import Cut
from state.shard import Checkpoint


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
    taken = Checkpoint([(b"u", b"1")], [(b"i", b"1")], [], [], Cut({}), [])
    with pytest.raises(ProducerFenced):
        await writer._send(taken)

"""A worker's learning with no broker: agents, checkpoints and the evidence hop in one process, over lists.

Flows in: events in order. Flows out: an engine as a worker holds it. What a broker adds (fetches, transactions, their waits) is
left out, so rates are those of learning alone.
"""

import time
from collections.abc import Iterable, Sequence

from agents import catalog, items, users
from agents.app import CHUNK
from state.engine import Engine, EngineOptions
from state.rows import Cut
from state.shard import Shard
from state.store import MemoryStore
from topics.catalog import User, Video, encode
from topics.interactions import Interaction
from topics.interactions import encode as encode_event
from topics.partitions import partition_of
from topics.record_batch import Record
from topics.specs import INTERACTIONS, USERS, VIDEOS

#: As the workers' defaults have it.
CHECKPOINT_INTERVAL_S = 0.25
#: Event times are simulated, none is in the future.
TOLERANCE_MS = 600_000
EVIDENCE = "evidence"


class BrokerlessWorker:
    """All shards of one engine, fed by hand.

    Parameters
    ----------
    options : bounds, partitions, rate and seed
    """

    def __init__(self, options: EngineOptions) -> None:
        self.engine = Engine(options, b"bench")
        for partition in range(options.partitions):
            self.engine.add_shard(Shard(partition, MemoryStore(), MemoryStore(), Cut({})))
        self._next: dict[tuple[str, int], int] = {}
        self._stores_at = 0
        self._checkpoint_at = time.monotonic()

    def _record(self, topic: str, partition: int, key: bytes | None, value: bytes, at_ms: int) -> Record:
        offset = self._next.get((topic, partition), 0)
        self._next[topic, partition] = offset + 1
        return Record(key, value, offset, at_ms)

    def publish(self, videos: Iterable[tuple[str, Video]]) -> None:
        """Put videos into the catalogue, through their agent."""
        self._describe(VIDEOS, videos)

    def describe(self, users: Iterable[tuple[str, User]]) -> None:
        """Make known what is known of users beside events, through their agent."""
        self._describe(USERS, users)

    def _describe(self, topic: str, entries: Iterable[tuple[str, Video | User]]) -> None:
        parts: dict[int, list[Record]] = {}
        for entry_id, entry in entries:
            key = entry_id.encode()
            partition = partition_of(key, self.engine.options.partitions)
            parts.setdefault(partition, []).append(self._record(topic, partition, key, encode(entry), 0))
        for partition, mine in parts.items():
            for first in range(0, len(mine), CHUNK):
                catalog.step(self.engine, self.engine.shards[partition], topic, mine[first : first + CHUNK])

    def records(self, events: Iterable[Interaction]) -> list[tuple[int, Record]]:
        """Events as records of `interactions`, with their partitions; each call goes on behind the last one's offsets."""
        made = []
        for event in events:
            key = event.user_id.encode()
            partition = partition_of(key, self.engine.options.partitions)
            made.append((partition, self._record(INTERACTIONS, partition, key, encode_event(event), event.at_ms)))
        return made

    def learn(self, batch: Sequence[tuple[int, Record]]) -> None:
        """Learn records of all partitions, a micro-batch of one partition at a time; checkpoint when it is due."""
        parts: dict[int, list[Record]] = {}
        for partition, record in batch:
            parts.setdefault(partition, []).append(record)
        for partition, mine in parts.items():
            for first in range(0, len(mine), CHUNK):
                users.step(self.engine, self.engine.shards[partition], mine[first : first + CHUNK], TOLERANCE_MS)
                self._checkpoint_if_due()

    def _checkpoint_if_due(self) -> None:
        if time.monotonic() >= self._checkpoint_at:
            self.checkpoint()
            self._checkpoint_at = time.monotonic() + CHECKPOINT_INTERVAL_S

    def checkpoint(self) -> None:
        """Write every shard's rows, and apply the evidence that they made."""
        blocks: list[tuple[int, bytes]] = []
        for shard in self.engine.shards.values():
            if not shard.dirty:
                continue
            taken = shard.swap(self.engine.users, self.engine.replica, self.engine.origin)
            self._stores_at += 1
            shard.users_store.write(taken.users, self._stores_at)
            shard.items_store.write(taken.items, self._stores_at)
            shard.stored()
            self.engine.users.unpin(taken.pinned)
            blocks += taken.blocks
        for target, block in blocks:
            items.step(
                self.engine, self.engine.shards[target], EVIDENCE, [self._record(EVIDENCE, target, None, block, 0)]
            )

"""The checkpoint: rows, evidence, dead letters and input positions of one shard become visible together, or not at all.

The steps are numbered in `_checkpoint`; `agents.takeover` has steps 1 to 4, learning is step 5. Any error leaves the worker's
memory ahead of the log, so the worker must stop: a restart is the recovery.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation
from aiokafka.structs import TopicPartition

from agents import expiry
from agents.turn import Turn
from infra import metrics, tracing
from infra.kafka_security import aiokafka_options
from state.engine import Engine
from state.shard import Checkpoint, Shard
from state.stages import Stages
from topics import specs
from topics.dead_letter import MAX_REQUEST_BYTES

#: The coordinator aborts a transaction that is older; it must exceed every checkpoint, and bounds how long a dead worker's open
#: transaction holds back readers.
TRANSACTION_TIMEOUT_MS = 10_000
#: Rows put into a batch between two looks at how long the loop is held.
LOOK_ROWS = 50


@dataclass(frozen=True)
class ShardTopics:
    """Where a version's shards write."""

    group: str
    users_changelog: str
    items_changelog: str
    evidence: str

    @classmethod
    def of(cls, app: str, version: str) -> "ShardTopics":
        """Names of a version's topics."""
        return cls(
            f"{app}.{version}",
            specs.changelog_topic(app, version, "users"),
            specs.changelog_topic(app, version, "items"),
            specs.evidence_topic(app, version),
        )

    @property
    def inputs(self) -> list[str]:
        """Topics that a shard reads, in the order in which a fresh worker should meet them."""
        return [specs.VIDEOS, specs.USERS, self.evidence, specs.RECOMMENDATIONS, specs.INTERACTIONS]


class ShardWriter:
    """The transactional producer of one shard.

    Parameters
    ----------
    bootstrap : broker addresses
    topics : where to write
    partition : the shard
    """

    def __init__(self, bootstrap: str, topics: ShardTopics, partition: int) -> None:
        self.topics = topics
        self.partition = partition
        self._lock = asyncio.Lock()
        self._failure: Exception | None = None
        self._producer = AIOKafkaProducer(
            **aiokafka_options(bootstrap),
            transactional_id=f"{topics.group}.{partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_batch_size=512 * 1024,
            max_request_size=MAX_REQUEST_BYTES,
            request_timeout_ms=TRANSACTION_TIMEOUT_MS,
        )

    async def start(self) -> None:
        """Fence every older owner of the shard and settle its open transaction (step 1)."""
        await self._producer.start()

    async def stop(self) -> None:
        """Let go of the producer; an open transaction is left to be aborted."""
        await self._producer.stop()

    async def checkpoint(self, engine: Engine, shard: Shard) -> float:
        """Make everything that the shard has learned durable and visible; returns the seconds of work, 0 if there was nothing.

        Work is what held the loop, and what the disk cost: not the waiting, which is the longer the more others have to do.

        Raises
        ------
        aiokafka.errors.KafkaError
            Fenced, refused or unreachable: the worker must stop.
        """
        async with self._lock:
            if self._failure is not None:
                raise self._failure
            if not shard.dirty:
                return 0.0
            try:
                return await self._checkpoint(engine, shard)
            except BaseException as error:
                self.give_up(error if isinstance(error, Exception) else TimeoutError("a checkpoint was cut off"))
                raise

    def give_up(self, reason: Exception) -> None:
        """Refuse every later checkpoint: the next cut would pass over what was learned by halves, or taken and not committed."""
        self._failure = self._failure or reason

    async def _checkpoint(self, engine: Engine, shard: Shard) -> float:
        began, began_ns, stages, turn = time.perf_counter(), time.time_ns(), Stages(), Turn()
        # 6. At a batch boundary (these lines do not await): copy, swap buffers; learning goes on into new ones.
        expiry.sweep_users(engine, shard, expiry.SWEEP_ROWS)
        taken = shard.swap(engine.users, engine.replica, engine.origin)
        worked_s = turn.end()
        stages.mark("copy")
        await self._producer.begin_transaction()
        # 7. Send everything, and look at every answer.
        reached, sending_s = await self._send(taken)
        stages.mark("send")
        # 8. The positions, as a copy for Kafka's own tools; the cut record is the truth. Then the commit.
        await self._producer.send_offsets_to_transaction(
            {TopicPartition(topic, self.partition): offset for topic, offset in taken.cut.next.items()},
            self.topics.group,
        )
        await self._producer.commit_transaction()
        stages.mark("commit")
        # 9. Only now the disk, one write batch a store, and the slots may be evicted again.
        worked_s += sending_s + await asyncio.to_thread(_store, shard, taken, reached)
        shard.stored()
        engine.users.unpin(taken.pinned)
        stages.mark("store")
        metrics.CHECKPOINT_SECONDS.observe(time.perf_counter() - began)
        metrics.CHECKPOINT_ROWS.inc(len(taken))
        if tracing.spans is not None:
            told = {"headrace.shard": self.partition, "headrace.rows": len(taken)}
            tracing.spans.done("checkpoint", began_ns, told, [(began_ns, stages.seconds)])
        return worked_s

    async def _send(self, taken: Checkpoint) -> tuple[dict[str, int], float]:
        """Returns the offset behind the last row sent, by changelog, and the seconds for which the loop was held."""
        futures: list[asyncio.Future[Any]] = []
        try:
            return await self._send_all(taken, futures)
        except IllegalOperation:
            # A failed batch closes the transaction: the next send hears only of that. The cause is the batch's own error.
            errors = [future.exception() for future in futures if future.done()]
            cause = next((error for error in errors if error is not None), None)
            if cause is None:
                raise
            raise cause from None

    async def _send_all(self, taken: Checkpoint, futures: list[asyncio.Future[Any]]) -> tuple[dict[str, int], float]:
        turn = Turn()
        ends: dict[str, asyncio.Future[Any]] = {}
        counts: dict[str, int] = {}
        for topic, rows in (
            (self.topics.items_changelog, taken.items),
            (self.topics.users_changelog, taken.users),
        ):
            batch = self._producer.create_batch()
            for number, (key, value) in enumerate(rows):
                if number % LOOK_ROWS == 0:
                    await turn.pause()
                if batch.append(key=key, value=value, timestamp=None) is None:
                    futures.append(await self._send_batch(batch, topic, turn))
                    batch = self._producer.create_batch()
                    if batch.append(key=key, value=value, timestamp=None) is None:
                        raise ValueError(
                            f"a row of {len(value or b'')} bytes does not fit into a batch: key {key[:40]!r}"
                        )
            if batch.record_count():
                counts[topic] = batch.record_count()
                ends[topic] = await self._send_batch(batch, topic, turn)
                futures.append(ends[topic])
        held_s = turn.end()
        for target, block in taken.blocks:
            futures.append(await self._producer.send(self.topics.evidence, block, partition=target))
        for letter in taken.dead:
            futures.append(  # noqa: PERF401 - each send waits for room in the buffer
                await self._producer.send(
                    specs.DEAD, letter.value, key=letter.key, partition=self.partition, headers=letter.headers
                )
            )
        for key, value in taken.carried.items():
            futures.append(await self._producer.send(specs.USERS, value, key=key, partition=self.partition))
        # A batch that fails does not fail the commit (seen in aiokafka 0.14): every future has to be asked.
        await asyncio.gather(*futures)
        return {topic: end.result().offset + counts[topic] for topic, end in ends.items()}, held_s

    async def _send_batch(self, batch: Any, topic: str, turn: Turn) -> asyncio.Future[Any]:
        """Waits for room in the buffer."""
        turn.end()
        future: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=self.partition)
        turn.begin()
        return future


def _store(shard: Shard, taken: Checkpoint, reached: dict[str, int]) -> float:
    """Returns the CPU seconds of it."""
    began = time.thread_time()
    for store, rows, suffix in (
        (shard.items_store, taken.items, "-items-changelog"),
        (shard.users_store, taken.users, "-users-changelog"),
    ):
        offset = next((end for topic, end in reached.items() if topic.endswith(suffix)), None)
        if offset is not None:
            store.write(rows, offset)
    return time.thread_time() - began

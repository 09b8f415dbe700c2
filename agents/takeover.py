"""Taking over a shard: fence the old owner, bring the stores up to the changelogs, and find where its inputs go on.

Steps 1 to 4 of the checkpoint protocol; 6 to 9 are in `agents.checkpoint`. Always holds: nothing is read from a changelog
before the old owner can no longer write to it.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from agents.agreement import ANSWER_TIMEOUT_S, check_changelog, check_cut, check_fresh, check_store, forget_expired
from agents.checkpoint import ShardTopics, ShardWriter
from agents.snapshot_start import StartFrom, fill_stores
from infra import metrics
from infra.kafka_reader import committed_reader
from state import rows
from state.rows import Cut
from state.shard import Shard
from state.store import RocksStore, Store
from topics.identity import topic_ids
from topics.specs import RECOMMENDATIONS

log = structlog.get_logger(__name__)

#: Records a store takes in one write batch while tailing.
TAIL_BATCH = 5_000


class TailStalled(Exception):
    """The changelog could not be read to its end in time."""


async def take_over(
    bootstrap: str, topics: ShardTopics, partition: int, folder: Path, start: StartFrom | None = None
) -> tuple[ShardWriter, Shard]:
    """Own shard `partition`: its producer and its state as of its last committed checkpoint.

    Stores that are empty are filled from the snapshot that `start` names, if it fits, before their changelogs are read.

    Raises
    ------
    StateError, TailStalled
        The logs and the stores disagree, and going on would be wrong; the message says what to do.
    """
    writer = ShardWriter(bootstrap, topics, partition)
    # 1. Fence the old owner; its open transaction is resolved when this returns.
    await writer.start()
    try:
        shard = await asyncio.to_thread(_restore, bootstrap, topics, partition, folder, start)
    except BaseException:
        await writer.stop()
        raise
    return writer, shard


def _restore(bootstrap: str, topics: ShardTopics, partition: int, folder: Path, start: StartFrom | None) -> Shard:
    fill_stores(bootstrap, topics, partition, folder, start)
    users = RocksStore(folder / f"users-{partition}")
    try:
        items = RocksStore(folder / f"items-{partition}")
    except BaseException:
        users.close()
        raise
    try:
        written = [topics.evidence, topics.items_changelog]
        ids = topic_ids(bootstrap, [*topics.inputs, topics.users_changelog, topics.items_changelog])
        check_store(users, topics.users_changelog, partition, ids)
        check_store(items, topics.items_changelog, partition, ids)
        # 2. Only then read end offsets, and tail each changelog from the store's own offset.
        with ThreadPoolExecutor(2) as pool:
            tails = [
                pool.submit(tail, bootstrap, topic, partition, store)
                for topic, store in ((topics.users_changelog, users), (topics.items_changelog, items))
            ]
        restored = sum(taken.result() for taken in tails)
        # 3. The cut is where every input goes on.
        data = users.get(rows.CUT_KEY)
        cut = Cut({}) if data is None else rows.decode_cut(data)
        consumer = changelog_consumer(bootstrap, topics.group)
        try:
            if data is None:
                check_fresh(consumer, topics.inputs, topics.users_changelog, partition, items)
            forget_expired(consumer, RECOMMENDATIONS, partition, cut, ids)
            whole = [topic for topic in topics.inputs if topic != RECOMMENDATIONS]
            check_cut(consumer, whole, written, partition, cut, ids)
        finally:
            consumer.close()
        cut.topic_ids = {topic: ids[topic] for topic in (*topics.inputs, topics.items_changelog) if topic in ids}
    except BaseException:
        users.close()
        items.close()
        raise
    metrics.RESTORE_ROWS.inc(restored)
    log.info("shard restored", shard=partition, rows_read=restored, positions=cut.next)
    return Shard(partition, users, items, cut)


def changelog_consumer(bootstrap: str, group: str = "headrace-tail") -> Consumer:
    """A consumer of committed records whose partitions are assigned by hand; it says where a partition ends.

    It never joins `group`; only whose committed offsets it can look up depends on it.
    """
    return committed_reader(
        bootstrap,
        group,
        {
            "fetch.wait.max.ms": 50,
            # Read ahead, a consumer: two a shard restore at once, and by default each would take 64 MiB.
            "queued.max.messages.kbytes": 8 * 1024,
            # A full queue postpones the next fetch, by default for a whole second, in which nobody has anything to do.
            "fetch.queue.backoff.ms": 5,
        },
    )


def tail(bootstrap: str, topic: str, partition: int, store: Store, until: int | None = None) -> int:
    """Bring `store` up to the end of its changelog, or to the offset `until`; returns how many records it took.

    Raises
    ------
    CutOutOfRange
        The store is ahead of the changelog, or the changelog no longer holds what the store lacks.
    """
    consumer = changelog_consumer(bootstrap)
    try:
        where = TopicPartition(topic, partition)
        low, high = consumer.get_watermark_offsets(where, timeout=ANSWER_TIMEOUT_S)
        start = store.offset()
        check_changelog(f"{topic}[{partition}]", start, low, high)
        if start == (high if until is None else until):
            return 0
        consumer.assign([TopicPartition(topic, partition, start)])
        return _drain(consumer, store, f"{topic}[{partition}]", until)
    finally:
        consumer.close()


def _drain(consumer: Consumer, store: Store, name: str, until: int | None) -> int:
    taken = 0
    heard = time.monotonic()
    while True:
        # `consume` waits for a full batch or the timeout, even at the end of the log.
        messages = consumer.consume(TAIL_BATCH, timeout=0.05)
        ended = False
        batch: list[tuple[bytes, bytes | None]] = []
        offset = -1
        for message in messages:
            error = message.error()
            if error is None and until is not None and (message.offset() or 0) >= until:
                ended = True
                break
            if error is None:
                batch.append((message.key() or b"", message.value()))
                offset = message.offset() or 0
            elif error.code() == KafkaError._PARTITION_EOF:
                ended = True
            else:
                raise KafkaException(error)
        if batch:
            # What a crash takes back of it is read again.
            store.write(batch, offset + 1, logged=False)
            taken += len(batch)
        if ended:
            store.flush()
            return taken
        if messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > ANSWER_TIMEOUT_S:
            raise TailStalled(f"{name} gave nothing for {ANSWER_TIMEOUT_S:.0f} s and did not end: is the broker up?")

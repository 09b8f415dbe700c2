"""Importing a snapshot as a new version: its rows are written into changelogs of their own, with cuts from which workers go on.

Flows in: the files of a snapshot. Flows out: one transaction with all rows, all cuts, the evidence that was under way, and the
group's offsets. Always holds: a version that was imported by halves has nothing that a worker would read. Workers that take the new
version over learn what has come since the snapshot from the log, as if they had been away.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from agents.agreement import check_cut
from agents.checkpoint import ShardTopics
from agents.takeover import changelog_consumer
from state import rows
from state.rows import Cut
from state.snapshot import Manifest, SnapshotError, unpack
from state.snapshot_store import SnapshotStore
from topics.identity import topic_ids
from topics.specs import RECOMMENDATIONS, TopicsUnavailable, ensure_topics, producer_config, specs

#: All is one transaction; a broker's default bound is 15 minutes.
TRANSACTION_TIMEOUT_MS = 900_000
ANSWER_TIMEOUT_S = 60.0


def import_snapshot(
    bootstrap: str,
    store: SnapshotStore,
    manifest: Manifest,
    version: str,
    folder: Path,
    show: Callable[[str], None] = lambda _: None,
) -> None:
    """Write the snapshot into the topics of `version`, which has none yet.

    Parameters
    ----------
    folder : for what is needed meanwhile; it is there, and empty

    Raises
    ------
    SnapshotError, TopicsUnavailable
    CutOutOfRange, TopicReplaced
        The log does not hold what has come since the snapshot.
    """
    app, partitions = manifest.app, manifest.partitions
    topics, former = ShardTopics.of(app, version), ShardTopics.of(app, manifest.version)
    shared = [topic for topic in topics.inputs if topic != topics.evidence]
    # All files first: one that is broken is found before anything is written.
    for file in manifest.files:
        store.fetch(manifest, file, folder / file.name)
    cuts = [_read_cut(folder / manifest.file("users", partition).name) for partition in range(partitions)]
    ids = topic_ids(bootstrap, shared)
    consumer = changelog_consumer(bootstrap, topics.group)
    try:
        for partition, cut in enumerate(cuts):
            check_cut(consumer, [topic for topic in shared if topic != RECOMMENDATIONS], [], partition, cut, ids)
        ensure_topics(bootstrap, specs(app, version, partitions))
        ids = topic_ids(bootstrap, [*topics.inputs, topics.items_changelog])
        producer = Producer(
            {
                **producer_config(bootstrap),
                "transactional.id": f"{topics.group}.import",
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "log_level": 2,  # a coordinator that is still loading is no news
            }
        )
        writing = _Writing(producer)
        producer.init_transactions(ANSWER_TIMEOUT_S)
        producer.begin_transaction()
        offsets: list[TopicPartition] = []
        for partition, cut in enumerate(cuts):
            show(f"writing shard {partition}")
            below = 0
            for batch in unpack(folder / manifest.file("evidence", partition).name):
                for number, block in batch:
                    below += int.from_bytes(number) < cut.next.get(former.evidence, 0)
                    writing.send(topics.evidence, partition, None, block)
            moved = _moved(cut, former, topics, below, ids)
            for table, topic in (("items", topics.items_changelog), ("users", topics.users_changelog)):
                for batch in unpack(folder / f"{table}-{partition}.parquet"):
                    for key, value in batch:
                        is_cut = table == "users" and key == rows.CUT_KEY
                        writing.send(topic, partition, key, rows.encode_cut(moved) if is_cut else value)
            offsets += [TopicPartition(topic, partition, place) for topic, place in moved.next.items()]
        writing.flush()
        _commit(producer, consumer, offsets)
    except KafkaException as error:
        raise TopicsUnavailable(
            f"Kafka at {bootstrap}: version {version} was not written: {error.args[0].str()}"
        ) from error
    finally:
        consumer.close()


class _Writing:
    """Sends records, waits for room, and remembers the first error."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._errors: list[Any] = []

    def send(self, topic: str, partition: int, key: bytes | None, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition, on_delivery=self._told)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def flush(self) -> None:
        left = self._producer.flush(ANSWER_TIMEOUT_S)
        if left or self._errors:
            why = (
                self._errors[0].str()
                if self._errors
                else f"{left:,} records are not written after {ANSWER_TIMEOUT_S:.0f} s"
            )
            raise SnapshotError(f"the snapshot was not imported: {why}")

    def _told(self, error: Any, _: Any) -> None:
        if error is not None:
            self._errors.append(error)


def _read_cut(path: Path) -> Cut:
    # Rows are sorted, and the cut's key begins with the lowest letter of all: it is among the first.
    for batch in unpack(path):
        for key, value in batch:
            if key == rows.CUT_KEY:
                return rows.decode_cut(value)
    return Cut({})


def _moved(cut: Cut, former: ShardTopics, topics: ShardTopics, below: int, ids: dict[str, str]) -> Cut:
    """The cut as one of the new version: its evidence begins anew, with `below` blocks that only lists may lack."""
    following = {topic: place for topic, place in cut.next.items() if topic != former.evidence}
    if former.evidence in cut.next:
        following[topics.evidence] = below
    return msgspec.structs.replace(cut, next=following, topic_ids=dict(ids), lists=None if cut.lists is None else 0)


def _commit(producer: Producer, consumer: Consumer, offsets: Sequence[TopicPartition]) -> None:
    """Commit, with the places as a copy for Kafka's own tools, and for who asks how far the version has come."""
    if offsets:
        producer.send_offsets_to_transaction(list(offsets), consumer.consumer_group_metadata(), ANSWER_TIMEOUT_S)
    producer.commit_transaction(ANSWER_TIMEOUT_S)

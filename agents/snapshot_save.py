"""Saving a snapshot: the committed state of a version at one moment, read from its changelogs beside the workers that write them.

Flows in: changelogs and evidence of all shards. Flows out: files in a store of snapshots. Always holds: all rows and cuts are of one
moment between two checkpoints of every shard, and the evidence that was under way then is there too; so they are the whole of what
was learned from the prefix of the inputs that the cuts name.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from agents.agreement import ANSWER_TIMEOUT_S
from agents.checkpoint import ShardTopics
from agents.takeover import TailStalled, changelog_consumer, tail
from state import rows
from state.rows import Cut
from state.snapshot import TABLES, Manifest, PackedFile, SnapshotError, Table, pack
from state.snapshot_store import SnapshotStore
from state.store import RocksStore
from topics.identity import topic_ids
from topics.quiet import Ends, quiet_ends

#: Changelogs that are read at once.
READERS = 4
#: Keys of Faust and of ours that say what a store is, and are no rows.
_OWN = b"__faust"

_Stores = dict[tuple[str, int], RocksStore]


@dataclass(frozen=True)
class Saved:
    """What is saved, and what is written down with it.

    Attributes
    ----------
    folder : for what is needed meanwhile; it is there, and empty
    """

    bootstrap: str
    app: str
    version: str
    partitions: int
    folder: Path
    package: str
    configuration: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def save(saved: Saved, store: SnapshotStore, show: Callable[[str], None] = lambda _: None) -> Manifest:
    """Read the version as of now, and put it into `store`; `show` is told what is done.

    Raises
    ------
    SnapshotError, TopicsUnavailable, TailStalled, StateError
    """
    topics = ShardTopics.of(saved.app, saved.version)
    changelogs = {"users": topics.users_changelog, "items": topics.items_changelog}
    ids = topic_ids(saved.bootstrap, [*changelogs.values(), topics.evidence])
    with ExitStack() as opened:
        stores: _Stores = {}
        for place in itertools.product(TABLES, range(saved.partitions)):
            stores[place] = RocksStore(saved.folder / "{}-{}".format(*place))
            opened.callback(stores[place].close)
        show("reading the changelogs")
        # Nearly all is read before the moment is chosen: what would be read long after it might be compacted away meanwhile.
        _read(saved.bootstrap, changelogs, stores, None)
        ends = quiet_ends(saved.bootstrap, [*changelogs.values(), topics.evidence], saved.partitions)
        created_ms = int(time.time() * 1000)
        _read(saved.bootstrap, changelogs, stores, ends)
        cuts = [_cut(stores, topics, partition) for partition in range(saved.partitions)]
        if not any(stores["users", partition].get(rows.CUT_KEY) for partition in range(saved.partitions)):
            raise SnapshotError(
                f"version {saved.version} of {saved.app} has learned nothing yet: there is nothing to save"
            )
        for name in store.sweep():
            show(f"removed {name}, which a save that was ended had left")
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(created_ms / 1000))
        name = store.begin(f"{saved.version}-{stamp}")
        try:
            files: list[PackedFile] = []
            for table, topic, partition, found in _contents(saved, topics, stores, cuts, ends):
                show(f"saving {table} of shard {partition}")
                packed = saved.folder / "packed"
                count = pack(packed, found)
                file = f"{table}-{partition}.parquet"
                size_bytes, checksum = store.put(name, file, packed)
                topic_id, end = ids.get(topic, ""), ends[topic, partition]
                files.append(PackedFile(file, table, partition, topic, topic_id, end, count, size_bytes, checksum))
            manifest = Manifest(
                name=name,
                app=saved.app,
                version=saved.version,
                partitions=saved.partitions,
                created_ms=created_ms,
                package=saved.package,
                configuration=saved.configuration,
                cuts={str(partition): cut.next for partition, cut in enumerate(cuts)},
                metrics=saved.metrics,
                files=files,
            )
            store.finish(manifest)
        except BaseException:
            store.remove(name)
            raise
    return store.manifest(name)


def _read(bootstrap: str, changelogs: Mapping[str, str], stores: _Stores, ends: Ends | None) -> None:
    """Bring the stores up to where their changelogs end, or to `ends`."""

    def one(table: str, partition: int) -> None:
        topic, store = changelogs[table], stores[table, partition]
        end = None if ends is None else ends[topic, partition]
        tail(bootstrap, topic, partition, store, end)
        if end is not None:
            store.write([], end)  # behind the last record there may be a marker

    with ThreadPoolExecutor(READERS) as pool:
        for reading in [pool.submit(one, *place) for place in stores]:
            reading.result()


def _contents(
    saved: Saved, topics: ShardTopics, stores: _Stores, cuts: Sequence[Cut], ends: Ends
) -> Iterator[tuple[Table, str, int, Iterator[tuple[bytes, bytes]]]]:
    """What is saved: table, topic, shard and rows."""
    for partition, cut in enumerate(cuts):
        yield "users", topics.users_changelog, partition, _rows(stores["users", partition])
        yield "items", topics.items_changelog, partition, _rows(stores["items", partition])
        blocks = _under_way(saved.bootstrap, topics.evidence, partition, cut, ends[topics.evidence, partition])
        yield "evidence", topics.evidence, partition, blocks


def _rows(store: RocksStore) -> Iterator[tuple[bytes, bytes]]:
    return ((key, value) for key, value in store.scan(b"") if not key.startswith(_OWN))


def _cut(stores: _Stores, topics: ShardTopics, partition: int) -> Cut:
    data = stores["users", partition].get(rows.CUT_KEY)
    if data is not None:
        return rows.decode_cut(data)
    if stores["items", partition].offset() > 0:
        raise SnapshotError(
            f"{topics.users_changelog}[{partition}] holds no cut, though shard {partition} has learned: the topic was wiped, and there"
            " is nothing to save"
        )
    return Cut({})  # nothing has come to this shard yet


def evidence_from(cut: Cut, evidence: str) -> int:
    """Offset of the first block that is not wholly in the rows of a cut."""
    following = cut.next.get(evidence, 0)
    return following if cut.lists is None else min(cut.lists, following)


def _under_way(bootstrap: str, topic: str, partition: int, cut: Cut, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Blocks under way at a cut, up to offset `end`, as (offset in 8 bytes, block). Raises SnapshotError if some are gone."""
    start = evidence_from(cut, topic)
    consumer = changelog_consumer(bootstrap)
    try:
        low, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_TIMEOUT_S)
        if start < low and start < end:
            raise SnapshotError(
                f"{topic}[{partition}] begins at {low}, but shard {partition} has come to {start}: what is between has expired"
            )
        if start >= end:
            return
        consumer.assign([TopicPartition(topic, partition, start)])
        heard = time.monotonic()
        while True:
            for message in consumer.consume(100, timeout=0.05):
                error = message.error()
                offset = message.offset() or 0
                if error is None and offset < end:
                    yield offset.to_bytes(8), message.value() or b""
                elif error is None or error.code() == KafkaError._PARTITION_EOF:
                    return
                else:
                    raise KafkaException(error)
                heard = time.monotonic()
            if time.monotonic() - heard > ANSWER_TIMEOUT_S:
                raise TailStalled(f"{topic}[{partition}] gave nothing for {ANSWER_TIMEOUT_S:.0f} s and did not end")
    finally:
        consumer.close()

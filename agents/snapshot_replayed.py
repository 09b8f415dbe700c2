"""A canonical replay as a snapshot: what it has stored, packed as the rows of a version, from which workers can go on.

Flows in: a replay that has ended. Flows out: files in a store of snapshots, which are imported like any other. Always holds: no
evidence is under way, for a replay ends with all of it applied; the cuts are the places up to which the log was replayed.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agents.checkpoint import ShardTopics
from agents.replayer import Replayer
from state.shard import Shard
from state.snapshot import Manifest, PackedFile, SnapshotError, Table, pack
from state.snapshot_store import SnapshotStore
from state.store import Store

#: Keys of the stores' own that say what a store is, and are no rows.
_OWN = b"__faust"


def pack_replay(
    replayer: Replayer,
    store: SnapshotStore,
    app: str,
    version: str,
    folder: Path,
    package: str,
    configuration: dict[str, Any],
) -> Manifest:
    """Put what was replayed into `store`, as rows of `version`.

    Parameters
    ----------
    folder : for what is needed meanwhile; it is there

    Raises
    ------
    SnapshotError
        Nothing was replayed.
    """
    if not replayer.events and not any(shard.next for shard in replayer.shards):
        raise SnapshotError("there is nothing in that part of the topics: no version can be made of it")
    topics = ShardTopics.of(app, version)
    name = store.begin(f"{version}-replayed")
    try:
        files = []
        for shard in replayer.shards:
            for table, topic, found in _contents(shard, topics):
                packed = folder / "packed"
                count = pack(packed, found)
                file = f"{table}-{shard.partition}.parquet"
                size_bytes, checksum = store.put(name, file, packed)
                files.append(PackedFile(file, table, shard.partition, topic, "", 0, count, size_bytes, checksum))
        manifest = Manifest(
            name=name,
            app=app,
            version=version,
            partitions=len(replayer.shards),
            created_ms=int(time.time() * 1000),
            package=package,
            configuration=configuration,
            cuts={str(shard.partition): dict(shard.next) for shard in replayer.shards},
            metrics={},
            files=files,
        )
        store.finish(manifest)
    except BaseException:
        store.remove(name)
        raise
    return store.manifest(name)


def _contents(shard: Shard, topics: ShardTopics) -> Iterator[tuple[Table, str, Iterator[tuple[bytes, bytes]]]]:
    yield "users", topics.users_changelog, _rows(shard.users_store)
    yield "items", topics.items_changelog, _rows(shard.items_store)
    yield "evidence", topics.evidence, iter(())


def _rows(store: Store) -> Iterator[tuple[bytes, bytes]]:
    return ((key, value) for key, value in store.scan(b"") if not key.startswith(_OWN))

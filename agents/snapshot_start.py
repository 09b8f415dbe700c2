"""Starting from a snapshot: stores that are empty are filled from its files, and the changelogs are read from there.

Flows in: the files of a shard. Flows out: RocksDB folders, each the image of a changelog up to the snapshot's offset. Always holds:
a store is filled beside its place and moved there as a whole; and only where the changelog still says all that has changed since.
Where it does not, or anything is wrong with the snapshot, that is logged, and the changelog is read from its beginning.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from agents.checkpoint import ShardTopics
from infra.kafka_security import confluent_options
from state.snapshot import Manifest, PackedFile, SnapshotError, unpack
from state.snapshot_store import SnapshotStore
from state.store import RocksStore
from topics.groups import log_bounds
from topics.identity import topic_ids
from topics.specs import quiet_log

log = structlog.get_logger(__name__)

#: How long a broker may take to answer a question, in seconds.
ANSWER_TIMEOUT_S = 20.0
#: Clocks of two machines may differ by as much, and a tail may take as long, before a deletion that it has to read is gone.
MARGIN_S = 3600.0


@dataclass(frozen=True)
class StartFrom:
    """Which snapshot to start from.

    Attributes
    ----------
    url : of the store of snapshots
    name : of a snapshot, `promoted` or `latest`
    app, version, partitions : whose stores are to be filled
    """

    url: str
    name: str
    app: str
    version: str
    partitions: int


def fill_stores(bootstrap: str, topics: ShardTopics, partition: int, folder: Path, start: StartFrom | None) -> None:
    """Fill those of the shard's stores that are empty from the snapshot, if it can be used; else change nothing.

    Parameters
    ----------
    folder : holds the stores; none of them is open

    Raises
    ------
    StateError
        A store that is there cannot be opened.
    """
    tables = {"users": topics.users_changelog, "items": topics.items_changelog}
    for table in tables:
        shutil.rmtree(_filling(folder, table, partition), ignore_errors=True)
    if start is None:
        return
    empty = {table: topic for table, topic in tables.items() if _is_empty(folder / f"{table}-{partition}")}
    if not empty:
        return
    try:
        _fill(bootstrap, empty, partition, folder, start)
    except Exception as error:  # noqa: BLE001 - the changelog has it all: whatever a store of snapshots does must not stop a worker
        log.warning(
            "the snapshot is not used; the changelog is read from its beginning",
            shard=partition,
            snapshot=start.name,
            why=str(error) if isinstance(error, SnapshotError) else f"{type(error).__name__}: {error}",
        )
        for table in tables:
            shutil.rmtree(_filling(folder, table, partition), ignore_errors=True)


def _fill(bootstrap: str, empty: Mapping[str, str], partition: int, folder: Path, start: StartFrom) -> None:
    store = SnapshotStore(start.url, start.app)
    manifest = store.resolve(start.name, start.version)
    _check_fits(manifest, start)
    files = [file for file in manifest.files if file.table in empty and file.partition == partition]
    if len(files) != len(empty):
        raise SnapshotError(f"snapshot {manifest.name} has no files of shard {partition}")
    _check_log(bootstrap, manifest, files)
    for file in files:
        began = time.perf_counter()
        _fill_one(store, manifest, file, folder)
        log.info(
            "store filled from a snapshot",
            snapshot=manifest.name,
            store=f"{file.table}-{partition}",
            rows=file.rows,
            offset=file.offset,
            seconds=round(time.perf_counter() - began, 2),
        )


def _check_fits(manifest: Manifest, start: StartFrom) -> None:
    """See that the snapshot is of the same app, version and partitions. Raises SnapshotError."""
    for what, found, expected in (
        ("app", manifest.app, start.app),
        ("version", manifest.version, start.version),
        ("partitions", manifest.partitions, start.partitions),
    ):
        if found != expected:
            raise SnapshotError(f"snapshot {manifest.name} is of {what} {found}, this worker of {what} {expected}")


def _check_log(bootstrap: str, manifest: Manifest, files: list[PackedFile]) -> None:
    """See that the changelogs hold all that has changed since the snapshot. Raises SnapshotError."""
    names = [file.topic for file in files]
    ids = topic_ids(bootstrap, names)
    lows, highs = log_bounds(bootstrap, manifest.partitions, names)
    admin = AdminClient(confluent_options(bootstrap), logger=quiet_log())
    age_s = abs(time.time() - manifest.created_ms / 1000)
    for file in files:
        what = f"{file.topic}[{file.partition}]"
        if file.topic_id and ids.get(file.topic) and ids[file.topic] != file.topic_id:
            raise SnapshotError(f"{what} is not the topic that snapshot {manifest.name} is of: it was created anew")
        low, high = lows[file.topic][file.partition], highs[file.topic][file.partition]
        if not low <= file.offset <= high:
            raise SnapshotError(
                f"{what} holds {low} to {high}, and snapshot {manifest.name} ends at {file.offset}: the log was wiped, or"
                " the snapshot is of another one"
            )
        # Behind a deletion that was compacted away, the row would come back from the snapshot, and stay.
        kept_s = _kept_s(admin, file.topic)
        if age_s > kept_s - MARGIN_S:
            raise SnapshotError(
                f"snapshot {manifest.name} is {age_s / 3600:.1f} h old, and {file.topic} is sure to keep deletions for"
                f" {kept_s / 3600:.1f} h only (delete.retention.ms): save another"
            )


def _kept_s(admin: AdminClient, topic: str) -> float:
    """How long deletions stay in a compacted topic at least, in seconds."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    found = admin.describe_configs([resource], request_timeout=ANSWER_TIMEOUT_S)[resource].result()
    return int(found["delete.retention.ms"].value) / 1000


def _fill_one(store: SnapshotStore, manifest: Manifest, file: PackedFile, folder: Path) -> None:
    filling = _filling(folder, file.table, file.partition)
    filling.mkdir(parents=True)
    packed = filling / "packed"
    store.fetch(manifest, file, packed)
    filled = RocksStore(filling / "store")
    try:
        if file.topic_id:
            filled.note_topic(file.topic_id)
        rows = 0
        for batch in unpack(packed):
            # The offset comes last: until then this is the image of nothing, and nobody opens it.
            filled.write(batch, 0, logged=False)
            rows += len(batch)
        if rows != file.rows:
            raise SnapshotError(f"{store.where(manifest.name, file.name)} has {rows} rows, {file.rows} were saved")
        filled.write([], file.offset, logged=False)
        filled.flush()
    finally:
        filled.close()
    place = folder / f"{file.table}-{file.partition}"
    shutil.rmtree(place, ignore_errors=True)
    (filling / "store").rename(place)
    shutil.rmtree(filling)


def _filling(folder: Path, table: str, partition: int) -> Path:
    return folder / f"{table}-{partition}.filling"


def _is_empty(path: Path) -> bool:
    """Whether a store holds nothing yet, or is not there. Raises StateError if it cannot be opened."""
    if not path.exists():
        return True
    store = RocksStore(path)
    try:
        return store.offset() == 0
    finally:
        store.close()

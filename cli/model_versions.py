"""Letting the version of a snapshot serve: its own where Kafka still has it, else a new one that the snapshot is imported as.

Flows in: a snapshot whose files are as they were saved. Flows out: the record of the active version, which workers follow. Always
holds: the record is written only when workers can go on from the version: its cuts are in the log.
"""

import time
from collections.abc import Callable
from pathlib import Path

from agents.agreement import check_cut
from agents.checkpoint import ShardTopics
from agents.snapshot_import import import_snapshot
from agents.takeover import changelog_consumer, tail
from infra.settings import Settings
from state import rows
from state.errors import StateError
from state.snapshot import Manifest, SnapshotError
from state.snapshot_store import SnapshotStore
from state.store import RocksStore
from topics.identity import topic_ids
from topics.specs import RECOMMENDATIONS, ensure_topics
from topics.versions import Active, known_versions, next_version, read_active, versions_spec, write_active


def serve(
    settings: Settings,
    bootstrap: str,
    store: SnapshotStore,
    manifest: Manifest,
    folder: Path,
    show: Callable[[str], None],
    imported_as: str | None = None,
) -> str:
    """Make the version of a snapshot the active one; returns its name, which is a new one if it had to be imported.

    Parameters
    ----------
    folder : for what is needed meanwhile; it is there, and empty
    imported_as : the version that the snapshot was imported as before, tried first

    Raises
    ------
    SnapshotError
        Workers could not go on from it; the message says what to do.
    """
    if manifest.partitions != settings.partitions:
        raise SnapshotError(
            f"snapshot {manifest.name} has {manifest.partitions} partitions, HEADRACE_PARTITIONS is {settings.partitions}: the number"
            " is fixed for a version"
        )
    ensure_topics(bootstrap, [versions_spec(settings.app)])
    record = read_active(bootstrap, settings.app)
    active = Settings.model_fields["version"].default if record is None else record.version
    known = known_versions(bootstrap, settings.app)
    candidates = [name for name in (imported_as, manifest.version) if name in known]
    if active in candidates:
        return str(active)
    if candidates:
        version = str(candidates[0])
        check_version(bootstrap, settings.app, version, settings.partitions, folder)
        show(f"version {version} takes over from {active}; its workers begin with what has come since it served")
    else:
        version = next_version([*known, active, manifest.version])
        show(f"version {manifest.version} has been removed: importing the snapshot as version {version}")
        _import(bootstrap, store, manifest, version, folder, show)
    previous = active if active in known else None
    write_active(bootstrap, settings.app, Active(version, int(time.time() * 1000), previous))
    return version


def _import(
    bootstrap: str, store: SnapshotStore, manifest: Manifest, version: str, folder: Path, show: Callable[[str], None]
) -> None:
    try:
        import_snapshot(bootstrap, store, manifest, version, folder, show)
    except SnapshotError:
        raise
    except StateError as error:
        raise SnapshotError(
            f"snapshot {manifest.name} cannot be imported: {error}. To learn anew from the log: headrace replay --from-beginning"
        ) from error


def check_version(bootstrap: str, app: str, version: str, partitions: int, folder: Path) -> None:
    """See that workers could go on from where the version has stopped; `folder` is for stores.

    Raises
    ------
    SnapshotError
        They would all end.
    """
    topics = ShardTopics.of(app, version)
    written = [topics.evidence, topics.items_changelog]
    ids = topic_ids(bootstrap, [*topics.inputs, topics.items_changelog])
    consumer = changelog_consumer(bootstrap, topics.group)
    try:
        for partition in range(partitions):
            users = RocksStore(folder / f"{version}-{partition}")
            try:
                tail(bootstrap, topics.users_changelog, partition, users)
                data = users.get(rows.CUT_KEY)
            finally:
                users.close()
            if data is not None:
                inputs = [topic for topic in topics.inputs if topic != RECOMMENDATIONS]
                check_cut(consumer, inputs, written, partition, rows.decode_cut(data), ids)
    except SnapshotError:
        raise
    except StateError as error:
        raise SnapshotError(
            f"version {version} is still there, but workers cannot go on from it: {error}. Or remove it (headrace versions --remove"
            f" {version}) and promote again, which imports the snapshot as a new version"
        ) from error
    finally:
        consumer.close()

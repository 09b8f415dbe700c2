"""Filling a new version before a worker builds on it: with a snapshot, or with a canonical replay of the log.

Flows in: a version that is not there yet, and what it is to be made of. Flows out: its topics, written in one transaction, as
`agents.snapshot_import` does. Always holds: a version that was filled by halves has nothing that a worker would read, and the version
that serves is left alone.
"""

from collections.abc import Callable

from agents.replayer import Replayer
from agents.snapshot_import import import_snapshot
from agents.snapshot_replayed import pack_replay
from agents.worker import engine_options
from cli.model_facts import configuration_of, package_version
from cli.replay_stores import disk_stores, workspace
from infra.settings import Settings
from state.snapshot import Manifest, SnapshotError
from state.snapshot_store import SnapshotStore
from topics.canonical_log import CanonicalLog, StoppingPoint
from topics.groups import Places

Show = Callable[[str], None]


def fill_from_snapshot(building: Settings, bootstrap: str, name: str, until: Places | None, show: Show) -> Manifest:
    """Import a snapshot as the version.

    Parameters
    ----------
    name : of a snapshot, `promoted`, or `latest` of any version
    until : places that the version will be built up to, which the snapshot must not be beyond

    Raises
    ------
    SnapshotError, StateError, TopicsUnavailable
    """
    store = SnapshotStore(building.snapshots_url, building.app)
    manifest = _latest(store) if name == "latest" else store.resolve(name, building.version)
    if manifest.partitions != building.partitions:
        raise SnapshotError(
            f"snapshot {manifest.name} has {manifest.partitions} partitions, HEADRACE_PARTITIONS is {building.partitions}: the number"
            " is fixed for a version"
        )
    for partition, cut in manifest.cuts.items():
        for topic, ends in (until or {}).items():
            if cut.get(topic, 0) > ends.get(int(partition), 0):
                raise SnapshotError(
                    f"snapshot {manifest.name} has read {topic}[{partition}] up to {cut[topic]}, which is beyond"
                    f" {ends.get(int(partition), 0)}: start from an older snapshot, or --from-beginning"
                )
    with workspace(building) as folder:
        import_snapshot(bootstrap, store, manifest, building.version, folder, show)
    return manifest


def _latest(store: SnapshotStore) -> Manifest:
    readable = [each for each in store.listed() if isinstance(each, Manifest)]
    if not readable:
        raise SnapshotError(f"there is no snapshot in {store.url}: `headrace models save`")
    return readable[-1]


def fill_canonically(
    building: Settings, bootstrap: str, until: StoppingPoint, told: Callable[[int, int], None], show: Show
) -> tuple[int, Places]:
    """Replay the log in its canonical order, and import that as the version.

    Returns
    -------
    Interactions, and the next offsets up to which the log was replayed.

    Raises
    ------
    SnapshotError, StateError, TopicsUnavailable, TopicMismatch
    """
    tolerance_ms = int(building.future_tolerance_s * 1000)
    with (
        CanonicalLog(bootstrap, building.partitions, tolerance_ms, until, forgetting=True) as log,
        disk_stores(building) as stores,
        workspace(building) as folder,
    ):
        replayer = Replayer(engine_options(building), tolerance_ms, stores)
        replayer.run(log, lambda events: told(events, log.records))
        show("packing what was learned")
        store = SnapshotStore(str(folder / "snapshot"), building.app)
        facts = package_version(), configuration_of(building)
        manifest = pack_replay(replayer, store, building.app, building.version, folder, *facts)
        (folder / "import").mkdir()
        import_snapshot(bootstrap, store, manifest, building.version, folder / "import", show)
        return replayer.events, log.ends

"""`headrace models`: versioned snapshots of all that is learned, and which of them is promoted.

They are kept below HEADRACE_SNAPSHOTS, a folder or any fsspec URL. Saving reads the changelogs beside the workers, from any machine.
"""

import datetime
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from infra.embedded_kafka import open_broker
from infra.file_lock import FileLock
from infra.logs import configure_logs
from infra.settings import Settings
from state.snapshot import Manifest, SnapshotError, encode_manifest
from state.snapshot_store import Promotion, SnapshotStore

if TYPE_CHECKING:
    from cli.model_registry import ModelRegistry

#: Of another command that needs the same folder: a save of a large state takes minutes.
LOCK_TIMEOUT_S = 10.0

models = typer.Typer(
    help="Save snapshots of all that is learned, list, promote, roll back and export them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_Name = Annotated[
    str, typer.Argument(help="Of a snapshot, as `headrace models list` has it; or `latest`, or `promoted`.")
]
_To = Annotated[str | None, typer.Option("--to", help="A folder or fsspec URL, in place of HEADRACE_SNAPSHOTS.")]


@models.command()
def save(to: _To = None) -> None:
    """Save a snapshot of the version that serves, as of now. Workers go on meanwhile, and need not run on this machine.

    What a worker at HEADRACE_WEB_HOST and HEADRACE_WEB_PORT has measured of its lists is written down with it, if one answers.
    """
    # What is imported here brings numpy, and more than other commands need.
    from agents.snapshot_save import Saved
    from agents.snapshot_save import save as save_snapshot
    from cli.active_version import followed
    from cli.model_facts import configuration_of, online_metrics, package_version
    from topics.specs import ensure_topics
    from topics.versions import known_versions, versions_spec

    settings = _settings()
    console = _console()
    store = SnapshotStore(to or settings.snapshots_url, settings.app)
    with open_broker(settings) as broker, _workspace(settings) as folder:
        ensure_topics(broker.bootstrap, [versions_spec(settings.app)])
        live, _ = followed(settings, broker.bootstrap)
        known = known_versions(broker.bootstrap, live.app)
        if live.version not in known:
            raise SnapshotError(
                f"there is no version {live.version} of {live.app} to save (there are {', '.join(known) or 'none'}): start a worker"
                " first"
            )
        saved = Saved(
            bootstrap=broker.bootstrap,
            app=live.app,
            version=live.version,
            partitions=live.partitions,
            folder=folder,
            package=package_version(),
            configuration=configuration_of(live),
            metrics=online_metrics(live),
        )
        began = time.monotonic()
        manifest = save_snapshot(saved, store, lambda said: console.print(said, style="dim"))
    _tell_registry(settings, lambda registry: registry.saved(manifest, store.where(manifest.name, "")))
    rows = manifest.rows
    console.print(
        f"Snapshot {manifest.name} is saved in {time.monotonic() - began:.1f} s: {rows['users']:,} rows of users, {rows['items']:,} of"
        f" videos, {_size(manifest.size_bytes)}",
        soft_wrap=True,
    )
    typer.echo(manifest.name)


@models.command(name="list")
def list_(to: _To = None) -> None:
    """List the snapshots, the oldest first, and which one is promoted."""
    settings = _settings()
    store = SnapshotStore(to or settings.snapshots_url, settings.app)
    promoted = store.promotions().current
    table = Table(
        "name", "version", "created", "", title=f"Snapshots of {settings.app} in {store.url}", title_justify="left"
    )
    for title in ("interactions", "users", "videos", "size"):
        table.add_column(title, justify="right")
    broken = []
    for each in store.listed():
        if isinstance(each, SnapshotError):
            broken.append(str(each))
            continue
        read = sum(cut.get("interactions", 0) for cut in each.cuts.values())
        mark = "promoted" if promoted is not None and promoted.name == each.name else ""
        figures = (f"{read:,}", f"{each.rows['users']:,}", f"{each.rows['items']:,}", _size(each.size_bytes))
        table.add_row(each.name, each.version, _at(each.created_ms), mark, *figures)
    console = Console(highlight=False, markup=False)
    console.print(table)
    for line in broken:
        console.print(line, soft_wrap=True)


@models.command()
def show(name: _Name, to: _To = None) -> None:
    """Print what a snapshot is, as JSON: offsets, configuration, measures, and each file with its checksum."""
    settings = _settings()
    _, manifest = _find(settings, name, to)
    typer.echo(encode_manifest(manifest))


@models.command()
def promote(name: _Name) -> None:
    """Promote a snapshot: workers with HEADRACE_START_FROM=promoted start from it, and its version becomes the active one.

    Where that version has been removed from Kafka, the snapshot is imported as a new version, and workers learn what has come since
    from the log.
    """
    settings = _settings()
    store, manifest = _find(settings, name, None)
    version = _serve(settings, store, manifest, None)
    promotion = Promotion(manifest.name, version, int(time.time() * 1000))
    store.write_promotions(store.promotions().having(promotion))
    _tell_registry(settings, lambda registry: registry.promoted(manifest.name))
    typer.echo(f"Snapshot {manifest.name} is promoted; version {version} is active.")


@models.command()
def rollback() -> None:
    """Go back to the snapshot that was promoted before."""
    settings = _settings()
    store = SnapshotStore(settings.snapshots_url, settings.app)
    promotions = store.promotions()
    if len(promotions.history) < 2:
        raise SnapshotError(f"no snapshot was promoted before in {store.url}: there is nothing to go back to")
    *history, before, current = promotions.history
    manifest = store.manifest(before.name)
    version = _serve(settings, store, manifest, before.version)
    again = Promotion(before.name, version, before.at_ms)
    store.write_promotions(type(promotions)([*history, again]))
    _tell_registry(settings, lambda registry: registry.promoted(before.name))
    typer.echo(f"Rolled back from {current.name}: snapshot {before.name} is promoted; version {version} is active.")


@models.command()
def export(
    name: _Name,
    to: Annotated[Path, typer.Option(help="A folder that is not there yet, or is empty.")],
    users: Annotated[bool, typer.Option(help="Also what is known of each user: personal data.")] = False,
) -> None:
    """Write what a snapshot holds as plain files: vectors and factors of videos (.npy), tables (.parquet), the ranker (.json)."""
    from cli.model_export import export_snapshot

    settings = _settings()
    store, manifest = _find(settings, name, None)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SnapshotError(f"{to} is not an empty folder: name another with --to")
    with _workspace(settings) as folder:
        written = export_snapshot(store, manifest, folder, to, users=users)
    typer.echo(f"Snapshot {manifest.name} is exported to {to}: {', '.join(written)}")


@models.command()
def remove(name: _Name) -> None:
    """Remove a snapshot that is not promoted. One whose files are broken is removed, too."""
    settings = _settings()
    store = SnapshotStore(settings.snapshots_url, settings.app)
    promotions = store.promotions()
    if name in ("latest", "promoted"):
        raise SnapshotError(f"name the snapshot to remove, not {name!r}")
    if name not in store.names():
        store.manifest(name)  # says which there are
    if promotions.current is not None and promotions.current.name == name:
        raise SnapshotError(f"snapshot {name} is promoted: promote another, or roll back, first")
    if any(each.name == name for each in promotions.history):
        store.write_promotions(promotions.without(name))
    store.remove(name)
    typer.echo(f"Snapshot {name} is removed.")


def _settings() -> Settings:
    settings = Settings()
    configure_logs(settings.log_format, "warning")
    return settings


def _console() -> Console:
    """For what is said beside the result, which alone is on stdout."""
    return Console(highlight=False, markup=False, stderr=True)


def _find(settings: Settings, name: str, to: str | None) -> tuple[SnapshotStore, Manifest]:
    store = SnapshotStore(to or settings.snapshots_url, settings.app)
    if name != "latest":
        return store, store.resolve(name, settings.version)
    readable = [each for each in store.listed() if isinstance(each, Manifest)]
    if not readable:
        raise SnapshotError(f"there is no snapshot in {store.url}: `headrace models save`")
    return store, readable[-1]


def _serve(settings: Settings, store: SnapshotStore, manifest: Manifest, imported_as: str | None) -> str:
    """Compare all files of a snapshot, and let its version serve; returns the version."""
    from cli.model_versions import serve

    console = _console()
    console.print(f"comparing {len(manifest.files)} files with their checksums", style="dim")
    store.verify(manifest)
    with open_broker(settings) as broker, _workspace(settings) as folder:
        return serve(
            settings,
            broker.bootstrap,
            store,
            manifest,
            folder,
            lambda said: console.print(said, soft_wrap=True),
            imported_as,
        )


@contextmanager
def _workspace(settings: Settings) -> Iterator[Path]:
    """A folder for what is needed meanwhile, empty; what a command that was killed has left in it is removed."""
    folder = settings.home / "models"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock") as lock:
        if not lock.acquire(LOCK_TIMEOUT_S):
            raise SnapshotError(f"another `headrace models` command uses {folder}: try again when it has ended")
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _tell_registry(settings: Settings, tell: "Callable[[ModelRegistry], None]") -> None:
    """Tell MLflow, where there is one; what it fails at is said, and undoes nothing."""
    if settings.mlflow_tracking_uri is None:
        return
    from cli.model_registry import ModelRegistry, RegistryFailed

    try:
        tell(ModelRegistry(settings.mlflow_tracking_uri, settings.app))
    except RegistryFailed as error:
        _console().print(f"MLflow was not told: {error}", soft_wrap=True)


def _at(at_ms: int) -> str:
    return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"

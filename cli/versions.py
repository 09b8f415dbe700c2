"""`headrace versions`: which versions of the state there are, and removing one that does not serve."""

import shutil
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.active_version import followed
from cli.replay import VersionInUse
from infra.embedded_kafka import open_broker
from infra.logs import configure_logs
from infra.settings import Settings
from topics.groups import GroupBusy, committed, delete_group, delete_topics, log_bounds, members
from topics.specs import INTERACTIONS, changelog_topic, ensure_topics, evidence_topic
from topics.versions import known_versions, versions_spec

TABLES = ("users", "items")


class UnknownVersion(ValueError):
    """There is nothing of that name."""


def versions(
    remove: Annotated[
        str | None, typer.Option(help="Remove this version: its topics, its group, and its folder on this machine.")
    ] = None,
) -> None:
    """List the versions of the state: which one serves, by how many workers, and how far each has come."""
    settings = Settings()
    configure_logs(settings.log_format, "warning")
    console = Console(highlight=False, markup=False)
    with open_broker(settings) as broker:
        ensure_topics(broker.bootstrap, [versions_spec(settings.app)])
        live, _ = followed(settings, broker.bootstrap)
        if remove is not None:
            console.print(_remove(Settings(version=remove), live, broker.bootstrap), soft_wrap=True)
            return
        console.print(_table(live, broker.bootstrap))


def _table(live: Settings, bootstrap: str) -> Table:
    table = Table("version", "", title=f"Versions of {live.app}", title_justify="left")
    for title in ("workers", "interactions to go"):
        table.add_column(title, justify="right")
    names = known_versions(bootstrap, live.app)
    lows, highs = log_bounds(bootstrap, live.partitions, [INTERACTIONS]) if names else ({}, {})
    for name in names:
        group = f"{live.app}.{name}"
        places = committed(bootstrap, group, live.partitions)[INTERACTIONS]
        left = sum(
            high - max(places.get(partition, 0), lows[INTERACTIONS][partition])
            for partition, high in highs[INTERACTIONS].items()
        )
        table.add_row(name, "active" if name == live.version else "", f"{members(bootstrap, group):,}", f"{left:,}")
    return table


def _remove(gone: Settings, live: Settings, bootstrap: str) -> str:
    name = gone.version
    if name == live.version:
        raise VersionInUse(f"{name} is the version that serves: build another first, with headrace replay")
    known = known_versions(bootstrap, gone.app)
    if name not in known and not gone.state_dir.exists():
        raise UnknownVersion(f"there is no version {name} of {gone.app}: there are {', '.join(known) or 'none'}")
    # The group first: it refuses while somebody is in it, and then nothing is lost.
    try:
        delete_group(bootstrap, gone.group)
    except GroupBusy as error:
        count = members(bootstrap, gone.group)
        raise VersionInUse(f"version {name} is built or served by {count} worker(s): stop them first") from error
    topics = [evidence_topic(gone.app, name), *(changelog_topic(gone.app, name, table) for table in TABLES)]
    deleted = delete_topics(bootstrap, topics)
    here = gone.state_dir.exists()
    if here:
        shutil.rmtree(gone.state_dir)
    return (
        f"Version {name} is removed: {len(deleted)} topics, its group"
        + (f" and {gone.state_dir}" if here else "")
        + f". Other machines keep HEADRACE_HOME/state/{name} until you remove it there."
    )

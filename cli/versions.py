"""`headrace versions`: which versions of the state there are, letting another one serve, and removing one that does not."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.active_version import followed
from cli.replay import VersionInUse, switched
from infra.embedded_kafka import Broker, open_broker
from infra.logs import configure_logs
from infra.settings import Settings
from topics.groups import GroupBusy, committed, delete_group, delete_topics, log_bounds, members
from topics.specs import INTERACTIONS, changelog_topic, ensure_topics, evidence_topic
from topics.versions import Active, known_versions, versions_spec, write_active

TABLES = ("users", "items")


class UnknownVersion(ValueError):
    """There is nothing of that name."""


class VersionMoves(RuntimeError):
    """A shard commits so often that its two changelogs could not be read as of one moment."""


def versions(
    remove: Annotated[
        str | None, typer.Option(help="Remove this version: its topics, its group, and its folder on this machine.")
    ] = None,
    activate: Annotated[
        str | None, typer.Option(help="Let this version serve; workers change one after the other.")
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Let the version serve that served before this one.")
    ] = False,
) -> None:
    """List the versions of the state: which one serves, by how many workers, and how far each has come.

    `--rollback` goes back to the version before, at once; `--activate` names one. Nothing is lost by it: a version has its own place
    in the log, and its workers first learn what has come since it served. To let it catch up before it takes over, say
    `headrace replay --from-beginning --version NAME` instead.
    """
    if (remove is not None) + (activate is not None) + rollback > 1:
        raise typer.BadParameter("say one of --remove, --activate and --rollback")
    settings = Settings()
    configure_logs(settings.log_format, "warning")
    console = Console(highlight=False, markup=False)
    with open_broker(settings) as broker:
        ensure_topics(broker.bootstrap, [versions_spec(settings.app)])
        live, active = followed(settings, broker.bootstrap)
        if (rollback or activate is not None) and settings.version_is_set:
            raise VersionInUse("HEADRACE_VERSION keeps to one version: unset it, or workers that have it do not follow")
        if rollback:
            activate = _before(active, live)
        if activate is not None:
            console.print(_activate(activate, live, broker, console), soft_wrap=True)
            return
        if remove is not None:
            console.print(_remove(Settings(version=remove), live, broker.bootstrap), soft_wrap=True)
            return
        console.print(_table(live, broker.bootstrap))


def _before(active: Active | None, live: Settings) -> str:
    if active is None or active.previous is None:
        raise UnknownVersion(f"no version has served before {live.version}: there is nothing to go back to")
    return active.previous


def _activate(name: str, live: Settings, broker: Broker, console: Console) -> str:
    """Let a version serve that is there, once it is seen that workers can go on from it; returns what to tell."""
    # What is imported here brings numpy, and more than other commands need.
    from cli.model_versions import check_version

    if name == live.version:
        raise VersionInUse(f"{name} is the version that serves already")
    known = known_versions(broker.bootstrap, live.app)
    if name not in known:
        raise UnknownVersion(f"there is no version {name} of {live.app}: there are {', '.join(known) or 'none'}")
    with tempfile.TemporaryDirectory() as folder:
        check_version(broker.bootstrap, live.app, name, live.partitions, Path(folder))
    taking_over = Settings(version=name)
    _, highs = log_bounds(broker.bootstrap, live.partitions, [INTERACTIONS])
    places = committed(broker.bootstrap, taking_over.group, live.partitions)[INTERACTIONS]
    left = sum(max(0, high - places.get(partition, 0)) for partition, high in highs[INTERACTIONS].items())
    console.print(
        f"Version {name} takes over from {live.version}; its workers first learn the {left:,} records of {INTERACTIONS} that it has"
        " not read",
        soft_wrap=True,
    )
    serving = members(broker.bootstrap, live.group)
    write_active(broker.bootstrap, live.app, Active(name, int(time.time() * 1000), live.version))
    return f"{switched(live, taking_over, broker, serving)}. To go back: headrace versions --rollback"


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

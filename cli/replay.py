"""`headrace replay`: build a new version of the state from the topics, and let it take over.

The version that serves goes on serving and learning until the new one has come as far as it. Then the new one's name becomes the
record of the active version (`topics.versions`), and every worker that follows the record starts anew with it.
"""

import logging
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console

from cli.active_version import followed
from cli.worker import load_kernels
from infra.embedded_kafka import Broker, open_broker
from infra.kafka_config import HOST
from infra.kafka_probe import free_port
from infra.logs import configure_logs
from infra.settings import Settings
from state.errors import StateError
from topics.groups import committed, members
from topics.specs import TopicsUnavailable, ensure_topics, specs
from topics.versions import Active, known_versions, next_version, versions_spec, write_active

if TYPE_CHECKING:
    from topics.canonical_log import StoppingPoint
    from topics.groups import Places

#: A worker that was killed stays in its group for 10 s.
FORMER_TIMEOUT_S = 15.0
#: A worker has changed version in a few seconds; one with its state to read from changelogs takes longer to join.
#: They take turns, so this is for each.
SWITCH_TIMEOUT_S = 60.0
LOOK_EVERY_S = 0.25


class ReplayError(RuntimeError):
    """The new version could not be built; the one that serves is as it was."""


class BadCandidate(ValueError):
    """A file is no candidate; the message names the file, the key, and what is expected."""


class VersionInUse(RuntimeError):
    """The version serves, or is being built."""


def replay(
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Let a worker learn the topics from their beginning.")
    ] = False,
    from_snapshot: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Let a worker go on from a snapshot, as `headrace models list` has it; or `latest`, or `promoted`.",
        ),
    ] = None,
    canonical: Annotated[
        bool,
        typer.Option("--canonical", help="Learn the topics from their beginning in the order of `headrace digest`."),
    ] = False,
    until: Annotated[
        str | None,
        typer.Option(help="As of a time of arrival: ISO 8601 (UTC where it does not say), or ms since 1970."),
    ] = None,
    offsets: Annotated[
        str | None,
        typer.Option(help='As of these next offsets: a JSON file, or JSON: {"interactions": {"0": 1200}}.'),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Name of the new version; by default the next free one (v2 after v1).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML, TOML or JSON: what a candidate does otherwise.", dir_okay=False)
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Build nothing: measure the lists of --config and of the live settings.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="With --compare: lists for what arrived from then on; before, only learn.")
    ] = None,
    warmup: Annotated[
        float, typer.Option(min=0.0, max=0.95, help="With --compare: share of the log that is only learned.")
    ] = 0.3,
    lists: Annotated[int, typer.Option(min=1, help="With --compare: lists to make, at most.")] = 20_000,
    plot: Annotated[Path | None, typer.Option(help="With --compare: a PNG file to draw it to.", dir_okay=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line is one JSON object.")] = False,
) -> None:
    """Build a new version of all that is learned from the topics, and let it take over; or compare what a candidate would list.

    Workers go on with the old version meanwhile, and change by themselves, one after the other; clients wait for the few seconds of
    a restart, and none is refused.
    The old version stays until `headrace versions --remove` is told its name. Told the name of a version that exists and does
    not serve (an interrupted replay, or the one before), --from-beginning goes on from where that one has come.

    A version as of a time or of offsets is built and left alone: it serves when `headrace versions --activate` is told its name.

    Dead letters are not written a second time.
    """
    ways = [bool(from_beginning), from_snapshot is not None, canonical, compare or config is not None]
    if sum(ways) != 1:
        raise typer.BadParameter(
            "say one of --from-beginning, --from-snapshot NAME, --canonical, and --config FILE --compare"
        )
    settings = Settings()
    if compare or config is not None:
        if config is None or not compare:
            raise typer.BadParameter(
                "--config FILE and --compare belong together; to build a version with other settings, set them, and replay"
            )
        if version is not None:
            raise typer.BadParameter("--version is for a version that is built; --compare builds none")
        from cli.replay_compare import compare_candidate

        configure_logs(settings.log_format, "warning")
        compare_candidate(settings, config, until, offsets, since, lists, warmup, plot, as_json)
        return
    if since is not None or plot is not None:
        raise typer.BadParameter("--since and --plot are for --config FILE --compare")
    _build_version(settings, _Source(from_snapshot, canonical, until, offsets), version, as_json)


@dataclass(frozen=True)
class _Source:
    """What a version is made of, as the command was told; the beginning of the topics where that is neither."""

    snapshot: str | None
    canonical: bool
    until: str | None
    offsets: str | None

    @property
    def as_of(self) -> bool:
        """Whether it stops before where the version that serves has come."""
        return self.until is not None or self.offsets is not None

    @property
    def told(self) -> str:
        """The options that say where it stops."""
        found = {"--until": self.until, "--offsets": self.offsets}
        return "".join(f" {option} {shlex.quote(value)}" for option, value in found.items() if value is not None)

    @property
    def words(self) -> str:
        """For messages."""
        start = "the beginning of the topics" if self.snapshot is None else f"snapshot {self.snapshot}"
        return start + (f", as of {self.until or 'the given offsets'}" if self.as_of else "")


def _build_version(settings: Settings, source: _Source, version: str | None, as_json: bool) -> None:
    # What is imported here brings numpy, and more than other commands need.
    from cli.as_of import places_at
    from cli.canonical import stopping_point
    from cli.replay_build import find_target

    stop = stopping_point(source.until, source.offsets)
    configure_logs(settings.log_format, settings.log_level)
    if settings.log_level != "debug":
        # What makes the worker that builds fail ends the command, which says it: not also with a traceback a library.
        logging.disable(logging.ERROR)
    console = Console(highlight=False, markup=False)
    with open_broker(settings) as broker:
        ensure_topics(broker.bootstrap, [versions_spec(settings.app)])
        live, _ = followed(settings, broker.bootstrap)
        known = known_versions(broker.bootstrap, settings.app)
        name = version or next_version([*known, live.version])
        # Its HTTP port is for whoever wants to look at the building; the workers' own stays theirs.
        building = Settings(
            version=name, web_host=HOST, web_port=free_port(HOST), advertised_url=None, metrics_port=None
        )
        _require_idle(building, live, broker)
        if name in known and (source.canonical or source.snapshot is not None):
            raise VersionInUse(
                f"there is a version {name}: choose another name, or none; to go on with it: headrace replay --from-beginning"
                f" --version {name}"
            )
        console.print(f"Building version {name} from {source.words}; {live.version} goes on serving", soft_wrap=True)
        target = find_target(broker.bootstrap, live.group, building.partitions)
        # Who learns canonically writes no dead letters: it is never ahead of the version that does, where there has been one.
        judged = source.canonical and any(target.judged.values())
        most = target.judged if judged else target.until
        cut = places_at(broker.bootstrap, stop, most)
        load_kernels()
        filled = _fill(building, live, broker, source, stop, cut, console)
        ensure_topics(broker.bootstrap, specs(building.app, name, building.partitions))
        done = filled
        if not (source.canonical and source.as_of):
            built = _build(building, live, broker, console, source, cut if source.as_of else None)
            # What a worker learned after a canonical replay is beside it.
            done = {**filled, "then": built} if source.canonical else {**filled, **built}
        if source.as_of:
            console.print(_left_alone(building, live, source), soft_wrap=True)
        else:
            serving = members(broker.bootstrap, live.group)
            write_active(broker.bootstrap, live.app, Active(name, int(time.time() * 1000), live.version))
            console.print(switched(live, building, broker, serving), soft_wrap=True)
    if as_json:
        typer.echo(orjson.dumps(done, option=orjson.OPT_NON_STR_KEYS))


def _fill(
    building: Settings,
    live: Settings,
    broker: Broker,
    source: _Source,
    stop: "StoppingPoint",
    cut: "Places",
    console: Console,
) -> dict[str, object]:
    """Put into the version what it starts with; returns what of the summary is known then."""
    from cli.replay_fill import fill_canonically, fill_from_snapshot
    from cli.replay_view import Pace, ReplayView

    def show(said: str) -> None:
        console.print(said, style="dim", soft_wrap=True)

    name = building.version
    try:
        if source.snapshot is not None:
            manifest = fill_from_snapshot(
                building, broker.bootstrap, source.snapshot, cut if source.as_of else None, show
            )
            console.print(f"Snapshot {manifest.name} is imported as version {name}", soft_wrap=True)
            return {"version": name, "snapshot": manifest.name}
        if not source.canonical:
            return {"version": name}
        bounded = replace(stop, places={**(stop.places or {}), **cut})
        with ReplayView(console, name) as view:
            pace = Pace(view)
            events, places = fill_canonically(building, broker.bootstrap, bounded, pace.told, show)
    except (StateError, TopicsUnavailable) as error:
        raise ReplayError(
            f"version {name} was not built: {error}. {live.version} serves as before. If `headrace versions` lists {name}: headrace"
            f" versions --remove {name}"
        ) from error
    console.print(f"{events:,} interactions in the canonical order in {pace.seconds:.1f} s", soft_wrap=True)
    rate = round(events / max(pace.seconds, 1e-9), 1)
    return {
        "version": name,
        "events": events,
        "seconds": round(pace.seconds, 3),
        "events_per_s": rate,
        "places": places,
    }


def _left_alone(building: Settings, live: Settings, source: _Source) -> str:
    name = building.version
    moment = source.until or "the given offsets"
    return (
        f"Version {name} is built as of {moment}; {live.version} serves as before. A worker with {name} goes on from there and"
        f" learns at once what has come since, until it is up to date. To look at the version as it is: headrace digest --version"
        f" {name}. To have a worker with it: HEADRACE_VERSION={name} headrace worker, with another HEADRACE_WEB_PORT. To let it"
        f" serve: headrace versions --activate {name}. To remove it: headrace versions --remove {name}"
    )


def _require_idle(building: Settings, live: Settings, broker: Broker) -> None:
    """See that nobody serves or builds the version; a killed builder is waited for."""
    if building.version == live.version:
        raise VersionInUse(f"{live.version} is the version that serves: choose another name, or none")
    deadline = time.monotonic() + FORMER_TIMEOUT_S
    while count := members(broker.bootstrap, building.group):
        if time.monotonic() > deadline:
            raise VersionInUse(f"version {building.version} is built or served by {count} worker(s): stop them first")
        time.sleep(LOOK_EVERY_S)


def _build(
    building: Settings, live: Settings, broker: Broker, console: Console, source: _Source, cut: "Places | None"
) -> dict[str, object]:
    """Build it by a worker, up to a cut if there is one, and return the summary; an error says how to go on."""
    # What is imported here brings Faust and numba.
    from cli.replay_build import Progress, build
    from cli.replay_view import ReplayView

    name = building.version
    go_on = f"headrace replay --from-beginning --version {name}{source.told}"
    again = f"{live.version} serves as before. To go on: {go_on}; to give up: headrace versions --remove {name}"
    with ReplayView(console, name) as view:
        earlier = any(committed(broker.bootstrap, building.group, building.partitions).values())
        progress = Progress(view.show, None if earlier else 0)
        try:
            build(building, broker, live.group, progress, cut)
        except KeyboardInterrupt:
            console.print(f"Stopped at {progress.applied:,} records. {again}", soft_wrap=True)
            raise
        except ReplayError as error:
            raise ReplayError(f"version {name} was not built: {error}. {again}") from error
    seconds = progress.seconds
    rate = progress.events / max(seconds, 1e-9)
    console.print(f"{progress.events:,} interactions in {seconds:.1f} s: {rate:,.0f} a second")
    return {
        "version": name,
        "events": progress.events,
        "seconds": round(seconds, 3),
        "events_per_s": round(rate, 1),
    }


def switched(live: Settings, building: Settings, broker: Broker, serving: int) -> str:
    """Wait until the workers of the version that served, `serving` of them, have changed; returns what to tell."""
    name, old = building.version, live.version
    remove = f"To remove the old version: headrace versions --remove {old}"
    if not serving:
        return f"Version {name} is active; no worker runs, the next one starts with it. {remove}"
    deadline = time.monotonic() + SWITCH_TIMEOUT_S * serving
    staying, came = serving, 0
    while time.monotonic() < deadline and (staying or came < serving):
        time.sleep(LOOK_EVERY_S)
        try:
            staying, came = members(broker.bootstrap, live.group), members(broker.bootstrap, building.group)
        except TopicsUnavailable:
            continue  # a worker that runs the broker itself starts it anew, too
    if staying:
        return (
            f"Version {name} is active, workers: {came}. Workers that stay with {old}: {staying}; their HEADRACE_VERSION is "
            "set, or they are stuck"
        )
    return f"Version {name} has taken over, workers: {came}. {remove}"

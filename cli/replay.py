"""`headrace replay`: build a new version of the state from the topics, and let it take over.

The version that serves goes on serving and learning until the new one has come as far as it. Then the new one's name becomes the
record of the active version (`topics.versions`), and every worker that follows the record starts anew with it.
"""

import logging
import time
from typing import Annotated

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
from topics.groups import committed, members
from topics.specs import TopicsUnavailable, ensure_topics, specs
from topics.versions import Active, known_versions, next_version, versions_spec, write_active

#: A worker that was killed stays in its group for 10 s.
FORMER_TIMEOUT_S = 15.0
#: A worker has changed version in a few seconds; one with its state to read from changelogs takes longer to join.
#: They take turns, so this is for each.
SWITCH_TIMEOUT_S = 60.0
LOOK_EVERY_S = 0.25


class ReplayError(RuntimeError):
    """The new version could not be built; the one that serves is as it was."""


class VersionInUse(RuntimeError):
    """The version serves, or is being built."""


def replay(
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Of the topics; there is no other way yet, so it must be given.")
    ] = False,
    version: Annotated[
        str | None, typer.Option(help="Name of the new version; by default the next free one (v2 after v1).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The last line is one JSON object.")] = False,
) -> None:
    """Build a new version of all that is learned from the topics, and let it take over.

    Workers go on with the old version meanwhile, and change by themselves, one after the other; clients wait for the few seconds of
    a restart, and none is refused.
    The old version stays until `headrace versions --remove` is told its name. Told the name of a version that exists and does
    not serve (an interrupted replay, or the one before), it goes on from where that one has come.

    Dead letters are not written a second time.
    """
    if not from_beginning:
        raise typer.BadParameter("say from where to replay: --from-beginning")
    settings = Settings()
    configure_logs(settings.log_format, settings.log_level)
    if settings.log_level != "debug":
        # What makes the worker that builds fail ends the command, which says it: not also with a traceback a library.
        logging.disable(logging.ERROR)
    console = Console(highlight=False, markup=False)
    with open_broker(settings) as broker:
        ensure_topics(broker.bootstrap, [versions_spec(settings.app)])
        live, _ = followed(settings, broker.bootstrap)
        name = version or next_version([*known_versions(broker.bootstrap, settings.app), live.version])
        # Its HTTP port is for whoever wants to look at the building; the workers' own stays theirs.
        building = Settings(
            version=name, web_host=HOST, web_port=free_port(HOST), advertised_url=None, metrics_port=None
        )
        _require_idle(building, live, broker)
        console.print(f"Building version {name} from the beginning of the topics; {live.version} goes on serving")
        ensure_topics(broker.bootstrap, specs(building.app, name, building.partitions))
        load_kernels()
        done = _build(building, live, broker, console)
        serving = members(broker.bootstrap, live.group)
        write_active(broker.bootstrap, live.app, Active(name, int(time.time() * 1000), live.version))
        console.print(switched(live, building, broker, serving), soft_wrap=True)
    if as_json:
        typer.echo(orjson.dumps(done))


def _require_idle(building: Settings, live: Settings, broker: Broker) -> None:
    """See that nobody serves or builds the version; a killed builder is waited for."""
    if building.version == live.version:
        raise VersionInUse(f"{live.version} is the version that serves: choose another name, or none")
    deadline = time.monotonic() + FORMER_TIMEOUT_S
    while count := members(broker.bootstrap, building.group):
        if time.monotonic() > deadline:
            raise VersionInUse(f"version {building.version} is built or served by {count} worker(s): stop them first")
        time.sleep(LOOK_EVERY_S)


def _build(building: Settings, live: Settings, broker: Broker, console: Console) -> dict[str, object]:
    """Build it, and return the summary; an error says how to go on."""
    # What is imported here brings Faust and numba.
    from cli.replay_build import Progress, build
    from cli.replay_view import ReplayView

    name = building.version
    again = (
        f"{live.version} serves as before. To go on: headrace replay --from-beginning --version {name}; to give up: headrace "
        f"versions --remove {name}"
    )
    with ReplayView(console, name) as view:
        earlier = any(committed(broker.bootstrap, building.group, building.partitions).values())
        progress = Progress(view.show, None if earlier else 0)
        try:
            build(building, broker, live.group, progress)
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

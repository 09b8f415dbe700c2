"""`headrace digest`: one line a part of the state, equal for equal states: of the replayed log, or of a version."""

import time
from typing import Annotated

import orjson
import typer
from rich.console import Console

from infra.embedded_kafka import open_broker
from infra.logs import configure_logs
from infra.settings import Settings


def digest(
    version: Annotated[
        str | None, typer.Option(help="Of what this version has committed, instead of a replay of the log.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Replay what had arrived by then: ISO 8601 (UTC where it does not say), or ms since 1970."),
    ] = None,
    offsets: Annotated[
        str | None,
        typer.Option(
            help='Replay up to these next offsets: a JSON file, or JSON: {"interactions": {"0": 1200}}. A topic that is'
            " not named is read to its end."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print a digest of each part of what the log amounts to, and one of all.

    The log is learned in its canonical order, in memory; no topic is written to. Two replays of one log on one machine have the
    same digests. What users did who have been erased since is as if it had never been. A worker's own digests differ from a replay's
    in what depends on the order in which it got records: see `headrace verify`.
    """
    settings = Settings()
    configure_logs(settings.log_format, "warning")
    # What is imported here brings numba.
    from cli.canonical import INPUTS, digests_of, replayed, stopping_point
    from cli.snapshot import committed_rows
    from cli.worker import load_kernels
    from state.digest import digests

    stop = stopping_point(until, offsets)
    if version is not None and (until is not None or offsets is not None):
        raise typer.BadParameter("--until and --offsets are for a replay, not for a --version")
    load_kernels()
    began = time.monotonic()
    with open_broker(settings) as broker:
        if version is not None:
            found, events = digests(committed_rows(settings, broker.bootstrap, version), INPUTS), None
        else:
            replayer = replayed(settings, broker.bootstrap, stop, forgetting=True)
            found, events = digests_of(replayer), replayer.events
    seconds = time.monotonic() - began
    if as_json:
        counted = {} if events is None else {"events": events, "seconds": round(seconds, 3)}
        typer.echo(orjson.dumps({**found, **counted}))
        return
    console = Console(highlight=False, markup=False)
    for part, hashed in found.items():
        console.print(f"{part:<10} {hashed}")

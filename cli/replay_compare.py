"""`headrace replay --config FILE --compare`, as it is told and as it tells: from options to a table, JSON and a picture.

Flows in: options. Flows out: what `cli.whatif` finds, printed. Always holds: what is wrong with an option, the file, or the place of
the picture is said before anything is replayed.
"""

import time
from pathlib import Path

import orjson
import typer
from rich.console import Console

from cli.replay_view import Pace, ReplayView
from cli.report import ReportUnavailable, prepare
from infra.embedded_kafka import open_broker
from infra.settings import Settings


def compare_candidate(
    settings: Settings,
    config: Path,
    until: str | None,
    offsets: str | None,
    since: str | None,
    lists: int,
    warmup: float,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Compare, and print."""
    # What is imported here brings numba.
    from agents.trial import Choice
    from cli.candidate import live_configuration, read_candidate
    from cli.canonical import stopping_point, time_ms
    from cli.whatif import compare
    from cli.whatif_view import show
    from cli.worker import load_kernels

    stop = stopping_point(until, offsets)
    since_ms = None if since is None else time_ms(since, "--since")
    live, candidate = live_configuration(settings), read_candidate(config, settings)
    if plot is not None:
        _require_place(plot)
    load_kernels()
    # What is said on the way goes beside the result.
    beside = Console(stderr=True, highlight=False, markup=False)
    # From a moment on, what was before it is the warm-up.
    choice = Choice(lists, 0.0 if since_ms is not None else warmup, since_ms)
    began = time.monotonic()
    with open_broker(settings) as broker, ReplayView(beside, "live, then candidate") as view:
        pace = Pace(view, runs=2)
        found = compare(settings, broker.bootstrap, live, candidate, choice, stop, pace.told)
    if plot is not None:
        from cli.whatif_picture import draw

        picture = draw(found)
        plot.write_bytes(picture.png)
        beside.print(f"Picture: {plot}. {picture.alt}", soft_wrap=True)
    if as_json:
        seconds = round(time.monotonic() - began, 3)
        typer.echo(
            orjson.dumps(
                {**found.to_json(), "changed": candidate.changed, "events": pace.events, "seconds": seconds},
                default=str,
            )
        )
        return
    show(Console(highlight=False, markup=False), found, candidate.changed)


def _require_place(plot: Path) -> None:
    """See that the picture can be drawn and written. Raises ReportUnavailable, and its kind."""
    if plot.suffix != ".png" or plot.is_dir():
        raise ReportUnavailable(f"{plot}: name a file that ends with .png")
    prepare(plot.parent)

"""`headrace lake`: the topics as Parquet files for ever, at HEADRACE_LAKE, a folder or any fsspec URL.

`run` fills it beside the workers, `compact` merges its files and lets erased users go, `check` counts it against the log.
"""

import dataclasses
import datetime
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from infra.embedded_kafka import open_broker
from infra.logs import configure_logs
from infra.settings import Settings
from ingestion.lake.errors import LakeError

if TYPE_CHECKING:
    from ingestion.lake.store import Lake

lake = typer.Typer(
    help="Keep interactions, served lists and dead letters as Parquet, exactly once; compact, forget, check.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

#: Of the commands that write files once more: one at a time.
_REWRITE = ("rewrite", "rewrites files of")


@lake.command()
def run(
    once: Annotated[bool, typer.Option("--once", help="End at what is in the topics now.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="A file ends after so many records of a partition,")] = 100_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="or so many seconds,")] = 60.0,
    megabytes: Annotated[
        int, typer.Option(min=1, max=1_000, help="or when so much waits in memory, of all partitions.")
    ] = 128,
) -> None:
    """Write what comes in the topics into the lake, until it is stopped; where it goes on is what the lake has."""
    from ingestion.lake.buffers import Bounds
    from ingestion.lake.store import Lake
    from ingestion.lake.tables import Judge
    from ingestion.lake.tail import Tail

    settings = Settings()
    configure_logs(settings.log_format, settings.log_level)
    ended = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: ended.set())
    place = Lake(settings.lake_url)
    judge = Judge(settings.partitions, int(settings.future_tolerance_s * 1000))
    bounds = Bounds(rows, megabytes * 1024 * 1024, seconds)
    with _alone(place), open_broker(settings) as broker, Tail(broker.bootstrap, place, judge, bounds) as tail:
        with _bar("reading the log", shown=once) as progress:
            tail.run(once=once, ended=ended, progress=progress)
        written = tail.writer
    typer.echo(
        f"{place.url}: {written.rows:,} rows in {written.files:,} files were added"
        + (f", and {written.refused:,} records refused" if written.refused else "")
    )


@lake.command()
def compact() -> None:
    """Merge the small files of each hour, and let go what users did who have been erased since. Beside `run`, as often as you like."""
    from ingestion.lake.compact import compact as merge

    settings, place = _opened()
    with place.turn(*_REWRITE) as renew:
        gone, touched = _forget(settings, place, renew)
        with _bar("merging", renew) as progress:
            before, after = merge(place, place.tidy(), going_on=progress)
    typer.echo(
        f"{place.url}: {before:,} files became {after:,}; {gone:,} rows of erased users went from {touched:,} files"
    )


@lake.command()
def forget(
    all_: Annotated[bool, typer.Option("--all", help="Look into every file, whatever was done before.")] = False,
) -> None:
    """Write files once more without what users did who have been erased since."""
    settings, place = _opened()
    with place.turn(*_REWRITE) as renew:
        gone, touched = _forget(settings, place, renew, all_=all_)
    typer.echo(f"{place.url}: {gone:,} rows of erased users went from {touched:,} files")


@lake.command()
def check(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count the lake against the log, partition by partition; status 1 if they differ. Changes nothing."""
    from ingestion.lake.check import check as count

    settings, place = _opened()
    with open_broker(settings) as broker, _bar("counting the log") as progress:
        found = count(place, broker.bootstrap, progress)
    wrong = [
        f"{each.topic}[{each.partition}]: {line}"
        for each in found
        for line in [*each.wrong, *([f"{each.missing:,} records are missing"] if each.missing else [])]
    ]
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "ok": not wrong,
                    "partitions": [dataclasses.asdict(each) | {"missing": each.missing} for each in found],
                }
            )
        )
    else:
        table = Table("topic", title=f"{place.url} and the log", title_justify="left")
        for title in ("partition", "from", "to", "log", "rows", "refused", "forgotten", "missing", "lost", "behind"):
            table.add_column(title, justify="right")
        for each in found:
            figures = (each.log, each.rows, each.refused, each.forgotten, each.missing, each.lost, each.behind)
            numbers = [f"{number:,}" for number in (each.partition, each.first, each.end, *figures)]
            table.add_row(each.topic, *numbers)
        Console(highlight=False, markup=False).print(table)
    if wrong:
        raise LakeError("the lake differs from the log: " + "; ".join(wrong[:20]))


@lake.command()
def export(
    to: Annotated[Path, typer.Option(help="A folder, made if it is not there.")],
    since: Annotated[datetime.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The first day, UTC.")] = None,
    until: Annotated[datetime.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day.")] = None,
) -> None:
    """Write the lists that were served as recommendation_logs.json. Vectors and profiles: `headrace models export`."""
    from ingestion.lake.export import NAME, export_recommendations

    _, place = _opened()
    to.mkdir(parents=True, exist_ok=True)
    days = [day.strftime("%Y-%m-%d") if day else default for day, default in ((since, ""), (until, "9999-12-31"))]
    with _bar("exporting") as progress:
        count = export_recommendations(place, place.files(), to / NAME, days[0], days[1], progress)
    typer.echo(f"{count:,} lists are exported to {to / NAME}")


def _opened() -> "tuple[Settings, Lake]":
    from ingestion.lake.store import Lake

    settings = Settings()
    configure_logs(settings.log_format, "warning")
    return settings, Lake(settings.lake_url)


@contextmanager
def _alone(place: "Lake") -> Iterator[None]:
    """On a disk a second writer is told at once; elsewhere the range that it begins tells it."""
    if not place.folder.local:
        yield
        return
    with place.turn("run", "fills"):
        yield


def _forget(settings: Settings, place: "Lake", renew: Callable[[], None], *, all_: bool = False) -> tuple[int, int]:
    from ingestion.lake.forget import forget as rewrite
    from topics.erasures import MOST, Erasures, read_erasures
    from topics.groups import log_bounds
    from topics.specs import USERS

    files = place.tidy()
    with open_broker(settings) as broker:
        partitions = _partitions(broker.bootstrap, USERS)
        lows, highs = log_bounds(broker.bootstrap, partitions, (USERS,))

        def read(ends: Mapping[int, tuple[int, int]]) -> Erasures:
            erasures = Erasures()
            read_erasures(broker.bootstrap, ends, erasures)
            if len(erasures) >= MOST:
                raise LakeError(f"more than {MOST:,} users are erased: this release forgets no more at once")
            return erasures

        bounds = {p: (lows[USERS][p], highs[USERS][p]) for p in range(partitions)}
        with _bar("forgetting", renew) as progress:
            return rewrite(place, files, bounds, read, all_=all_, going_on=progress)


def _partitions(bootstrap: str, topic: str) -> int:
    """Of a topic; 0 if it is not there."""
    from topics.cluster import topic_states

    state = topic_states(bootstrap, [topic], 20.0).get(topic)
    return 0 if state is None else state.partitions


@contextmanager
def _bar(
    what: str, also: Callable[[], None] = lambda: None, *, shown: bool = True
) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; gives what is told how far it is. `also` is called each time."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress:
        task = progress.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            also()
            progress.update(task, completed=done, total=total)

        yield show

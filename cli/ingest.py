"""`headrace ingest`: load files of events, videos and users into Kafka, with a progress bar."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.embedded_kafka import ensure_broker
from infra.logs import configure_logs
from infra.settings import Settings
from ingestion.produce import Produced, produce_events, produce_users, produce_videos
from ingestion.produce import Progress as OnProgress
from ingestion.source import Format, Kind, Source, read_event_table, read_users, read_videos, sniff
from topics.specs import ensure_topics, specs


def ingest(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            exists=True,
            dir_okay=False,
            readable=True,
            help="CSV, Parquet or JSON lines: events, videos or users.",
        ),
    ],
    format: Annotated[  # noqa: A002 - the option's name
        Format | None, typer.Option(help="Of the files; by default told by the names of their columns.")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(min=0.001, help="Replay events at this multiple of real time; by default as fast as possible."),
    ] = None,
) -> None:
    """Send the rows of FILE... to Kafka: videos first, then users, then events by time.

    Every file is recognised before anything is sent, and a file of events is sent only if all of it can be read.
    """
    settings = Settings()
    configure_logs(settings.log_format, settings.log_level)
    order = [Kind.VIDEOS, Kind.USERS, Kind.EVENTS]
    sources = sorted((sniff(path, format) for path in files), key=lambda source: order.index(source.kind))
    with ensure_broker(settings) as bootstrap:
        ensure_topics(bootstrap, specs(settings.app, settings.version, settings.partitions))
        for source in sources:
            typer.echo(_load(bootstrap, source, speed))


def _load(bootstrap: str, source: Source, speed: float | None) -> str:
    """Send one file and say what was sent."""
    if source.kind == Kind.EVENTS:
        table = read_event_table(source.path, source.format)
        events = table.interactions()
        done = _shown(source, len(table), lambda seen: produce_events(bootstrap, events, speed=speed, progress=seen))
        rows = table.rows
    elif source.kind == Kind.VIDEOS:
        videos = list(read_videos(source.path, source.format))
        done = _shown(source, len(videos), lambda seen: produce_videos(bootstrap, videos, progress=seen))
        rows = len(videos)
    else:
        users = list(read_users(source.path, source.format))
        done = _shown(source, len(users), lambda seen: produce_users(bootstrap, users, progress=seen))
        rows = len(users)
    rate = done.records / done.seconds if done.seconds else 0.0
    return (
        f"{source.path.name}: {rows:,} rows ({source.format} {source.kind}), "
        f"{done.records:,} records confirmed in {done.seconds:.1f} s ({rate:,.0f}/s)"
    )


def _shown(source: Source, total: int, produce: Callable[[OnProgress], Produced]) -> Produced:
    """Run `produce` under a progress bar on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(source.path.name, total=total)
        return produce(lambda confirmed: progress.update(task, completed=confirmed))

"""`headrace pull`: what is new in a database, a collection, a feed or a folder goes into Kafka, once; and again, with --follow."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.embedded_kafka import ensure_broker
from infra.logs import configure_logs
from infra.settings import Settings, SettingsError
from ingestion.source import Kind
from ingestion.sources.batch import Source, SourceError
from ingestion.sources.schemas import Schema, schema_text
from topics.specs import ensure_topics, specs

if TYPE_CHECKING:
    from ingestion.sources.positions import Totals

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")

pull = typer.Typer(
    help="Pull what is new from databases, feeds and folders into Kafka: nothing twice, and nothing skipped.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_KindOption = Annotated[Kind, typer.Option(help="What the rows are.")]
_Name = Annotated[
    str | None,
    typer.Option(help="Of the source: its position and its event ids have it. By default made of what is read."),
]
_Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="FIELD=COLUMN", help="A field that has another name there; again for more."),
]
_Deleted = Annotated[str | None, typer.Option(help="Column that marks deleted rows: true, or a time.")]
_Follow = Annotated[
    bool, typer.Option("--follow/--once", help="Go on for ever, or end when all that is there is sent.")
]
_Every = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks, with --follow.")]
_Compare = Annotated[bool, typer.Option("--compare", help="Delete what this source has sent and no longer has.")]
_MostGone = Annotated[
    float, typer.Option(min=0, max=1, help="Share of all that --compare may delete at once: more is an error.")
]
_Full = Annotated[
    bool, typer.Option("--full", help="Read all rows each time, and send those that differ from the topic.")
]
_Lag = Annotated[
    float, typer.Option(min=0, help="Seconds that a write may take from its watermark's making to its commit.")
]


@pull.command()
def sql(
    table: Annotated[str, typer.Option(help="Table or view; SCHEMA.TABLE too.")],
    kind: _KindOption,
    url: Annotated[
        str | None, typer.Argument(help="Of SQLAlchemy, as postgresql://USER@HOST/DB; by default HEADRACE_SOURCE_URL.")
    ] = None,
    name: _Name = None,
    columns: _Map = None,
    watermark: Annotated[
        str | None, typer.Option(help="Column that grows with every change; by default `changed` or `updated_at`.")
    ] = None,
    by_key: Annotated[bool, typer.Option("--by-key", help="Rows never change, and their key grows.")] = False,
    key: Annotated[
        list[str] | None, typer.Option(help="Column that tells rows apart; by default the primary key.")
    ] = None,
    deleted: _Deleted = None,
    lag: _Lag = 5.0,
    full: _Full = False,
    compare: _Compare = False,
    most_gone: _MostGone = 0.5,
    follow: _Follow = False,
    every: _Every = 5.0,
) -> None:
    """Pull a table of a SQL database. `headrace pull schema postgresql` prints tables that fit."""
    settings = _begin()
    address = _address(url, settings)

    def source(ids: tuple[str, ...]) -> Source:
        from ingestion.sources.sql import SqlSource

        return SqlSource(
            address,
            table,
            watermark=watermark,
            by_key=by_key or full,
            key=key or (),
            id_columns=[*ids, *([deleted] if deleted is not None else ())],
            lag_s=0.0 if full else lag,
        )

    _pull(
        settings,
        name or table,
        kind,
        columns,
        source,
        deleted=deleted or "deleted",
        left_out=("changed", "updated_at", watermark or "", *(key or ())),
        compare=compare,
        most_gone=most_gone,
        full=full,
        every_s=every if follow else None,
    )


@pull.command()
def mongo(
    collection: Annotated[str, typer.Option(help="Its name.")],
    kind: _KindOption,
    uri: Annotated[
        str | None, typer.Argument(help="mongodb://HOST:PORT/DATABASE; by default HEADRACE_SOURCE_URL.")
    ] = None,
    name: _Name = None,
    columns: _Map = None,
    changes: Annotated[
        bool, typer.Option("--changes", help="By change stream: of a replica set, with deletions as they happen.")
    ] = False,
    watermark: Annotated[str, typer.Option(help="Field that grows with every change.")] = "updated_at",
    by_key: Annotated[bool, typer.Option("--by-key", help="Documents never change, and their _id grows.")] = False,
    deleted: _Deleted = None,
    lag: _Lag = 5.0,
    full: _Full = False,
    compare: _Compare = False,
    most_gone: _MostGone = 0.5,
    follow: _Follow = False,
    every: _Every = 5.0,
) -> None:
    """Pull a collection of MongoDB. `headrace pull schema mongodb` prints validators that fit."""
    settings = _begin()
    address = _address(uri, settings)

    def source(ids: tuple[str, ...]) -> Source:
        from ingestion.sources.mongo import MongoSource
        from ingestion.sources.mongo_changes import MongoChanges

        if changes:
            if ids and any(each.startswith(("video_id=", "user_id=")) for each in columns or ()):
                raise SourceError(
                    "a change stream says of a deleted document its _id alone, which must be the id: do not --map it"
                )
            return MongoChanges(address, collection, events=kind == Kind.EVENTS)
        return MongoSource(
            address,
            collection,
            watermark=None if by_key or full else watermark,
            id_columns=ids,
            lag_s=0.0 if full else lag,
        )

    _pull(
        settings,
        name or collection,
        kind,
        columns,
        source,
        deleted=deleted or "deleted",
        left_out=(watermark,),
        compare=compare,
        most_gone=most_gone,
        full=full,
        every_s=every if follow else None,
    )


@pull.command()
def feed(
    url: Annotated[str, typer.Argument(help="Of the feed, or of its first page.")],
    kind: _KindOption,
    name: _Name = None,
    columns: _Map = None,
    items: Annotated[str | None, typer.Option(help="Where the list is in JSON, as `data.videos`.")] = None,
    next_page: Annotated[
        str | None, typer.Option(help="Where the next page's URL or cursor is in JSON, as `paging.next`.")
    ] = None,
    cursor_parameter: Annotated[str, typer.Option(help="Of the URL, for a cursor.")] = "cursor",
    key: Annotated[str, typer.Option(help="Field of JSON that tells items apart.")] = "id",
    deleted: _Deleted = None,
    rate: Annotated[float, typer.Option(min=0.001, help="Requests a second, at most.")] = 5.0,
    compare: _Compare = False,
    most_gone: _MostGone = 0.5,
    follow: _Follow = False,
    every: _Every = 60.0,
) -> None:
    """Pull a feed over HTTP: JSON, JSON Feed, RSS or Atom. HEADRACE_SOURCE_TOKEN is sent as a bearer token."""
    settings = _begin()

    def source(_: tuple[str, ...]) -> Source:
        from ingestion.sources.feed import CatalogueFeed, LogFeed
        from ingestion.sources.feed_client import FeedClient
        from ingestion.sources.feed_items import ItemReader

        token = settings.source_token
        client = FeedClient(token=None if token is None else token.get_secret_value(), requests_per_s=rate)
        reader = ItemReader(items=items, next_page=next_page, cursor_parameter=cursor_parameter, key=key)
        return (LogFeed if kind == Kind.EVENTS else CatalogueFeed)(url, client, reader)

    _pull(
        settings,
        name or re.sub(r"^https?://", "", url).split("?")[0],
        kind,
        columns,
        source,
        deleted=deleted or "deleted",
        left_out=(key,),
        compare=compare,
        most_gone=most_gone,
        unchanged=False,
        every_s=every if follow else None,
    )


@pull.command()
def folder(
    path: Annotated[Path, typer.Argument(help="Folder; those below it are looked into.", exists=True, file_okay=False)],
    kind: _KindOption,
    name: _Name = None,
    columns: _Map = None,
    pattern: Annotated[str, typer.Option(help="Of the files' names.")] = "*",
    deleted: _Deleted = None,
    settled: Annotated[
        float, typer.Option(min=0, help="Seconds without a write after which a file is finished.")
    ] = 2.0,
    follow: _Follow = False,
    every: _Every = 5.0,
) -> None:
    """Pull CSV, Parquet and JSON lines from a folder: each row once, also of files that grow."""
    settings = _begin()

    def source(_: tuple[str, ...]) -> Source:
        from ingestion.sources.folder import FolderSource

        return FolderSource(path, pattern, settled_s=settled)

    _pull(
        settings,
        name or path.resolve().name,
        kind,
        columns,
        source,
        deleted=deleted or "deleted",
        every_s=every if follow else None,
    )


@pull.command(name="list")
def list_() -> None:
    """List the sources that have been pulled: what they read, what they sent, and when."""
    from ingestion.sources.positions import positions_spec, read_positions

    settings = _begin()
    table = Table("name", "what", "records", "deleted", "refused", "last")
    with ensure_broker(settings) as bootstrap:
        ensure_topics(bootstrap, [positions_spec(settings.app)])
        for name, stored in sorted(read_positions(bootstrap, settings.app).items()):
            if stored.summary is None:
                continue
            totals = stored.summary.totals
            what = ", ".join(value for _, value in sorted(stored.summary.identity.items()))
            last = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stored.written_ms / 1000))
            table.add_row(name, what, f"{totals.records:,}", f"{totals.tombstones:,}", f"{totals.refused:,}", last)
    Console(highlight=False, markup=False).print(table)


@pull.command()
def forget(name: Annotated[str, typer.Argument(help="Of the source, as `headrace pull list` shows it.")]) -> None:
    """Forget how far a source was read: the next pull begins at its beginning, and its events are sent again with the same ids."""
    from ingestion.sources.positions import encode_positions, positions_spec, positions_topic, read_positions
    from ingestion.sources.writer import Writer

    settings = _begin()
    with ensure_broker(settings) as bootstrap:
        ensure_topics(bootstrap, [positions_spec(settings.app)])
        writer = Writer(bootstrap, settings.app, name)
        writer.start()
        stored = read_positions(bootstrap, settings.app).get(name)
        if stored is None:
            raise SourceError(f"no source {name!r} has been pulled: `headrace pull list` shows those that have")
        writer.write(
            [],
            [],
            encode_positions(name, dict.fromkeys(stored.positions), None),
            positions_topic=positions_topic(settings.app),
        )
    typer.echo(f"The position of {name!r} is forgotten.")


@pull.command()
def schema(database: Annotated[Schema, typer.Argument(help="For which database.")]) -> None:
    """Print the tables or validators that fit: for psql, sqlite3 or mongosh."""
    typer.echo(schema_text(database), nl=False)


def _begin() -> Settings:
    settings = Settings()
    configure_logs(settings.log_format, settings.log_level)
    return settings


def _address(given: str | None, settings: Settings) -> str:
    if given is not None:
        return given
    if settings.source_url is None:
        raise SettingsError(
            "which database? Give its URL, or set HEADRACE_SOURCE_URL, which other users of the machine cannot see"
        )
    return settings.source_url.get_secret_value()


def _pull(
    settings: Settings,
    named: str,
    kind: Kind,
    columns: list[str] | None,
    open_source: Callable[[tuple[str, ...]], Source],
    *,
    deleted: str,
    left_out: tuple[str, ...] = (),
    every_s: float | None,
    **how: Any,
) -> None:
    """Open the source, pull it, and say what was sent."""
    try:
        from ingestion.sources.positions import positions_spec
        from ingestion.sources.pull import Pull
        from ingestion.sources.rows import RowReader

        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", named).strip("-")[:60]
        if not _NAME.fullmatch(name):
            raise SourceError(f"{named!r} is no name for a source: give one with --name")
        mapped = dict(_pair(each) for each in columns or ())
        try:
            reader = RowReader(name, kind, columns=mapped, deleted=deleted, left_out=left_out)
        except ValueError as error:
            raise SourceError(str(error)) from error
        source = open_source(tuple(mapped.get(field, field) for field in reader.id_fields))
    except ModuleNotFoundError as error:
        raise SourceError(f"{error.name} is not installed: pip install 'headrace[sources]'") from error
    if every_s is not None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ensure_broker(settings) as bootstrap:
            ensure_topics(
                bootstrap, [*specs(settings.app, settings.version, settings.partitions), positions_spec(settings.app)]
            )
            job = Pull(bootstrap, settings.app, name, reader, **how)
            _shown(name, lambda seen: job.once(source, seen) if every_s is None else job.follow(source, every_s, seen))
    finally:
        source.close()


def _pair(text: str) -> tuple[str, str]:
    field, sign, column = text.partition("=")
    if not sign or not field or not column:
        raise SourceError(f"--map {text}: it is FIELD=COLUMN")
    return field, column


def _shown(name: str, run: Callable[[Callable[["Totals"], None]], object]) -> None:
    """Run under a line of progress on stderr; at the end, of whatever kind, say what was sent."""
    from ingestion.sources.positions import Totals

    last, started = Totals(), time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)

        def seen(totals: Totals) -> None:
            nonlocal last
            last = totals
            progress.update(task, description=f"{name}: {_said(totals)}")

        try:
            run(seen)
        finally:
            progress.stop()
            typer.echo(f"{name}: {_said(last)} in {time.monotonic() - started:.1f} s")


def _said(totals: "Totals") -> str:
    said = f"{totals.records:,} records, {totals.tombstones:,} deletions"
    return said + (f", {totals.refused:,} rows refused (interactions.dead says why)" if totals.refused else "")

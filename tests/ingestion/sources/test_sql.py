"""Tables of PostgreSQL and SQLite: every change arrives once, whenever its transaction commits, and what is gone is deleted."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingestion.source import Kind
from ingestion.sources.batch import Row, SourceError, SourceUnavailable
from ingestion.sources.pull import TooManyGone
from ingestion.sources.schemas import Schema, schema_text
from ingestion.sources.sql import SqlSource
from ingestion.sources.sql_value import from_json, to_json
from tests.ingestion.sources.log import Log, once


class Database:
    """A database with the tables that come with Headrace."""

    def __init__(self, url: str, engine: sa.Engine) -> None:
        self.url, self.engine = url, engine

    def run(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Database]:
    """A database of this test alone."""
    name = f"t{uuid.uuid4().hex}"
    server = sa.make_url(postgres_url).set(drivername="postgresql+psycopg")
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    url = server.set(database=name)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(schema_text(Schema.POSTGRESQL))
    yield Database(url.set(drivername="postgresql").render_as_string(hide_password=False), engine)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    raw = engine.raw_connection()
    raw.driver_connection.executescript(schema_text(Schema.SQLITE))  # type: ignore[union-attr] # of sqlite3
    raw.close()
    yield Database(url, engine)
    engine.dispose()


@pytest.fixture(params=["postgres", "sqlite"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found


def read(source: SqlSource, position: Any = None) -> tuple[list[Row], Any]:
    """Keys of one pass, and the position behind them."""
    rows: list[Row] = []
    try:
        for batch in source.batches({} if position is None else {"": position}):
            rows += [row for row in batch.rows if isinstance(row, Row)]
            position = batch.positions[""]
    finally:
        source.close()
    return rows, position


def keys(rows: list[Row]) -> list[str]:
    return [row.key for row in rows]


def test_the_schemas_refuse_what_would_be_refused_later(database: Database) -> None:
    for statement in [
        "INSERT INTO videos (video_id) VALUES ('')",
        "INSERT INTO videos (video_id, duration_seconds) VALUES ('a', -1)",
        "INSERT INTO interactions (user_id, video_id, event) VALUES ('u', 'v', 'hate')",
    ]:
        with pytest.raises(sa.exc.IntegrityError):
            database.run(statement)


def test_only_what_changed_is_read_again(database: Database) -> None:
    database.run("INSERT INTO videos (video_id, title) VALUES ('a', '1'), ('b', '1'), ('c', '1')")
    rows, position = read(SqlSource(database.url, "videos", batch_rows=2))
    assert sorted(keys(rows)) == ["a", "b", "c"]
    assert read(SqlSource(database.url, "videos"), position) == ([], position)
    database.run("UPDATE videos SET title = '2' WHERE video_id = 'a'", "INSERT INTO videos (video_id) VALUES ('d')")
    rows, position = read(SqlSource(database.url, "videos"), position)
    assert keys(rows) == ["a", "d"]
    assert rows[0].values["title"] == "2"


def test_rows_of_one_watermark_are_told_apart_by_their_keys(database: Database) -> None:
    database.run(
        "CREATE TABLE clips (a INTEGER, b INTEGER, updated_at TIMESTAMP, PRIMARY KEY (a, b))",
        *(f"INSERT INTO clips VALUES ({n % 3}, {n}, '2026-01-01 00:00:00')" for n in range(50)),  # noqa: S608 - numbers
    )
    first, position = read(SqlSource(database.url, "clips", lag_s=0, batch_rows=7))
    assert sorted(keys(first)) == sorted(f"{n % 3}/{n}" for n in range(50))
    # one more of the same moment, behind the last in the order of keys
    database.run("INSERT INTO clips VALUES (9, 9, '2026-01-01 00:00:00')")
    more, _ = read(SqlSource(database.url, "clips", lag_s=0, batch_rows=7), position)
    assert keys(more) == ["9/9"]


def test_a_transaction_that_commits_late_is_not_passed_over(postgres: Database) -> None:
    slow = postgres.engine.connect()
    slow.exec_driver_sql("INSERT INTO videos (video_id) VALUES ('slow')")  # its `changed` is the smaller one
    postgres.run("INSERT INTO videos (video_id) VALUES ('fast')")
    rows, position = read(SqlSource(postgres.url, "videos"))
    assert keys(rows) == []  # not read past a transaction that runs
    slow.commit()
    slow.close()
    rows, _ = read(SqlSource(postgres.url, "videos"), position)
    assert keys(rows) == ["slow", "fast"]


def test_a_lag_is_waited_for_where_the_database_does_not_know(postgres: Database) -> None:
    postgres.run("CREATE TABLE clips (id bigserial PRIMARY KEY, updated_at timestamptz DEFAULT now())")
    slow = postgres.engine.connect()
    slow.exec_driver_sql("INSERT INTO clips DEFAULT VALUES")
    postgres.run("INSERT INTO clips DEFAULT VALUES")
    committing = threading.Timer(0.2, slow.commit)
    committing.start()
    rows, _ = read(SqlSource(postgres.url, "clips", lag_s=1.0))
    committing.join()
    slow.close()
    assert keys(rows) == ["1", "2"]
    # and what comes while it is waited for is left for the next pass
    adding = threading.Timer(0.1, lambda: postgres.run("INSERT INTO clips DEFAULT VALUES"))
    adding.start()
    rows, position = read(SqlSource(postgres.url, "clips", by_key=True, lag_s=0.5))
    adding.join()
    assert keys(rows) == ["1", "2"]
    rows, _ = read(SqlSource(postgres.url, "clips", by_key=True, lag_s=0), position)
    assert keys(rows) == ["3"]


def test_what_cannot_be_read_says_what_to_change(database: Database) -> None:
    database.run(
        "CREATE TABLE loose (name TEXT, updated_at TIMESTAMP)",
        "CREATE TABLE clips (id INTEGER PRIMARY KEY, moved_at TIMESTAMP)",
        "INSERT INTO clips VALUES (1, NULL)",
    )
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("nothing", {}, "no table nothing; it has .*videos"),
        ("loose", {}, "--key"),
        ("clips", {}, "--watermark"),
        ("clips", {"watermark": "seen_at"}, "no column seen_at"),
        ("clips", {"watermark": "moved_at"}, "1 rows of clips have no moved_at"),
    ]
    for table, how, told in wrong:
        with pytest.raises(SourceError, match=told):
            read(SqlSource(database.url, table, **how))
    with pytest.raises(SourceError, match="URL"):
        SqlSource("nonsense", "videos")


def test_a_server_that_is_away_is_unavailable_and_no_password_is_told() -> None:
    with pytest.raises(SourceUnavailable) as error:
        SqlSource("postgresql://me:secret@127.0.0.1:1/shop", "videos")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("value", ["x", 7, 1.5])
def test_positions_keep_their_types(value: Any) -> None:
    import datetime
    import decimal

    at = datetime.datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=datetime.UTC)
    for each in (value, at, at.replace(tzinfo=None), at.date(), decimal.Decimal("1.10"), uuid.uuid4()):
        assert from_json(to_json(each)) == each
    with pytest.raises(SourceError, match="bytes"):
        to_json(b"x")


@pytest.mark.broker
def test_changes_and_deletions_reach_the_topic_once(postgres: Database, log: Log) -> None:
    database = postgres

    def pull() -> Any:
        return once(log.pull(Kind.VIDEOS, compare=True), SqlSource(database.url, "videos", batch_rows=2))

    database.run("INSERT INTO videos (video_id, title) VALUES ('a', '1'), ('b', '1'), ('c', '1'), ('d', '1')")
    assert pull().records == 4
    assert pull().records == 0
    database.run(
        "UPDATE videos SET title = '2' WHERE video_id = 'a'",
        "UPDATE videos SET deleted = true WHERE video_id = 'b'",
        "DELETE FROM videos WHERE video_id = 'c'",
    )
    sent = pull()
    assert (sent.records, sent.tombstones) == (1, 2)
    assert {name: video.title for name, video in log.catalogue().items()} == {"a": "2", "d": "1"}
    assert pull() == type(sent)()
    assert log.counts() == {"a": 2, "b": 2, "c": 2, "d": 1}
    database.run("DELETE FROM videos")
    with pytest.raises(TooManyGone, match="--most-gone"):
        pull()
    assert len(log.catalogue()) == 2


@pytest.mark.broker
def test_a_table_without_a_watermark_is_compared_with_the_topic(sqlite: Database, log: Log) -> None:
    sqlite.run(
        "CREATE TABLE clips (id INTEGER PRIMARY KEY, name TEXT)",
        "INSERT INTO clips VALUES (1, 'A'), (2, 'B'), (3, 'C')",
    )
    columns = {"video_id": "id", "title": "name"}

    def pull() -> Any:
        how: dict[str, Any] = {"columns": columns, "full": True, "compare": True, "unchanged": False}
        return once(log.pull(Kind.VIDEOS, **how), SqlSource(sqlite.url, "clips", by_key=True, lag_s=0))

    assert pull().records == 3
    sqlite.run("UPDATE clips SET name = 'a' WHERE id = 1", "DELETE FROM clips WHERE id = 2")
    sent = pull()
    assert (sent.records, sent.tombstones) == (1, 1)
    assert {name: video.title for name, video in log.catalogue().items()} == {"1": "a", "3": "C"}


@pytest.mark.broker
def test_events_have_the_ids_of_their_rows_and_bad_ones_are_dead_letters(postgres: Database, log: Log) -> None:
    postgres.run(
        "INSERT INTO interactions (user_id, video_id, event, at, watch_seconds, context)"
        """ VALUES ('u', 'v', 'watch', '2026-03-01 12:00+00', 2.5, '{"device": "tv"}'), ('u', 'v', 'like', now(), null, null)""",
        "ALTER TABLE interactions DROP CONSTRAINT interactions_event_check",
        "INSERT INTO interactions (user_id, video_id, event) VALUES ('u', 'v', 'hate')",
    )
    sent = once(log.pull(Kind.EVENTS), SqlSource(postgres.url, "interactions"))
    assert (sent.records, sent.refused) == (2, 1)
    watch, like = log.events()
    assert (watch.event_id, watch.at_ms, watch.watch_seconds) == (f"{log.name}:1", 1_772_366_400_000, 2.5)
    assert (like.event_id, watch.context) == (f"{log.name}:2", {"device": "tv"})
    (letter,) = log.dead()
    assert (letter.key, letter.reason) == (b"3", "unknown_event")
    assert b'"event":"hate"' in (letter.value or b"")


@pytest.mark.broker
def test_a_position_belongs_to_its_table(sqlite: Database, log: Log) -> None:
    sqlite.run("INSERT INTO videos (video_id) VALUES ('a')")
    once(log.pull(Kind.VIDEOS), SqlSource(sqlite.url, "videos"))
    with pytest.raises(SourceError, match="headrace pull forget"):
        once(log.pull(Kind.VIDEOS), SqlSource(sqlite.url, "videos", by_key=True))

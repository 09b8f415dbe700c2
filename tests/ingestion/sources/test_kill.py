"""Each source is killed with SIGKILL in the middle of a transaction, and right behind one, and then run to its end: exact counts.

A row that would be lost or sent twice by a kill shows as a count other than one; uncommitted records are in the log, as a consumer
that reads only what is committed must not see them.
"""

import json
import multiprocessing
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import pytest
import sqlalchemy as sa

from cli.committed import read_committed
from ingestion.source import Kind
from ingestion.sources.batch import Source
from ingestion.sources.feed import CatalogueFeed, LogFeed
from ingestion.sources.feed_client import FeedClient
from ingestion.sources.feed_items import ItemReader
from ingestion.sources.folder import FolderSource
from ingestion.sources.mongo import MongoSource
from ingestion.sources.mongo_changes import MongoChanges
from ingestion.sources.positions import read_positions
from ingestion.sources.sql import SqlSource
from ingestion.sources.writer import Writer
from tests.ingestion.sources.feed_server import feed_server
from tests.ingestion.sources.log import Log, once
from tests.mongo_server import accept

ROWS, BATCH = 60, 7
IDS = [f"v{number:02}" for number in range(ROWS)]


@dataclass(frozen=True)
class Job:
    """One source and its topics, as another process opens them."""

    log: Log
    kind: Kind
    open: Callable[..., Source]
    arguments: tuple[Any, ...]
    how: dict[str, Any]

    def run(self) -> None:
        """Pull once."""
        accept()
        once(self.log.pull(self.kind, unchanged=self.kind == Kind.EVENTS), self.open(*self.arguments, **self.how))

    def die(self, before: int | None = None, after: int | None = None) -> None:
        """Pull, and die before or after the commit of that number."""
        commits = 0
        commit = Writer.commit

        def dying(self: Writer) -> None:
            nonlocal commits
            commits += 1
            if commits == before:
                self._producer.flush(20)  # all of it is in the log, and open
                os.kill(os.getpid(), signal.SIGKILL)
            commit(self)
            if commits == after:
                os.kill(os.getpid(), signal.SIGKILL)

        Writer.commit = dying  # type: ignore[method-assign] # the fault of this test
        self.run()


def killed(job: Job, **fault: int) -> bool:
    """Run a job in another process, which is to die; whether it has."""
    process = multiprocessing.get_context("forkserver").Process(target=job.die, kwargs=fault)
    process.start()
    process.join(60)
    return process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module", autouse=True)
def _quick_children() -> None:
    """Children are forked from a process that has imported what they need, and no more."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])


def sqlite_job(log: Log, tmp_path: Path) -> Job:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    return sql_job(log, url, "TIMESTAMP")


def postgres_job(log: Log, url: str) -> Job:
    return sql_job(log, url, "xid8")


def sql_job(log: Log, url: str, kind: str) -> Job:
    """Rows of which many have one watermark, so that batches end between them."""
    table = f"clips_{uuid.uuid4().hex}"
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {table} (video_id TEXT PRIMARY KEY, changed {kind})")
        for number, each in enumerate(IDS):
            mark = f"'{number // 20 + 1}'" if kind == "xid8" else f"'2026-01-0{number // 20 + 1}'"
            connection.exec_driver_sql(f"INSERT INTO {table} VALUES ('{each}', {mark})")  # noqa: S608 - our own words
    return Job(log, Kind.VIDEOS, SqlSource, (url, table), {"lag_s": 0, "batch_rows": BATCH})


def mongo_job(log: Log, uri: str, opened: Any) -> Job:
    import datetime

    database = f"t{uuid.uuid4().hex}"
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        at = [datetime.datetime(2026, 1, 1 + number // 20, tzinfo=datetime.UTC) for number in range(ROWS)]
        client[database]["videos"].insert_many(
            [{"_id": each, "updated_at": when} for each, when in zip(IDS, at, strict=True)]
        )
    if opened is MongoChanges:
        time.sleep(1 - time.time() % 1)  # a server without MongoDB's exact time is asked for changes of a whole second
    lag = {"lag_s": 0} if opened is MongoSource else {}
    return Job(log, Kind.VIDEOS, opened, (uri, "videos"), {"database": database, "batch_rows": BATCH, **lag})


def folder_job(log: Log, tmp_path: Path) -> Job:
    folder = tmp_path / "in"
    folder.mkdir()
    for part in range(3):
        ids = IDS[20 * part : 20 * part + 20]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps({"video_id": each}) + "\n" for each in ids))
    return Job(log, Kind.VIDEOS, FolderSource, (folder,), {"settled_s": 0, "batch_rows": BATCH})


def open_feed(kind: Kind, url: str) -> Source:
    return (LogFeed if kind == Kind.EVENTS else CatalogueFeed)(url, FeedClient(requests_per_s=1e6), ItemReader())


@pytest.fixture(params=["postgres", "mongo", "changes", "folder", "catalogue feed", "log feed"])
def job(request: pytest.FixtureRequest, log: Log, tmp_path: Path) -> Iterator[Job]:
    if request.param == "postgres":
        yield postgres_job(log, request.getfixturevalue("postgres_url"))
    elif request.param in ("mongo", "changes"):
        opened = MongoSource if request.param == "mongo" else MongoChanges
        yield mongo_job(log, request.getfixturevalue("mongo_uri"), opened)
    elif request.param == "folder":
        yield folder_job(log, tmp_path)
    else:
        kind = Kind.EVENTS if request.param == "log feed" else Kind.VIDEOS
        with feed_server() as server:
            for page in range(0, ROWS, BATCH):
                items = [
                    {"id": each, "video_id": each, "user_id": each, "event": "like", "at_ms": 1}
                    for each in IDS[page : page + BATCH]
                ]
                following = {"next": f"/?{page + BATCH}"} if page + BATCH < ROWS else {}
                server.put(f"/?{page}", json.dumps({"items": items} | following))
            yield Job(log, kind, open_feed, (kind, f"{server.url}/?0"), {})


@pytest.mark.broker
def test_a_source_that_is_killed_sends_every_row_once(job: Job) -> None:
    assert killed(job, before=3)
    assert 0 < sum(job.log.counts(job.kind).values()) < ROWS
    assert killed(job, after=2)
    assert 0 < sum(job.log.counts(job.kind).values()) < ROWS
    job.run()
    assert job.log.counts(job.kind) == dict.fromkeys(IDS, 1)
    if job.kind == Kind.EVENTS:
        assert sorted(event.event_id for event in job.log.events()) == [f"shop:{each}" for each in IDS]
    # and once more, with nothing new
    job.run()
    assert job.log.counts(job.kind) == dict.fromkeys(IDS, 1)
    totals = read_positions(job.log.bootstrap, job.log.app)["shop"].summary
    assert totals is not None
    assert (totals.totals.records, totals.totals.refused) == (ROWS, 0)


@pytest.mark.broker
def test_the_kill_before_a_commit_leaves_records_that_nobody_may_see(log: Log, tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    from confluent_kafka import Consumer, TopicPartition

    job = sqlite_job(log, tmp_path)
    assert killed(job, before=1)
    consumer = Consumer({"bootstrap.servers": log.bootstrap, "group.id": "ends", "isolation.level": "read_uncommitted"})
    places = [TopicPartition(log.topic(Kind.VIDEOS), partition) for partition in range(2)]
    ends = [consumer.get_watermark_offsets(place, timeout=20)[1] for place in places]
    consumer.close()
    assert sum(ends) >= BATCH
    assert read_committed(log.bootstrap, log.topic(Kind.VIDEOS)) == []

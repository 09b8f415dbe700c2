"""Collections: by watermark with any server, by change stream with one that has them."""

import datetime
import json
import os
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from bson import ObjectId
from pymongo.database import Database
from pymongo.errors import WriteError

from ingestion.source import Kind
from ingestion.sources.batch import Row, SourceError, SourceUnavailable
from ingestion.sources.mongo import MongoSource, from_json, to_json
from ingestion.sources.mongo_changes import MongoChanges
from ingestion.sources.schemas import Schema, create_collections, schema_text
from tests.ingestion.sources.log import Log, once
from tests.mongo_server import VARIABLE

DAY = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


def wait_for_the_next_second() -> None:
    """A server without MongoDB's exact time is asked for changes of a whole second."""
    time.sleep(1 - time.time() % 1)


@pytest.fixture
def shop(mongo_uri: str) -> Iterator[Database[dict[str, Any]]]:
    """A database of this test alone."""
    with pymongo.MongoClient[dict[str, Any]](mongo_uri, tz_aware=True) as client:
        name = f"t{uuid.uuid4().hex}"
        yield client[name]
        client.drop_database(name)


def read(source: MongoSource | MongoChanges, position: Any = None) -> tuple[list[Row], Any]:
    """Rows of one pass, and the position behind them."""
    rows: list[Row] = []
    try:
        for batch in source.batches({} if position is None else {"": position}):
            rows += [row for row in batch.rows if isinstance(row, Row)]
            position = json.loads(json.dumps(batch.positions[""]))
    finally:
        source.close()
    return rows, position


def by_watermark(uri: str, shop: Database[dict[str, Any]], **how: Any) -> MongoSource:
    return MongoSource(uri, "videos", database=shop.name, **{"lag_s": 0, **how})


def put(shop: Database[dict[str, Any]], video_id: Any, day: int, **fields: Any) -> None:
    values = {"updated_at": DAY + datetime.timedelta(days=day), **fields}
    shop["videos"].replace_one({"_id": video_id}, values, upsert=True)


def test_only_what_changed_is_read_again(mongo_uri: str, shop: Database[dict[str, Any]]) -> None:
    for number in range(20):
        put(shop, f"v{number:02}", number // 10)
    rows, position = read(by_watermark(mongo_uri, shop, batch_rows=3))
    assert [row.key for row in rows] == [f"v{number:02}" for number in range(20)]
    assert read(by_watermark(mongo_uri, shop), position) == ([], position)
    put(shop, "v03", 5, title="new")
    put(shop, "v99", 1)  # of the moment that was read last
    rows, _ = read(by_watermark(mongo_uri, shop), position)
    assert [row.key for row in rows] == ["v99", "v03"]


def test_documents_that_have_no_place_in_the_order_are_told(mongo_uri: str, shop: Database[dict[str, Any]]) -> None:
    put(shop, "a", 0)
    shop["videos"].insert_one({"_id": "b"})
    with pytest.raises(SourceError, match=r"1 documents of .* have no updated_at"):
        read(by_watermark(mongo_uri, shop))
    shop["videos"].update_one({"_id": "b"}, {"$set": {"updated_at": "2026-03-01"}})
    with pytest.raises(SourceError, match=r"updated_at in .* more than one type"):
        read(by_watermark(mongo_uri, shop))
    shop["videos"].delete_one({"_id": "b"})
    put(shop, 7, 0)
    with pytest.raises(SourceError, match=r"_id in .* more than one type"):
        read(by_watermark(mongo_uri, shop))


def test_a_server_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.sources.mongo._SELECT_MS", 200)
    with pytest.raises(SourceUnavailable):
        read(MongoSource("mongodb://127.0.0.1:1/shop", "videos"))
    with pytest.raises(SourceError, match="DATABASE"):
        MongoSource("mongodb://127.0.0.1:1", "videos")


def test_positions_keep_their_types() -> None:
    for value in (DAY, ObjectId(), 7, 2**40, 1.5, "x"):
        assert from_json(json.loads(json.dumps(to_json(value)))) == value


def test_a_stream_copies_first_and_goes_on_with_changes(mongo_uri: str, shop: Database[dict[str, Any]]) -> None:
    def source(**how: Any) -> MongoChanges:
        return MongoChanges(mongo_uri, "videos", database=shop.name, **how)

    for number in range(5):
        put(shop, f"v{number}", 0)
    wait_for_the_next_second()
    copying = source(batch_rows=2)
    batches = copying.batches({})
    first = next(batches)
    put(shop, "v0", 1, title="changed during the copy")
    copying.close()
    rows, position = read(source(batch_rows=2), first.positions[""])
    assert [row.key for row in rows] == ["v2", "v3", "v4", "v0"]
    assert read(source(), position)[0] == []
    shop["videos"].delete_one({"_id": "v1"})
    put(shop, "v5", 1)
    rows, position = read(source(), position)
    assert [(row.key, row.deleted) for row in rows] == [("v1", True), ("v5", False)]


@pytest.mark.broker
def test_changes_and_deletions_reach_the_topic_once(mongo_uri: str, shop: Database[dict[str, Any]], log: Log) -> None:
    def pull() -> Any:
        return once(log.pull(Kind.VIDEOS, compare=True), by_watermark(mongo_uri, shop))

    for name in "abcd":
        put(shop, name, 0, title="1", published_at=DAY, categories=["x"])
    assert pull().records == 4
    put(shop, "a", 1, title="2")
    put(shop, "b", 1, deleted=True)
    shop["videos"].delete_one({"_id": "c"})
    sent = pull()
    assert (sent.records, sent.tombstones) == (1, 2)
    assert {name: video.title for name, video in log.catalogue().items()} == {"a": "2", "d": "1"}
    assert log.catalogue()["d"].published_ms == 1_772_366_400_000
    assert pull() == type(sent)()


@pytest.mark.broker
def test_a_stream_of_events_sends_each_once_and_deletes_none(
    mongo_uri: str, shop: Database[dict[str, Any]], log: Log
) -> None:
    def pull() -> Any:
        return once(log.pull(Kind.EVENTS), MongoChanges(mongo_uri, "interactions", database=shop.name, events=True))

    event = {"user_id": "u", "video_id": "v", "event": "like", "at": DAY}
    first = shop["interactions"].insert_one(event | {"_id": ObjectId()}).inserted_id
    wait_for_the_next_second()
    assert pull().records == 1
    second = shop["interactions"].insert_one(event | {"_id": ObjectId()}).inserted_id
    shop["interactions"].update_one({"_id": first}, {"$set": {"event": "share"}})
    shop["interactions"].delete_one({"_id": first})
    assert pull().records == 1
    assert [each.event_id for each in log.events()] == [f"shop:{first}", f"shop:{second}"]


def test_the_schema_names_all_that_is_read() -> None:
    from topics.catalog import User, Video
    from topics.interactions import EVENTS

    schema = {name: each["validator"]["$jsonSchema"] for name, each in json.loads(schema_text(Schema.MONGODB)).items()}
    fields = {name: set(each["properties"]) for name, each in schema.items()}
    assert fields["videos"] >= set(Video.__struct_fields__) - {"v", "published_ms"} | {"published_at"}
    assert fields["users"] >= set(User.__struct_fields__) - {"v", "erased_ms"}
    assert schema["interactions"]["properties"]["event"]["enum"] == list(EVENTS)


@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"validators are MongoDB's own: {VARIABLE} names one")
def test_the_schema_refuses_what_would_be_refused_later(shop: Database[dict[str, Any]]) -> None:
    create_collections(shop)
    create_collections(shop)
    put(shop, "a", 0, title="A", duration_seconds=3)
    for wrong in ({"duration_seconds": -1}, {"title": 5}, {"updated_at": "now"}, {"categories": "x"}):
        with pytest.raises(WriteError):
            put(shop, "b", 0, **wrong)

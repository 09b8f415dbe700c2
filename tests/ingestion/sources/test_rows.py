"""A row makes one record, the same each time, or is refused with the reason that a consumer would give."""

import datetime
import decimal
import uuid
from typing import Any

import pytest

from ingestion.row_hash import hash_event
from ingestion.source import Kind
from ingestion.sources.batch import Row
from ingestion.sources.rows import Record, RowReader
from topics.catalog import Video, decode_user_value, decode_video_value
from topics.interactions import decode_value
from topics.rejected import Reason, Rejected

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
NOON_MS = 1_772_366_400_000
EVENT = {"user_id": "u", "video_id": "v", "event": "watch", "at": NOON}


def event(values: dict[str, Any], key: str = "7", **how: Any) -> Any:
    record = RowReader("shop", Kind.EVENTS, **how).record(Row(key, values))
    assert record is not None
    assert record.value is not None
    return decode_value(record.value)


def test_a_row_of_a_database_is_an_event_with_an_id_made_of_its_key() -> None:
    values = EVENT | {
        "user_id": 5,
        "watch_seconds": decimal.Decimal("2.50"),
        "context": '{"device": "tv"}',
        "changed": "9",
    }
    found = event(values)
    assert (found.event_id, found.user_id, found.at_ms) == ("shop:7", "5", NOON_MS)
    assert (found.watch_seconds, found.context) == (2.5, {"device": "tv"})
    assert event(values) == found
    assert event(values, "8").event_id == "shop:8"
    long = event(values, "k" * 200).event_id
    assert long.startswith("shop:")
    assert long != event(values, "k" * 201).event_id


def test_a_row_of_text_is_an_event_with_the_id_that_ingest_gives() -> None:
    values = {
        "user_id": "u",
        "video_id": "v",
        "event": "watch",
        "at_ms": "1000",
        "watch_seconds": "2.5",
        "session_id": "",
    }
    found = event(values, key="")
    assert found.event_id == hash_event("u", "v", "watch", 1000, 2.5, float("nan"))
    assert event(values | {"event_id": "mine"}, key="").event_id == "mine"
    assert event(values | {"at_ms": "2026-03-01T12:00:00Z"}, key="").at_ms == NOON_MS


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"event": "hate"}, Reason.UNKNOWN_EVENT),
        ({"event": None}, Reason.MISSING_FIELD),
        ({"user_id": ""}, Reason.MISSING_FIELD),
        ({"user_id": 1.5}, Reason.BAD_ID),
        ({"video_id": "v" * 129}, Reason.BAD_ID),
        ({"at": "soon"}, Reason.BAD_TIME),
        ({"at": 12}, Reason.BAD_TIME),
        ({"watch_seconds": -1}, Reason.BAD_NUMBER),
        ({"watch_seconds": decimal.Decimal("Infinity")}, Reason.BAD_NUMBER),
        ({"watch_seconds": "long"}, Reason.WRONG_TYPE),
    ],
)
def test_what_is_no_event_is_refused(changed: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(Rejected) as refused:
        event(EVENT | changed)
    assert refused.value.reason == reason


def video(values: dict[str, Any], key: str = "k", **how: Any) -> Record:
    record = RowReader("shop", Kind.VIDEOS, **how).record(Row(key, values))
    assert record is not None
    return record


def test_a_row_is_a_video_whatever_its_driver_makes_of_lists_times_and_truth() -> None:
    wanted = Video(title="A", categories=("x", "y"), duration_seconds=3.0, published_ms=NOON_MS, hidden=True)
    rows: list[dict[str, Any]] = [
        {"categories": ["x", "y"], "duration_seconds": 3, "published_at": NOON, "hidden": True},
        {"categories": "x|y", "duration_seconds": "3", "published_ms": str(NOON_MS), "hidden": "true"},
        {
            "categories": '["x", "y"]',
            "duration_seconds": decimal.Decimal(3),
            "published_at": NOON.replace(tzinfo=None),
            "hidden": 1,
        },
    ]
    for row in rows:
        record = video({"video_id": "a", "title": "A", "changed": 3} | row)
        assert record.key == b"a"
        assert decode_video_value(record.value or b"") == wanted
    assert video({"title": "A"}, key="from the key").key == b"from the key"
    name = uuid.uuid4()
    renamed = video({"sku": name, "name": "A"}, columns={"video_id": "sku", "title": "name"})
    assert (renamed.key, decode_video_value(renamed.value or b"").title) == (str(name).encode(), "A")


@pytest.mark.parametrize("mark", [True, 1, "true", "yes", NOON])
def test_a_marked_row_is_a_tombstone(mark: Any) -> None:
    assert video({"video_id": "a", "gone": mark}, deleted="gone").value is None


@pytest.mark.parametrize("mark", [False, 0, "0", "false", "f", "", None])
def test_an_unmarked_row_is_none(mark: Any) -> None:
    assert video({"video_id": "a", "gone": mark}, deleted="gone").value is not None


def test_a_deleted_event_is_no_record_and_an_unknown_field_no_mapping() -> None:
    assert RowReader("shop", Kind.EVENTS).record(Row("1", {}, deleted=True)) is None
    with pytest.raises(ValueError, match="titel"):
        RowReader("shop", Kind.VIDEOS, columns={"titel": "name"})


def test_other_columns_of_a_user_are_attributes_but_not_those_of_the_source() -> None:
    reader = RowReader("shop", Kind.USERS, deleted="deleted", left_out=("changed",))
    row = {
        "user_id": 3,
        "country": "FI",
        "plan": "pro",
        "changed": 4,
        "deleted": False,
        "segments": "a|b",
        "photo": None,
    }
    record = reader.record(Row("3", row))
    assert record is not None
    user = decode_user_value(record.value or b"")
    assert (record.key, user.country, user.segments, user.attributes) == (b"3", "FI", ("a", "b"), {"plan": "pro"})


@pytest.mark.parametrize("given", [b"\x01\x80\xff\x7f" * 2, memoryview(b"\x01\x80\xff\x7f" * 2), "AYD/fwGA/38="])
def test_an_embedding_is_bytes_or_their_base64(given: Any) -> None:
    record = RowReader("shop", Kind.VIDEOS).record(Row("a", {"title": "A", "embedding": given}))
    assert record is not None
    assert record.value is not None
    assert decode_video_value(record.value) == Video(title="A", embedding=b"\x01\x80\xff\x7f" * 2)


def test_an_embedding_that_is_text_is_refused() -> None:
    with pytest.raises(Rejected, match="embedding"):
        RowReader("shop", Kind.VIDEOS).record(Row("a", {"embedding": "a vector"}))

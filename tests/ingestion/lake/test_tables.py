"""Each record is a row, or is refused with its bytes; none stops the others, and all that is written can be read by DuckDB."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.lake.tables import REFUSED_SCHEMA, SCHEMAS, Meta, Taken, tables_of, write_table
from tests.ingestion.lake.made import JUDGE, NOON_MS, dead, event, listed, taken
from topics.interactions import encode
from topics.recommendations import SCHEMA_VERSION, Recommended
from topics.specs import DEAD, INTERACTIONS, RECOMMENDATIONS


def test_an_event_is_a_row_with_all_that_it_says() -> None:
    made = event(
        1,
        kind="watch",
        watch_seconds=2.5,
        duration_seconds=9.0,
        session_id="s",
        recommendation_id="r",
        context={"a": "ö"},
    )
    table, refused = tables_of(INTERACTIONS, 0, [Taken(b"user1", encode(made), 7, NOON_MS + 5)], JUDGE)
    assert refused is None
    [row] = table.to_pylist()
    assert int(row.pop("at_ms").timestamp() * 1000) == NOON_MS
    assert int(row.pop("kafka_timestamp").timestamp() * 1000) == NOON_MS + 5
    assert row == {
        "event_id": "event1",
        "user_id": "user1",
        "video_id": "video1",
        "event": "watch",
        "watch_seconds": 2.5,
        "duration_seconds": 9.0,
        "session_id": "s",
        "recommendation_id": "r",
        "context": '{"a":"ö"}',
        "kafka_partition": 0,
        "kafka_offset": 7,
    }


def test_a_list_and_a_dead_letter_are_rows() -> None:
    [row] = tables_of(RECOMMENDATIONS, 3, [listed(4)], JUDGE)[0].to_pylist()
    assert (row["recommendation_id"], row["user_id"], row["video_ids"], row["explored"]) == (
        *("list4", "user1", ["video1", "video2"]),
        [1],
    )
    assert (row["inputs"], row["arm"], row["experiment"]) == ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "a", 7)
    [letter] = tables_of(DEAD, 3, [dead(4)], JUDGE)[0].to_pylist()
    assert (letter["key"], letter["value"], letter["reason"], letter["original_topic"], letter["kafka_offset"]) == (
        *(b"user1", b"{", "malformed_json"),
        *("interactions", 4),
    )


def _list(**changed: object) -> bytes:
    plain = Recommended(SCHEMA_VERSION, "r", NOON_MS, "owner", ["v"], [], 1, b"")
    return msgspec.msgpack.encode(msgspec.structs.replace(plain, **changed))


BAD = {
    INTERACTIONS: [
        Taken(b"user1", b"{", 1, NOON_MS),
        Taken(None, encode(event(1)), 1, NOON_MS),
        Taken(b"user1", None, 1, NOON_MS),
        Taken(
            b"user1", b'{"event_id":"\\ud800","user_id":"user1","video_id":"v","event":"view","at_ms":1}', 1, NOON_MS
        ),
        # Kafka takes times that no calendar has, and a column of them could not be read any more.
        Taken(b"user1", encode(event(1, at_ms=2**62)), 1, 2**62),
        Taken(b"user1", encode(event(1, at_ms=NOON_MS + 10**9)), 1, NOON_MS),
    ],
    RECOMMENDATIONS: [
        Taken(b"user1", b"\xc1", 1, NOON_MS),
        Taken(b"user1", _list(at_ms=-1), 1, NOON_MS),
        Taken(b"user1", _list(at_ms=2**63 - 1), 1, NOON_MS),
        Taken(b"user1", _list(names=2**64 - 1), 1, NOON_MS),
        Taken(b"user1", _list(first=2**40), 1, NOON_MS),
        Taken(b"user1", _list(explored=[2**40]), 1, NOON_MS),
        Taken(b"\xff", _list(), 1, NOON_MS),
    ],
    DEAD: [
        Taken(b"user1", b"x", 1, NOON_MS),
        dead(1)._replace(headers=[("headrace.reason", b"\xff")]),
        dead(1)._replace(headers=[*list(dead(1).headers or ())[:-1], ("headrace.original_bytes", b"9" * 30)]),
        dead(1)._replace(headers=[("\ud800", None)]),
    ],
}
GOOD: dict[str, Callable[..., Taken]] = {INTERACTIONS: taken, RECOMMENDATIONS: listed, DEAD: dead}


@pytest.mark.parametrize("topic", list(BAD))
def test_what_cannot_be_read_is_kept_as_it_came_and_harms_no_neighbour(topic: str, tmp_path: Path) -> None:
    bad = [record._replace(offset=n) for n, record in enumerate(BAD[topic], 1)]
    records = [GOOD[topic](0), *bad, GOOD[topic](99)]
    table, refused = tables_of(topic, 0, records, JUDGE)
    assert table.column("kafka_offset").to_pylist() == [0, 99]
    assert refused is not None
    assert refused.column("kafka_offset").to_pylist() == [record.offset for record in bad]
    assert refused.column("value").to_pylist() == [record.value for record in bad]
    assert all(refused.column("reason").to_pylist())
    for name, each in (("rows", table), ("refused", refused)):
        write_table(tmp_path / f"{name}.parquet", each, Meta(topic))
        # As values, so that each column is converted.
        assert len(duckdb.read_parquet(f"{tmp_path}/{name}.parquet").to_arrow_table()) == len(each)


@settings(max_examples=50, deadline=None)
@given(
    topic=st.sampled_from(list(SCHEMAS)),
    key=st.none() | st.binary(max_size=9),
    value=st.none() | st.binary(max_size=40),
    headers=st.none() | st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3),
)
def test_no_bytes_stop_the_lake(
    topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]] | None
) -> None:
    table, refused = tables_of(topic, 0, [Taken(key, value, 1, NOON_MS, headers), GOOD[topic](2)], JUDGE)
    assert table.schema.equals(SCHEMAS[topic])
    assert refused is None or refused.schema.equals(REFUSED_SCHEMA)
    assert len(table) + (0 if refused is None else len(refused)) == 2
    assert table.column("kafka_offset").to_pylist()[-1] == 2

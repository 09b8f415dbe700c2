"""The compiled reader of events: whatever it takes, `decode` takes too and finds the same in it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.topics.test_interactions import AT_MS, PARTITIONS, interactions, record
from topics.event_columns import EventColumns, read_events
from topics.interactions import EVENTS, Interaction, decode, encode, event_code
from topics.partitions import partition_of, stable_hash
from topics.record_batch import Record, RecordBatch
from topics.rejected import Rejected

TOLERANCE_MS = 600_000
PLAIN = b'{"event_id":"e","user_id":"u","video_id":"v","event":"like","at_ms":5}'
FULL = (
    b'{"event_id":"seed-12","user_id":"u","video_id":"video-9","event":"watch","at_ms":1650812741436,"watch_seconds":21.5,'
    b'"duration_seconds":60,"session_id":"s","recommendation_id":null,"context":{"a":1.5,"b":"x","c":true,"d":false,"e":null},'
    b'"v":1}'
)


def read(*values: bytes, key: bytes = b"u", partition: int | None = None) -> EventColumns:
    home = partition_of(key, PARTITIONS) if partition is None else partition
    batch = RecordBatch.of([Record(key, value, n, AT_MS) for n, value in enumerate(values)])
    return read_events(batch, partition=home, partitions=PARTITIONS, future_tolerance_ms=TOLERANCE_MS)


def judged(key: bytes, value: bytes) -> Interaction | None:
    try:
        return decode(
            key, value, AT_MS, partition=partition_of(key, PARTITIONS), partitions=PARTITIONS,
            future_tolerance_ms=TOLERANCE_MS,
        )  # fmt: skip
    except Rejected:
        return None


def check(key: bytes, value: bytes, *, must_be_read: bool = False) -> None:
    found = read(value, key=key)
    if found.odd[0]:
        assert not must_be_read, value
        return
    event = judged(key, value)
    assert event is not None, value
    assert found.kinds[0] == event_code(event.event)
    assert found.at_ms[0] == event.at_ms
    assert found.event_ids[0] == stable_hash(event.event_id)
    assert found.video_ids[0] == stable_hash(event.video_id)
    place = int(found.video_at[0])
    assert RecordBatch.of([Record(key, value, 0, 0)]).text(place, int(found.video_size[0])) == event.video_id
    for got, expected in (
        (found.watch_seconds[0], event.watch_seconds),
        (found.duration_seconds[0], event.duration_seconds),
    ):
        assert math.isnan(got) if expected is None else got == expected


@given(interactions)
def test_what_is_read_is_what_decode_finds(event: Interaction) -> None:
    check(event.user_id.encode(), encode(event))


plain_ids = st.text(st.sampled_from("abcXYZ0189-_.:~ /"), min_size=1, max_size=128)


@given(
    plain_ids, plain_ids, plain_ids, st.sampled_from(EVENTS), st.integers(0, AT_MS), st.none() | st.integers(0, 10**6)
)
def test_plain_events_are_all_read(
    user: str, video: str, event_id: str, kind: Any, at_ms: int, tenths: int | None
) -> None:
    """Ids of every length, so that every branch of the hashes is met."""
    seconds = None if tenths is None else tenths / 10
    value = encode(Interaction(event_id, user, video, kind, at_ms, seconds, seconds, session_id=user))
    check(user.encode(), value, must_be_read=True)


@given(st.sampled_from([PLAIN, FULL]), st.data())
@example(PLAIN, None)
def test_a_broken_event_is_left_to_decode_or_read_as_it_would(value: bytes, data: st.DataObject | None) -> None:
    if data is None:
        check(b"u", value, must_be_read=True)
        return
    broken = bytearray(value)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(broken) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                broken[at] = data.draw(st.integers(0, 255))
            case 1:
                del broken[at]
            case _:
                broken[at:at] = data.draw(
                    st.sampled_from([b" ", b'"', b",", b"0", b"-", b".", b"e", b"{", b"}", b"\\", b"\n"])
                )
    check(b"u", bytes(broken))


@pytest.mark.parametrize(
    "value",
    [
        FULL,
        b' {\n\t"at_ms" : 5 , "event":"like","video_id":"v","user_id":"u","event_id":"e"\r\n} ',
        record(watch_seconds=0, duration_seconds=0.1, context={}),
        record(event_id="x" * 128, v=1),
    ],
)
def test_usual_forms_are_read(value: bytes) -> None:
    check(b"u", value, must_be_read=True)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"[]",
        PLAIN[:-1],
        PLAIN + b"x",
        PLAIN.replace(b'"like"', b'"love"'),
        PLAIN.replace(b'"u"', b'"w"'),
        PLAIN.replace(b"5", b"-5"),
        PLAIN.replace(b"5", b"05"),
        PLAIN.replace(b"5", b"5.0"),
        PLAIN.replace(b"5", b"1e3"),
        PLAIN.replace(b"5", b"12345678901234567"),
        PLAIN.replace(b"5", str(AT_MS + TOLERANCE_MS + 1).encode()),
        PLAIN.replace(b'"e"', b'"\\u0065"'),
        PLAIN.replace(b'"e"', b'"\xc3\xa4"'),
        PLAIN.replace(b'"e"', b'""'),
        PLAIN.replace(b'"e"', b'"' + b"e" * 129 + b'"'),
        PLAIN.replace(b"}", b',"at_ms":6}'),
        PLAIN.replace(b"}", b',"more":6}'),
        PLAIN.replace(b"}", b',"v":2}'),
        PLAIN.replace(b"}", b',"session_id":""}'),
        PLAIN.replace(b"}", b',"watch_seconds":1e3}'),
        PLAIN.replace(b"}", b',"context":{"deep":{}}}'),
        PLAIN.replace(b"}", b',"context":[]}'),
        PLAIN.replace(b"}", b',"session_id":"' + b" " * 17_000 + b'"}'),
    ],
)
def test_the_unusual_is_left_to_decode(value: bytes) -> None:
    assert read(value).odd[0]


def test_a_record_of_another_partition_or_key_is_left_to_decode() -> None:
    home = partition_of(b"u", PARTITIONS)
    assert not read(PLAIN, partition=home).odd[0]
    assert read(PLAIN, partition=(home + 1) % PARTITIONS).odd[0]
    assert read(PLAIN, key=b"w").odd[0]
    batch = RecordBatch.of([Record(None, PLAIN, 0, AT_MS), Record(b"u", None, 1, AT_MS)])
    assert read_events(batch, partition=home, partitions=PARTITIONS, future_tolerance_ms=0).odd.all()


def test_records_do_not_see_each_other() -> None:
    """Order of fields, odd records and missing times of one do not reach the next."""
    other = b'{"at_ms":7,"event":"watch","duration_seconds":9.5,"video_id":"w","user_id":"u","event_id":"f"}'
    found = read(FULL, PLAIN, b"{", other, PLAIN)
    assert found.odd.tolist() == [0, 0, 1, 0, 0]
    np.testing.assert_array_equal(found.watch_seconds, [21.5, np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(found.duration_seconds, [60.0, np.nan, np.nan, 9.5, np.nan])
    assert found.at_ms[[0, 1, 3, 4]].tolist() == [1650812741436, 5, 7, 5]

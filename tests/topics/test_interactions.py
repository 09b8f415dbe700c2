"""Interactions survive the wire, and whatever else arrives is refused with the right reason."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.interactions import (
    EVENTS,
    MAX_VALUE_BYTES,
    Event,
    Interaction,
    decode,
    decode_value,
    encode,
    event_code,
)
from topics.partitions import partition_of
from topics.rejected import MAX_DETAIL_CHARS, Reason, Rejected

AT_MS = 1_650_812_741_436
PARTITIONS = 4

ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=32)
numbers = st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False)
contexts = st.none() | st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers(0, 9) | ids)
interactions = st.builds(
    Interaction,
    event_id=ids,
    user_id=ids,
    video_id=ids,
    event=st.sampled_from(EVENTS),
    at_ms=st.integers(0, AT_MS),
    watch_seconds=numbers,
    duration_seconds=numbers,
    session_id=st.none() | ids,
    recommendation_id=st.none() | ids,
    context=contexts,
)


def record(**changes: Any) -> bytes:
    """Return a good value, with fields changed, or left out where None."""
    fields: dict[str, Any] = {"event_id": "e", "user_id": "u", "video_id": "v", "event": "watch", "at_ms": AT_MS}
    return json.dumps({name: value for name, value in (fields | changes).items() if value is not None}).encode()


def take(
    key: bytes | None, value: bytes | None, timestamp_ms: int = AT_MS, partition: int | None = None
) -> Interaction:
    if partition is None:
        partition = partition_of(key or b"", PARTITIONS)
    return decode(key, value, timestamp_ms, partition=partition, partitions=PARTITIONS, future_tolerance_ms=600_000)


def reason_of(key: bytes | None, value: bytes | None, **place: int) -> Reason:
    with pytest.raises(Rejected) as caught:
        take(key, value, **place)
    assert caught.value.detail
    assert len(caught.value.detail) <= MAX_DETAIL_CHARS
    return caught.value.reason


@given(interactions)
def test_round_trip(interaction: Interaction) -> None:
    assert take(interaction.user_id.encode(), encode(interaction)) == interaction


@given(interactions)
def test_the_wire_carries_the_version_and_no_nulls(interaction: Interaction) -> None:
    fields = msgspec.json.decode(encode(interaction))
    assert fields["v"] == 1
    assert all(value is not None for name, value in fields.items() if name != "context")


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_rejected(value: bytes) -> None:
    with pytest.raises(Rejected):
        take(b"u", value)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200)
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@given(st.dictionaries(st.sampled_from([*Interaction.__struct_fields__, "extra"]), anything))
def test_any_json_is_decoded_or_rejected(changes: dict[str, Any]) -> None:
    value = record(**changes)
    try:
        interaction = decode_value(value)
    except Rejected:
        return
    assert decode_value(encode(interaction)) == interaction  # what was taken can be sent on


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.EMPTY),
        (b"", Reason.EMPTY),
        (b"{", Reason.MALFORMED_JSON),
        (b"\xff\xfe", Reason.MALFORMED_JSON),
        (b'{"user_id": "\xff"}', Reason.MALFORMED_JSON),
        (record(user_id="\ud800"), Reason.MALFORMED_JSON),
        (record(watch_seconds=math.nan), Reason.MALFORMED_JSON),  # JSON has no NaN
        (record(watch_seconds=math.inf), Reason.MALFORMED_JSON),
        (record() + b"{}", Reason.MALFORMED_JSON),
        (b"[]", Reason.WRONG_TYPE),
        (b"null", Reason.WRONG_TYPE),
        (record(user_id=1), Reason.WRONG_TYPE),
        (record(at_ms="1650812741436"), Reason.WRONG_TYPE),
        (record(at_ms=True), Reason.WRONG_TYPE),
        (record(at_ms=1.5), Reason.WRONG_TYPE),
        (record(event=3), Reason.WRONG_TYPE),
        (record(watch_seconds="12"), Reason.WRONG_TYPE),
        (record(context=[1]), Reason.WRONG_TYPE),
        (record(context={"a": {"deep": 1}}), Reason.WRONG_TYPE),
        (record(event_id=None), Reason.MISSING_FIELD),
        (b"{}", Reason.MISSING_FIELD),
        (record(colour="red"), Reason.UNKNOWN_FIELD),
        (record(event="clap"), Reason.UNKNOWN_EVENT),
        (record(event=""), Reason.UNKNOWN_EVENT),
        (record(video_id=""), Reason.BAD_ID),
        (record(video_id="x" * 129), Reason.BAD_ID),
        (record(event_id="é" * 65), Reason.BAD_ID),
        (record(session_id=""), Reason.BAD_ID),
        (record(recommendation_id="x" * 200), Reason.BAD_ID),
        (record(watch_seconds=-0.1), Reason.BAD_NUMBER),
        (record(duration_seconds=-1), Reason.BAD_NUMBER),
        (record(watch_seconds=1).replace(b": 1,", b": 1e999,").replace(b": 1}", b": 1e999}"), Reason.BAD_NUMBER),
        (record(at_ms=-1), Reason.BAD_TIME),
        (record(at_ms=AT_MS + 600_001), Reason.BAD_TIME),
        (record(at_ms=2**70), Reason.BAD_TIME),
        (record(v=2), Reason.SCHEMA_VERSION),
        (record(v=2, new_field_of_v2=1), Reason.SCHEMA_VERSION),
        (record(v="1"), Reason.SCHEMA_VERSION),
        (record(v=True), Reason.SCHEMA_VERSION),
        (record(user_id="w"), Reason.KEY_MISMATCH),
        (record(context={"a": "x" * MAX_VALUE_BYTES}), Reason.TOO_LARGE),
        (b'{"context":' + b"[" * 10_000, Reason.MALFORMED_JSON),
        (b'{"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}", Reason.MALFORMED_JSON),  # too deep to be read at all
    ],
)
def test_bad_value(value: bytes | None, reason: Reason) -> None:
    assert reason_of(b"u", value) == reason


@pytest.mark.parametrize("key", [None, b"", b"U", b"\xff", b"x" * 10_000])
def test_key_that_is_not_the_users(key: bytes | None) -> None:
    assert reason_of(key, record()) == Reason.KEY_MISMATCH


def test_record_in_another_partition() -> None:
    own = partition_of(b"u", PARTITIONS)
    assert reason_of(b"u", record(), partition=(own + 1) % PARTITIONS) == Reason.WRONG_PARTITION


def test_ids_are_measured_in_bytes() -> None:
    longest = "é" * 64  # 128 bytes
    assert take(longest.encode(), record(user_id=longest)).user_id == longest
    assert take(b"u", record(video_id="x" * 128)).video_id == "x" * 128


def test_future_is_judged_by_arrival() -> None:
    assert take(b"u", record(at_ms=AT_MS + 600_000), timestamp_ms=AT_MS).at_ms == AT_MS + 600_000
    assert take(b"u", record(at_ms=1)).at_ms == 1  # any past is sane: a replay sends years-old events
    assert reason_of(b"u", record(), timestamp_ms=AT_MS - 600_001) == Reason.BAD_TIME


def test_whole_numbers_are_fine_as_seconds() -> None:
    assert decode_value(record(watch_seconds=3, duration_seconds=0)).watch_seconds == 3.0


def interaction(
    event_id: str = "e", event: Event = "watch", at_ms: int = AT_MS, watch_seconds: float | None = None
) -> Interaction:
    return Interaction(event_id, "u", "v", event, at_ms, watch_seconds)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (interaction(watch_seconds=math.nan), Reason.BAD_NUMBER),
        (interaction(watch_seconds=math.inf), Reason.BAD_NUMBER),
        (interaction(watch_seconds=-1.0), Reason.BAD_NUMBER),
        (interaction(event_id=""), Reason.BAD_ID),
        (interaction(event_id="\ud800"), Reason.BAD_ID),
        (interaction(at_ms=-1), Reason.BAD_TIME),
        (interaction(event="clap"), Reason.UNKNOWN_EVENT),  # type: ignore[arg-type] # the wrong value is the test
        (Interaction("e", "u", "v", "like", 1, context={"a": "x" * MAX_VALUE_BYTES}), Reason.TOO_LARGE),
    ],
)
def test_nothing_leaves_that_a_consumer_would_refuse(bad: Interaction, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        encode(bad)
    assert caught.value.reason == reason


def test_codes_are_frozen() -> None:
    # stored rows hold these numbers
    assert [event_code(event) for event in EVENTS] == list(range(10))
    assert EVENTS[:5] == ("impression", "view", "watch", "like", "unlike")
    assert EVENTS[5:] == ("share", "comment", "follow", "skip", "dislike")
    with pytest.raises(KeyError):
        event_code("clap")

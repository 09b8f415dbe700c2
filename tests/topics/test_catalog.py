"""Videos and users survive the wire; tombstones delete; the rest is refused with the right reason."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.catalog import (
    MAX_VALUE_BYTES,
    User,
    Video,
    decode_user,
    decode_user_value,
    decode_video,
    decode_video_value,
    encode,
)
from topics.partitions import partition_of
from topics.rejected import Reason, Rejected

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
lists = st.lists(words, max_size=5).map(tuple)
videos = st.builds(
    Video,
    title=words,
    description=words,
    categories=lists,
    tags=lists,
    author=st.none() | words,
    language=st.none() | words,
    duration_seconds=st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    published_ms=st.none() | st.integers(0, 2**53),
    hidden=st.booleans(),
)
users = st.builds(
    User,
    language=st.none() | words,
    country=st.none() | words,
    age_band=st.none() | words,
    segments=lists,
    attributes=st.dictionaries(words, st.none() | st.booleans() | st.integers(0, 9) | words, max_size=5),
)


def place(key: bytes) -> dict[str, int]:
    return {"partition": partition_of(key, 4), "partitions": 4}


@given(words, videos)
def test_video_round_trip(video_id: str, video: Video) -> None:
    key = video_id.encode()
    assert decode_video(key, encode(video), **place(key)) == (video_id, video)
    assert b'"v":1' in encode(video)


@given(words, users)
def test_user_round_trip(user_id: str, user: User) -> None:
    key = user_id.encode()
    assert decode_user(key, encode(user), **place(key)) == (user_id, user)
    assert b'"v":1' in encode(user)


def test_no_value_is_a_tombstone() -> None:
    assert decode_video(b"v1", None, **place(b"v1")) == ("v1", None)
    assert decode_user(b"u1", None, **place(b"u1")) == ("u1", None)


@pytest.mark.parametrize("key", [None, b"", b"x" * 129, b"\xff"])
def test_bad_key(key: bytes | None) -> None:
    with pytest.raises(Rejected) as caught:
        decode_video(key, b"{}", partition=0, partitions=1)
    assert caught.value.reason == Reason.BAD_ID


def test_video_in_another_partition() -> None:
    with pytest.raises(Rejected) as caught:
        decode_video(b"v1", b"{}", partition=(partition_of(b"v1", 4) + 1) % 4, partitions=4)
    assert caught.value.reason == Reason.WRONG_PARTITION


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"{", Reason.MALFORMED_JSON),
        (b"\xff", Reason.MALFORMED_JSON),
        (b"[]", Reason.WRONG_TYPE),
        (b'{"title": 3}', Reason.WRONG_TYPE),
        (b'{"categories": "drama"}', Reason.WRONG_TYPE),
        (b'{"hidden": 1}', Reason.WRONG_TYPE),
        (b'{"name": "x"}', Reason.UNKNOWN_FIELD),
        (b'{"v": 2, "name": "x"}', Reason.SCHEMA_VERSION),
        (b'{"duration_seconds": -1}', Reason.BAD_NUMBER),
        (b'{"duration_seconds": 1e999}', Reason.BAD_NUMBER),
        (b'{"published_ms": -1}', Reason.BAD_NUMBER),
        (b'{"title": "%s"}' % (b"x" * 501), Reason.TOO_LARGE),
        (b'{"tags": [%s"x"]}' % (b'"x",' * 64), Reason.TOO_LARGE),
        (b'{"description": "%s"}' % (b"x" * MAX_VALUE_BYTES), Reason.TOO_LARGE),
    ],
)
def test_bad_video(value: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        decode_video_value(value)
    assert caught.value.reason == reason


@given(st.binary(max_size=100))
def test_any_bytes_are_decoded_or_rejected(value: bytes) -> None:
    for decode in (decode_video_value, decode_user_value):
        with pytest.raises(Rejected):
            decode(value)


def test_nothing_leaves_that_a_consumer_would_refuse() -> None:
    for bad in (Video(duration_seconds=math.nan), Video(title="x" * 501), User(segments=("",))):
        with pytest.raises(Rejected):
            encode(bad)

"""Served lists as they travel."""

from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.recommendations import MAX_PLACES, BadList, decode_list, encode_list, hash_names


def packed(n: int = 3, **changed: object) -> bytes:
    fields: dict[str, object] = {
        "recommendation_id": "r1",
        "at_ms": 5,
        "source": "owner",
        "video_ids": [f"v{i}" for i in range(n)],
        "explored": [n - 1],
        "names": 7,
        "inputs": np.arange(4 * n, dtype=np.float32).reshape(n, 4),
    }
    return encode_list(**{**fields, **changed})  # type: ignore[arg-type] # tests name fields as text


def test_what_is_written_is_read() -> None:
    key, listed = decode_list("Zoë".encode(), packed())
    assert key == "Zoë".encode()
    assert (listed.recommendation_id, listed.at_ms, listed.source, listed.names) == ("r1", 5, "owner", 7)
    assert listed.video_ids == ["v0", "v1", "v2"]
    assert listed.explored == [2]
    np.testing.assert_array_equal(listed.matrix(), np.arange(12).reshape(3, 4))


def test_a_list_without_inputs() -> None:
    assert decode_list(b"u", packed(inputs=None))[1].matrix() is None


def test_long_lists_are_cut() -> None:
    _, listed = decode_list(b"u", packed(MAX_PLACES + 5, explored=[0, MAX_PLACES]))
    assert len(listed.video_ids) == MAX_PLACES
    assert listed.explored == [0]
    matrix = listed.matrix()
    assert matrix is not None
    assert matrix.shape == (MAX_PLACES, 4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"u", None),
        (b"u", b""),
        (b"u", b"\xff\x00"),
        (b"u", b"{}"),
        (None, packed()),
        (b"", packed()),
        (b"u" * 200, packed()),
        (b"u", packed(0, explored=[], inputs=None)),
        (b"u", packed(video_ids=["v0", "", "v2"])),
        (b"u", packed(inputs=np.zeros((3, 4), np.float32))[:-2] + b"\x00"),
        (b"u", msgspec.msgpack.encode([2, "r", 1, "owner", ["v"], [], 7, b"\x00" * 4])),
        (b"u", msgspec.msgpack.encode([1, "r", 1, "owner", ["v", "w", "x"], [], 7, b"\x00" * 16])),
    ],
)
def test_what_is_no_list_is_refused(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(BadList):
        decode_list(key, value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_refused(value: bytes) -> None:
    with suppress(BadList):
        decode_list(b"u", value)


def test_names_in_another_order_are_other_inputs() -> None:
    assert hash_names(("a", "b")) != hash_names(("b", "a"))
    assert 0 <= hash_names(("a", "b")) < 2**63


def test_a_record_of_a_release_without_arms_is_read() -> None:
    fields = msgspec.msgpack.decode(packed(arm="mixed", first=20, experiment=2**52 + 1))
    assert fields[-3:] == ["mixed", 20, 2**52 + 1]
    _, old = decode_list(b"u", msgspec.msgpack.encode(fields[:-3]))
    assert (old.arm, old.first, old.experiment) == ("", 0, 0)
    _, new = decode_list(b"u", msgspec.msgpack.encode(fields))
    assert (new.arm, new.first, new.experiment) == ("mixed", 20, 2**52 + 1)
    with pytest.raises(BadList):
        decode_list(b"u", packed(first=-1))

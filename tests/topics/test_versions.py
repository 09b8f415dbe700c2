"""The record of the active version, and names for the next one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.versions import (
    KEY,
    Active,
    BadVersionRecord,
    decode_active,
    encode_active,
    next_version,
    taken,
    versions_spec,
)

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True)


@given(NAMES, st.integers(0, 2**53), st.none() | NAMES)
def test_a_record_is_read_as_it_was_written(version: str, since_ms: int, previous: str | None) -> None:
    active = Active(version, since_ms, previous)
    assert decode_active(encode_active(active)) == active


def test_the_record_says_its_schema() -> None:
    assert encode_active(Active("v2", 5, "v1")) == b'{"version":"v2","since_ms":5,"previous":"v1","v":1}'


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"v2",
        b"[]",
        b"\xff",
        b"{}",
        b'{"version":"v2"}',
        b'{"version":"","since_ms":1}',
        b'{"version":"../v2","since_ms":1}',
        b'{"version":"v2","since_ms":1,"v":2}',
        b'{"version":2,"since_ms":1,"v":1}',
    ],
)
def test_what_is_no_record_is_an_error_with_a_way_out(value: bytes) -> None:
    with pytest.raises(BadVersionRecord, match="HEADRACE_VERSION"):
        decode_active(value)


def test_the_last_record_under_the_key_counts() -> None:
    first, second = Active("v1", 1), Active("v2", 2, "v1")
    assert taken(KEY, encode_active(second), first) == second
    assert taken(b"other", b"anything", first) == first
    assert taken(None, b"anything", first) == first
    assert taken(KEY, None, first) is None


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([], "v1"),
        (["v1"], "v2"),
        (["v9", "v10", "v2"], "v11"),
        (["v1", "v3"], "v4"),
        (["blue", "V7", "v7b", "vv8", "v"], "v1"),
        (["v٣", "v1"], "v2"),
    ],
)
def test_the_next_name_is_free(known: list[str], expected: str) -> None:
    assert next_version(known) == expected
    assert expected not in known


def test_the_topic_of_versions_is_compacted_and_small() -> None:
    spec = versions_spec("shop", replication=3)
    assert (spec.name, spec.partitions, spec.replication) == ("shop-versions", 1, 3)
    assert spec.config == {"cleanup.policy": "compact"}

"""A dead letter gives the original bytes back, and the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.dead_letter import MAX_ORIGINAL_BYTES, MAX_REQUEST_BYTES, DeadLetter, dead_letter, parse_dead_letter
from topics.rejected import Reason, Rejected
from topics.specs import DEAD, specs


def build(key: bytes | None, value: bytes | None, detail: str = "why") -> DeadLetter:
    why = Rejected(Reason.BAD_ID, detail)
    return dead_letter(key, value, why, topic="interactions", partition=3, offset=2**40)


@given(st.none() | st.binary(max_size=200), st.none() | st.binary(max_size=200), st.text())
def test_round_trip(key: bytes | None, value: bytes | None, detail: str) -> None:
    letter = build(key, value, detail)
    assert parse_dead_letter(letter.key, letter.value, letter.headers) == letter
    assert (letter.key, letter.value) == (key, value)
    assert letter.original_bytes == len(key or b"") + len(value or b"")


def test_headers_say_where_it_lay() -> None:
    headers = dict(build(b"k", b"v").headers)
    assert headers["headrace.reason"] == b"bad_id"
    assert headers["headrace.detail"] == b"why"
    assert headers["headrace.topic"] == b"interactions"
    assert headers["headrace.partition"] == b"3"
    assert headers["headrace.offset"] == b"1099511627776"


def test_a_detail_that_cannot_be_encoded_is_no_obstacle() -> None:
    assert dict(build(b"k", b"v", "\ud800").headers)["headrace.detail"] == b"?"


def test_a_huge_original_is_cut_and_says_so() -> None:
    letter = build(b"k" * 2_000_000, b"v" * 50_000_000)
    assert len(letter.value or b"") == MAX_ORIGINAL_BYTES
    assert letter.original_bytes == 52_000_000
    size = len(letter.key or b"") + len(letter.value or b"") + sum(len(k) + len(v) for k, v in letter.headers)
    assert size < MAX_REQUEST_BYTES
    dead = next(spec for spec in specs("app", "v1", 1) if spec.name == DEAD)
    assert int(dead.config["max.message.bytes"]) > MAX_REQUEST_BYTES


@pytest.mark.parametrize("name", ["reason", "detail", "topic", "partition", "offset", "original_bytes"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = [header for header in build(b"k", b"v").headers if header[0] != f"headrace.{name}"]
    with pytest.raises(ValueError, match=f"headrace.{name}"):
        parse_dead_letter(b"k", b"v", headers)


def test_a_record_without_headers_is_no_dead_letter() -> None:
    with pytest.raises(ValueError, match=r"headrace\.reason is missing"):
        parse_dead_letter(b"k", b"v", None)
    headers = [*build(b"k", b"v").headers, ("headrace.offset", b"many")]
    with pytest.raises(ValueError, match=r"headrace\.offset"):
        parse_dead_letter(b"k", b"v", headers)

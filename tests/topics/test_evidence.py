"""Evidence blocks: the way through bytes, and everything that is no block."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.evidence import (
    EVENT,
    FACTORS,
    LINK,
    SCHEMA_VERSION,
    SHOWN,
    STEP,
    BadBlock,
    EvidenceBlock,
    OtherRelease,
    unpack,
)


def block(**changes: Any) -> EvidenceBlock:
    events = np.array([(0, 3, 1, 1_700_000_000_000), (2, 9, 0, 5)], EVENT)
    links = np.array([(0, [1, 2] + [-1] * 18, 7, [5, 2**63]), (1, [-1] * 20, 8, [0, 0])], LINK)
    steps = np.zeros(1, STEP)
    steps["item"], steps["q"], steps["b"], steps["acc"] = 1, np.arange(FACTORS), -0.5, 0.25
    fields = {"events": events, "links": links, "steps": steps}
    return EvidenceBlock(b"origin", 3, ["a", "é", "c"], **{**fields, **changes})


def test_a_block_survives_the_way_through_bytes() -> None:
    sent = block()
    got = unpack(sent.pack())
    assert (got.origin, got.sender, got.ids) == (b"origin", 3, ["a", "é", "c"])
    for name in ("events", "links", "steps"):
        np.testing.assert_array_equal(getattr(got, name), getattr(sent, name))


def test_an_empty_block_is_a_block() -> None:
    empty = {name: np.empty(0, dtype) for name, dtype in (("events", EVENT), ("links", LINK), ("steps", STEP))}
    assert len(unpack(block(**empty).pack()).events) == 0


@given(st.binary(max_size=300))
def test_bytes_that_are_no_block_are_refused(data: bytes) -> None:
    with pytest.raises(BadBlock):
        unpack(data)


@given(st.data())
def test_torn_and_flipped_blocks_are_refused_or_harmless(data: st.DataObject) -> None:
    """Whatever `unpack` lets through can be applied: positions, kinds and numbers are in range."""
    whole = bytearray(block().pack())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(len(whole) // 2, len(whole)))
    try:
        got = unpack(bytes(whole[:cut]))
    except (BadBlock, OtherRelease):
        # The version may be among what was changed.
        return
    for column, names in ((got.events, ["item"]), (got.links, ["item"]), (got.steps, ["item"])):
        assert all((column[name] < len(got.ids)).all() for name in names)
    assert ((got.events["kind"] < 10) | (got.events["kind"] == SHOWN)).all()
    assert ((got.links["history"] >= -1) & (got.links["history"] < len(got.ids))).all()


@pytest.mark.parametrize(
    ("column", "name", "value"),
    [
        ("events", "item", 3),
        ("events", "kind", 10),
        ("links", "item", 3),
        ("links", "history", 3),
        ("links", "history", -2),
        ("steps", "item", 3),
    ],
)
def test_a_block_with_one_impossible_value_is_refused(column: str, name: str, value: float) -> None:
    changed = getattr(block(), column).copy()
    changed[name][-1] = value
    with pytest.raises(BadBlock):
        unpack(block(**{column: changed}).pack())


def test_a_block_of_another_version_is_refused() -> None:
    """One of another release is no dead letter: it is lost to the counts if it is passed over."""
    fields = msgspec.msgpack.decode(block().pack())
    for version, refusal in ((SCHEMA_VERSION + 1, OtherRelease), (1, OtherRelease), (0, BadBlock)):
        with pytest.raises(refusal, match=f"version {version}; this release reads {SCHEMA_VERSION}"):
            unpack(msgspec.msgpack.encode([version, *fields[1:]]))


def test_columns_of_another_width_are_refused() -> None:
    fields = msgspec.msgpack.decode(block().pack())
    fields[4] = fields[4][:-1]
    with pytest.raises(BadBlock, match="torn"):
        unpack(msgspec.msgpack.encode(fields))


def test_ids_that_are_no_ids_are_refused() -> None:
    for ids in (["a", "", "c"], ["a", "b" * 129, "c"]):
        with pytest.raises(BadBlock):
            unpack(msgspec.structs.replace(block(), ids=ids).pack())

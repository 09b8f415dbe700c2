"""Columns of records hold what aiokafka's reader finds in the same bytes, and nothing that lies beyond them."""

from collections.abc import Sequence

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from topics.record_batch import Record, RecordBatch, Stretch, TornBatch

RECORDS_AT = 61
texts = st.none() | st.binary(max_size=300)
drawn = st.lists(
    st.tuples(
        texts,
        texts,
        st.integers(0, 5),
        st.integers(0, 10**6),
        st.lists(st.tuples(st.text(max_size=5), texts), max_size=3),
    ),
    min_size=1,
    max_size=30,
)


def built(records: Sequence[tuple[bytes | None, bytes | None, int, int, list[tuple[str, bytes | None]]]]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 10**7)
    offset = 0
    for key, value, gap, later_ms, headers in records:
        offset += gap
        assert builder.append(offset, 1_700_000_000_000 + later_ms, key, value, headers) is not None
        offset += 1
    return bytes(builder.build())


def stretch(batch: bytes, records: int, base_offset: int = 0) -> Stretch:
    head = DefaultRecordBatch(batch)
    return Stretch(batch[RECORDS_AT:], records, base_offset, head.first_timestamp, append_time=False)


@given(drawn, drawn)
def test_reading_finds_what_aiokafka_finds(first: list[object], second: list[object]) -> None:
    batches = [built(first), built(second)]  # type: ignore[arg-type] # hypothesis loses the tuples' types
    got = RecordBatch.read([stretch(batches[0], len(first), 7), stretch(batches[1], len(second), 500)])
    expected = [
        Record(record.key, record.value, base + record.offset, record.timestamp)
        for base, batch in zip((7, 500), batches, strict=True)
        for record in DefaultRecordBatch(batch)
    ]
    assert list(got) == expected
    assert len(got) == len(first) + len(second)


def test_with_log_append_time_all_records_have_the_batch_s() -> None:
    batch = built([(b"k", b"v", 0, 5, []), (b"k", b"w", 0, 9, [])])
    got = RecordBatch.read([Stretch(batch[RECORDS_AT:], 2, 0, 42, append_time=True)])
    assert [record.timestamp for record in got] == [42, 42]


@given(st.data())
def test_torn_records_are_an_error_or_stay_within_the_buffer(data: st.DataObject) -> None:
    batch = built([(b"key", b"value", 0, 3, []), (None, b"x" * 200, 1, 4, [("h", b"1")])])
    payload = bytearray(batch[RECORDS_AT:])
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    try:
        got = RecordBatch.read([Stretch(cut, 2, 0, 0, append_time=False)])
    except TornBatch:
        return
    for at, size in ((got.key_at, got.key_size), (got.value_at, got.value_size)):
        assert (size >= -1).all()
        assert ((at >= 0) & (at + np.maximum(size, 0) <= len(cut))).all()


@pytest.mark.parametrize("count", [1, 3, -1, 10**9])
def test_a_wrong_number_of_records_is_an_error(count: int) -> None:
    batch = built([(b"k", b"v", 0, 0, []), (b"k", b"w", 0, 0, [])])
    with pytest.raises(TornBatch):
        RecordBatch.read([stretch(batch, count)])


def test_slices_and_offsets() -> None:
    records = [Record(b"a", None, 3, 1), Record(None, b"", 5, 2), Record(b"c", b"vvv", 9, 3)]
    batch = RecordBatch.of(records)
    assert RecordBatch.of(batch) is batch
    assert list(batch) == records
    assert list(batch[1:]) == records[1:]
    assert batch[-1] == records[-1]
    assert list(batch.since(5)) == records[1:]
    assert batch.since(3) is batch
    assert list(batch.before(9)) == records[:2]
    assert list(batch.since(10)) == []
    assert not RecordBatch.read([])
    with pytest.raises(TypeError):
        batch["__faust"]  # type: ignore[call-overload] # what Faust asks of every value
    with pytest.raises(IndexError):
        batch[3]

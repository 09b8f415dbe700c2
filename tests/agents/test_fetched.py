"""What aiokafka would make of the bytes of a fetch is what comes out as columns: same records, same position behind them."""

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from agents.fetched import _Answers, _take, _Waiting

TP = TopicPartition("t", 0)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
#: Places in a batch's header: base offset, checksum, what it is taken of, attributes, last offset delta.
CRC_AT, CHECKED_FROM = 17, 21
CONTROL = 0x20


def batch(
    base_offset: int,
    values: list[bytes | None],
    codec: str = "none",
    producer: int = -1,
    *,
    transactional: bool = False,
) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, CODECS[codec], int(transactional), producer, 0, 0, 10**6)
    for n, value in enumerate(values):
        assert builder.append(n, 1_000 + n, b"key", value, [("h", b"x")]) is not None
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, base_offset)
    return built


def marker(base_offset: int, producer: int, *, commit: bool) -> bytearray:
    """A control batch, as the broker writes it."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, producer, 0, 0, 10**6)
    assert builder.append(0, 1_000, struct.pack(">hh", 0, int(commit)), struct.pack(">hi", 0, 0), []) is not None
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, base_offset)
    struct.pack_into(">h", built, CHECKED_FROM, struct.unpack_from(">h", built, CHECKED_FROM)[0] | CONTROL)
    struct.pack_into(">I", built, CRC_AT, calc_crc32c(bytes(built[CHECKED_FROM:])))
    return built


def fetched(raw: bytes, position: int, aborted: list[tuple[int, int]], level: int = READ_COMMITTED) -> PartitionRecords:
    return PartitionRecords(TP, MemoryRecords(raw), aborted, position, None, None, True, level)


class Result:
    """aiokafka's `FetchResult`, as far as it is asked."""

    def __init__(self, raw: bytes, records: PartitionRecords) -> None:
        self._topic_partition, self._partition_records = TP, records
        self.position = records.next_fetch_offset
        self._waiting = _Waiting(raw, records)

    def check_assignment(self, _tp: TopicPartition) -> bool:
        return bool(self.position == self._partition_records.next_fetch_offset)

    def has_more(self) -> bool:
        return self._partition_records is not None

    def _update_position(self) -> None:
        self.position = self._partition_records.next_fetch_offset

    def take(self, most: int | None = None) -> list[Any]:
        return list(_take(self, self._waiting, most))


def everything(result: Result, most: int | None) -> list[Any]:
    taken: list[Any] = []
    while result.has_more():
        taken += result.take(most)
    return taken


def expected(records: PartitionRecords) -> tuple[list[Any], int]:
    found = [(r.key, r.value, r.offset, r.timestamp) for r in records]
    return found, records.next_fetch_offset


MIXED = b"".join(
    (
        batch(5, [b"5", None, b"7"], "lz4"),
        batch(8, [b"8"], producer=1, transactional=True),
        batch(9, [b"aborted", b"too"], "zstd", producer=2, transactional=True),
        marker(11, 2, commit=False),
        batch(12, [b"12"], "gzip", producer=2, transactional=True),
        marker(13, 1, commit=True),
        marker(14, 2, commit=True),
        batch(20, [b"20" * 500, b"21"], "snappy"),
        marker(22, 3, commit=True),
    )
)
ABORTED = [(2, 9)]


@pytest.mark.parametrize("level", [READ_COMMITTED, READ_UNCOMMITTED])
@pytest.mark.parametrize("position", [5, 6, 9, 21, 23])
@pytest.mark.parametrize("most", [None, 1, 2, 100])
def test_columns_hold_what_aiokafka_reads(position: int, most: int | None, level: int) -> None:
    result = Result(MIXED, fetched(MIXED, position, ABORTED, level))
    taken = everything(result, most)
    found, behind = expected(fetched(MIXED, position, ABORTED, level))
    # aiokafka counts on the broker to begin with the position's own batch.
    assert [tuple(record) for record in taken] == [each for each in found if each[2] >= position]
    assert (result.position, behind) == (23, 23)


def test_a_part_leaves_the_position_behind_its_last_record() -> None:
    result = Result(MIXED, fetched(MIXED, 5, ABORTED))
    assert [r.offset for r in result.take(2)] == [5, 6]
    assert (result.position, result.has_more()) == (7, True)
    result.position = 30  # somebody has sought elsewhere
    assert result.take(2) == []


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_is_cut_off_comes_with_the_next_fetch(codec: str) -> None:
    raw = bytes(batch(0, [b"a", b"b"], codec)) + bytes(batch(2, [b"c"], codec))[:-1]
    result = Result(raw, fetched(raw, 0, []))
    assert [r.value for r in result.take()] == [b"a", b"b"]
    assert result.position == 2


def test_a_fetch_of_markers_alone_moves_the_position() -> None:
    raw = bytes(marker(3, 1, commit=True))
    result = Result(raw, fetched(raw, 3, []))
    assert result.take() == []
    assert (result.position, result.has_more()) == (4, False)


def test_a_wrong_checksum_is_an_error_once_and_then_fetched_again() -> None:
    good, bad = batch(0, [b"a"]), batch(1, [b"b" * 50])
    bad[-3] ^= 1
    raw = bytes(good + bad)
    result = Result(raw, fetched(raw, 0, []))
    with pytest.raises(CorruptRecordException, match="checksum"):
        result.take()
    assert result.take() == []
    assert (result.position, result.has_more()) == (0, False)


def test_torn_records_under_a_right_checksum_are_an_error() -> None:
    bad = batch(0, [b"value"])
    bad[61] = 0x7E  # the record's length
    struct.pack_into(">I", bad, CRC_AT, calc_crc32c(bytes(bad[CHECKED_FROM:])))
    raw = bytes(bad)
    with pytest.raises(CorruptRecordException, match="contradict"):
        Result(raw, fetched(raw, 0, [])).take()


def test_a_log_of_the_old_format_is_read_by_aiokafka() -> None:
    builder = LegacyRecordBatchBuilder(1, 0, 10**6)
    for n, value in enumerate((b"a", b"b")):
        assert builder.append(n, 7 + n, b"key", value) is not None
    raw = bytes(builder.build())
    result = Result(raw, fetched(raw, 0, []))
    assert [(r.key, r.value, r.offset, r.timestamp) for r in result.take()] == [
        (b"key", b"a", 0, 7),
        (b"key", b"b", 1, 8),
    ]
    assert result.position == 2


class FetchResponse_v11:  # noqa: N801 - aiokafka's name
    def __init__(self, *records: bytes) -> None:
        self.topics: list[tuple[str, list[Any]]] = [
            ("t", [(n, 0, 99, 99, 0, [], each) for n, each in enumerate(records)])
        ]


async def test_the_bytes_of_the_latest_fetch_are_kept_and_handed_over_once() -> None:
    answers_of = {
        "fetch": FetchResponse_v11(b"first", b"second"),
        "again": FetchResponse_v11(b"third"),
        "other": object(),
    }

    async def send(_node: int, request: str) -> object:
        return answers_of[request]

    answers = _Answers(SimpleNamespace(cluster="the client's", send=send))
    assert answers.cluster == "the client's"
    await answers.send(1, "fetch")
    await answers.send(1, "other")
    assert answers.raw == {TP: b"first", TopicPartition("t", 1): b"second"}
    await answers.send(1, "again")
    assert answers.raw == {TP: b"third"}

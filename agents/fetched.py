"""aiokafka's fetches, read as columns: what the broker sent becomes one `RecordBatch` a partition.

aiokafka makes a Python object of each record (a third of all the time of a worker that learns a backlog). Here a fetch's
batches are checked, decompressed and kept as they are, and a compiled loop finds the records in them. Always holds, as in
aiokafka: a batch with a wrong checksum is an error and is fetched again, control batches and those of aborted transactions are
passed over, and the position behind a fetch is that behind its last batch, whatever compaction has taken out.
"""

import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

import aiokafka
from aiokafka import codec
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.structs import TopicPartition

from topics.record_batch import RecordBatch, Stretch, TornBatch

#: Offset, length, leader epoch and magic byte of a batch, as all message formats have them; lengths count from behind the second.
_HEAD = struct.Struct(">qiib")
_LENGTH_COUNTS_FROM = 12
#: Where the records of a batch of format v2 begin, and the last field before them: their number.
_RECORDS_AT = 61
_COUNT = struct.Struct(">i")
_COUNT_AT = 57
_DECODERS = {
    0: bytes,
    DefaultRecordBatch.CODEC_GZIP: codec.gzip_decode,
    DefaultRecordBatch.CODEC_SNAPPY: codec.snappy_decode,
    DefaultRecordBatch.CODEC_LZ4: codec.lz4_decode,
    DefaultRecordBatch.CODEC_ZSTD: codec.zstd_decode,
}


def read_columns(consumer: aiokafka.AIOKafkaConsumer) -> None:
    """Let a started consumer's fetches come as `RecordBatch`es, from `getmany` of its fetcher."""
    fetcher = consumer._fetcher
    answers = _Answers(fetcher._client)
    fetcher._client = answers
    fetcher._records = _Fetched(answers)


class _Answers:
    """aiokafka's client; keeps the bytes of each fetched partition, of which its own reader lets nothing out."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.raw: dict[TopicPartition, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        """Send a request; nothing runs between the return of this and the use of the answer."""
        answer = await self._client.send(node_id, request, **options)
        if type(answer).__name__.startswith("FetchResponse"):
            self.raw = {}
            for topic, partitions in answer.topics:
                for partition, *_, records in partitions:
                    self.raw[TopicPartition(topic, partition)] = records
        return answer


class _Fetched(dict[Any, Any]):
    """aiokafka's fetches by partition."""

    def __init__(self, answers: _Answers) -> None:
        super().__init__()
        self._answers = answers

    def __setitem__(self, tp: Any, result: Any) -> None:
        if isinstance(result, FetchResult):
            result.getall = partial(_take, result, _Waiting(self._answers.raw.pop(tp), result._partition_records))
        super().__setitem__(tp, result)


class _Waiting:
    """What a fetch brought of a partition and nobody has taken yet."""

    def __init__(self, raw: bytes, fetched: Any) -> None:
        self._raw: bytes | None = raw
        #: aiokafka's own reader of the same bytes: it knows what is aborted, and which position the fetcher is at.
        self._fetched = fetched
        self._records = RecordBatch.read([])
        self._end: int = fetched.next_fetch_offset

    def take(self, most: int | None) -> tuple[RecordBatch, bool]:
        """Up to `most` records, and whether these were the last. Raises CorruptRecordException; then there are no more."""
        if self._raw is not None:
            raw, self._raw = self._raw, None
            self._records, self._end = _read(raw, self._fetched)
        taken, self._records = self._records[:most], self._records[len(self._records) if most is None else most :]
        ended = not len(self._records)
        self._fetched.next_fetch_offset = self._end if ended else int(taken.offsets[-1]) + 1
        return taken, ended


def _take(result: Any, waiting: _Waiting, max_records: int | None = None) -> "RecordBatch | list[Any]":
    """`FetchResult.getall`."""
    if not result.check_assignment(result._topic_partition) or not result.has_more():
        return []
    taken, ended = waiting.take(max_records)
    result._update_position()
    if ended:
        result._partition_records = None
    return taken


def _read(raw: bytes, fetched: Any) -> tuple[RecordBatch, int]:
    """The records of a fetch that are to be seen, and the position behind it."""
    stretches: list[Stretch] = []
    first = end = fetched.next_fetch_offset
    for view, magic in _batches(raw):
        if magic < 2:
            # Left by a broker of before 2017: one format for all that follows, and aiokafka reads it.
            records = RecordBatch.of(list(fetched._records_iterator))
            return records, fetched.next_fetch_offset
        head = DefaultRecordBatch(bytes(view))
        if fetched._check_crcs and not head.validate_crc():
            raise CorruptRecordException(f"wrong checksum in {fetched._tp} at offset {head.base_offset}")
        end = head.next_offset
        if not _skipped(head, fetched):
            payload = _DECODERS[head.compression_type](view[_RECORDS_AT:])
            append_time = bool(head.timestamp_type)
            since_ms = head.max_timestamp if append_time else head.first_timestamp
            count = _COUNT.unpack_from(view, _COUNT_AT)[0]
            stretches.append(Stretch(payload, count, head.base_offset, since_ms, append_time))
    try:
        # A batch is sent whole, also where only its last records were asked for.
        return RecordBatch.read(stretches).since(first), end
    except TornBatch as error:
        raise CorruptRecordException(f"{fetched._tp} behind offset {first}: {error}") from error


def _batches(raw: bytes) -> Iterator[tuple[memoryview, int]]:
    """Each whole batch and its format; the last one of an answer may be cut off."""
    view, at = memoryview(raw), 0
    while len(view) - at >= _HEAD.size:
        _, length, _, magic = _HEAD.unpack_from(view, at)
        end = at + _LENGTH_COUNTS_FROM + length
        if end > len(view):
            return
        yield view[at:end], magic
        at = end


def _skipped(head: Any, fetched: Any) -> bool:
    """Whether the batch holds nothing to see: a marker of Kafka's own, or records of a transaction that was aborted."""
    if fetched._isolation_level == READ_COMMITTED and head.producer_id is not None:
        fetched._consume_aborted_up_to(head.base_offset)
        if head.is_control_batch and fetched._contains_abort_marker(head):
            fetched._aborted_producers.discard(head.producer_id)
        if head.is_transactional and head.producer_id in fetched._aborted_producers:
            return True
    return bool(head.is_control_batch)

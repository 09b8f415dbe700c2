"""What a row of the lake is: one record of a topic, as columns; and what is made of a record that is not what its topic holds.

Flows in: records of one partition. Flows out: a table of those that can be read, and one of those that are refused, with their bytes
and why. Always holds: each record is a row of one of the two, and no record, whatever is in it, stops the others.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.lake.errors import LakeError
from ingestion.lake.files import LAST_MS
from topics.dead_letter import parse_dead_letter
from topics.interactions import decode
from topics.recommendations import decode_list
from topics.rejected import MAX_DETAIL_CHARS, Reason, Rejected
from topics.specs import DEAD, INTERACTIONS, RECOMMENDATIONS

#: Of the layout of all datasets; it goes up when a column changes or goes.
SCHEMA_VERSION = 1
#: Rows of a group: what is held at once when files are read again, and what DuckDB gives a thread.
GROUP_ROWS = 100_000
#: A group of rows that are large ends sooner.
GROUP_BYTES = 64 * 1024 * 1024
_META = b"headrace"
#: What a value that is no value of its column, or no value at all, leads to.
_UNFIT = (ValueError, OverflowError, TypeError, RecursionError, pa.ArrowException)

_TIME = pa.timestamp("ms", tz="UTC")
_KAFKA: Final = (("kafka_partition", pa.int32()), ("kafka_offset", pa.int64()), ("kafka_timestamp", _TIME))
SCHEMAS: Final = {
    INTERACTIONS: pa.schema(
        [
            *(("event_id", pa.string()), ("user_id", pa.string()), ("video_id", pa.string()), ("event", pa.string())),
            *(("at_ms", _TIME), ("watch_seconds", pa.float64()), ("duration_seconds", pa.float64())),
            *(("session_id", pa.string()), ("recommendation_id", pa.string()), ("context", pa.string())),
            *_KAFKA,
        ]
    ),
    RECOMMENDATIONS: pa.schema(
        [
            *(("recommendation_id", pa.string()), ("user_id", pa.string()), ("at_ms", _TIME), ("source", pa.string())),
            *(("video_ids", pa.list_(pa.string())), ("explored", pa.list_(pa.int32())), ("arm", pa.string())),
            *(
                ("first", pa.int32()),
                ("experiment", pa.int64()),
                ("names", pa.int64()),
                ("inputs", pa.list_(pa.float32())),
            ),
            *_KAFKA,
        ]
    ),
    DEAD: pa.schema(
        [
            *(("key", pa.binary()), ("value", pa.binary()), ("reason", pa.string()), ("detail", pa.string())),
            *(("original_topic", pa.string()), ("original_partition", pa.int32()), ("original_offset", pa.int64())),
            *(("original_bytes", pa.int64()), *_KAFKA),
        ]
    ),
}
_HEADERS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
REFUSED_SCHEMA: Final = pa.schema(
    [
        *(("key", pa.binary()), ("value", pa.binary()), ("headers", _HEADERS), ("reason", pa.string())),
        *(("detail", pa.string()), *_KAFKA),
    ]
)


class Taken(NamedTuple):
    """A record as it was taken from its topic; `timestamp` in ms, of its arrival."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int
    headers: Sequence[tuple[str, bytes | None]] | None = None

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        size = 200 + len(self.key or b"") + len(self.value or b"")
        return size + sum(len(name) + len(value or b"") for name, value in self.headers) if self.headers else size


class Meta(msgspec.Struct, frozen=True):
    """What a file says of itself.

    Attributes
    ----------
    forgotten : records that were rows of it, until their users were erased
    """

    topic: str
    topic_id: str = ""
    forgotten: int = 0
    schema: int = SCHEMA_VERSION


class Judge(NamedTuple):
    """By what workers refuse an event, so that the lake takes what they take: settings of theirs."""

    partitions: int
    future_tolerance_ms: int


def tables_of(
    topic: str, partition: int, records: Sequence[Taken], judge: Judge
) -> tuple["pa.Table", "pa.Table | None"]:
    """Rows of a dataset, and what is refused, if anything is; both in the order of the records."""
    read = _READERS[topic]
    rows: list[tuple[Any, ...]] = []
    refused: list[tuple[Any, ...]] = []
    for record in records:
        try:
            rows.append((*read(record, partition, judge), *_place(record, partition)))
        except _UNFIT as why:
            refused.append(_refused(record, partition, why))
    schema = SCHEMAS[topic]
    try:
        table = _columns(rows, schema)
    except _UNFIT:
        # A value that is no value of its column: it is looked for only when there is one.
        fitting = []
        for row in rows:
            try:
                _columns([row], schema)
            except _UNFIT as why:
                record = next(each for each in records if each.offset == row[-2])
                refused.append(_refused(record, partition, why))
            else:
                fitting.append(row)
        table = _columns(fitting, schema)
        refused.sort(key=lambda row: int(row[-2]))
    return table, _columns(refused, REFUSED_SCHEMA) if refused else None


class RowFile:
    """A file that is filled with rows, however few come at once: they wait until they make a group.

    Parameters
    ----------
    path : on this machine
    schema : of all its rows
    """

    def __init__(self, path: Path, schema: "pa.Schema") -> None:
        self._schema = schema.with_metadata(None)
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Any] = []

    def add(self, rows: "pa.RecordBatch") -> None:
        """Some more, behind those that there are."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= GROUP_ROWS or sum(batch.nbytes for batch in self._waiting) >= GROUP_BYTES:
            self._write()

    def finish(self, meta: Meta) -> None:
        """That was all; the file says what it is."""
        self._write()
        self._file.add_key_value_metadata({_META.decode(): msgspec.json.encode(meta).decode()})

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _write(self) -> None:
        if self._waiting:
            batches = [batch.replace_schema_metadata(None) for batch in self._waiting]
            self._file.write_table(pa.Table.from_batches(batches, self._schema), row_group_size=GROUP_ROWS)
            self._waiting = []


def write_table(path: Path, table: "pa.Table", meta: Meta) -> None:
    """Write a file with all rows of a table."""
    with RowFile(path, table.schema) as file:
        for batch in table.to_batches():
            file.add(batch)
        file.finish(meta)


def meta_of(file: "pq.ParquetFile", where: str) -> Meta:
    """What a file says of itself. Raises LakeError where that cannot be read, or is of a later release."""
    try:
        meta = msgspec.json.decode((file.metadata.metadata or {})[_META], type=Meta)
    except (KeyError, msgspec.MsgspecError) as error:
        raise LakeError(f"{where} is not a file of the lake ({error!r}): move it elsewhere") from error
    if meta.schema > SCHEMA_VERSION:
        raise LakeError(f"{where} has schema {meta.schema}, this release reads {SCHEMA_VERSION}: use a later release")
    return meta


def _columns(rows: Sequence[tuple[Any, ...]], schema: "pa.Schema") -> "pa.Table":
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _refused(record: Taken, partition: int, why: Exception) -> tuple[Any, ...]:
    if isinstance(why, Rejected):
        reason, detail = str(why.reason), why.detail
    else:
        reason, detail = "unreadable", str(why)[:MAX_DETAIL_CHARS]
    headers = [{"name": name.encode(errors="replace").decode(), "value": value} for name, value in record.headers or ()]
    detail = detail.encode(errors="replace").decode()  # it may quote a lone surrogate
    return record.key, record.value, headers, reason, detail, *_place(record, partition)


def _place(record: Taken, partition: int) -> tuple[int, int, int]:
    """The last columns of every dataset; an arrival that no calendar has would make its column unreadable."""
    return partition, record.offset, min(max(record.timestamp, 0), LAST_MS)


def _time(at_ms: int) -> int:
    if not 0 <= at_ms <= LAST_MS:
        raise Rejected(Reason.BAD_TIME, f"at_ms {at_ms} lies outside of the years 1970 to 9999")
    return at_ms


def _interaction(record: Taken, partition: int, judge: Judge) -> tuple[Any, ...]:
    event = decode(
        record.key,
        record.value,
        record.timestamp,
        partition=partition,
        partitions=judge.partitions,
        future_tolerance_ms=judge.future_tolerance_ms,
    )
    context = None if event.context is None else msgspec.json.encode(event.context).decode()
    return (
        *(event.event_id, event.user_id, event.video_id, event.event, _time(event.at_ms)),
        *(event.watch_seconds, event.duration_seconds, event.session_id, event.recommendation_id, context),
    )


def _recommendation(record: Taken, partition: int, judge: Judge) -> tuple[Any, ...]:  # noqa: ARG001 - one signature
    key, listed = decode_list(record.key, record.value)
    inputs = listed.matrix()
    return (
        *(listed.recommendation_id, key.decode(), _time(listed.at_ms), listed.source, listed.video_ids),
        *(listed.explored, listed.arm, listed.first, listed.experiment, listed.names),
        None if inputs is None else inputs.ravel(),
    )


def _dead_letter(record: Taken, partition: int, judge: Judge) -> tuple[Any, ...]:  # noqa: ARG001 - one signature
    letter = parse_dead_letter(record.key, record.value, record.headers)
    return tuple(letter)


_READERS: Final[dict[str, Callable[[Taken, int, Judge], tuple[Any, ...]]]] = {
    INTERACTIONS: _interaction,
    RECOMMENDATIONS: _recommendation,
    DEAD: _dead_letter,
}

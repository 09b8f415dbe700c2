"""Records of one partition as columns: where each key and value lies in one buffer of bytes.

Flows in: record batches as Kafka's log has them (message format v2), decompressed. Flows out: a `RecordBatch`, from which hot
paths read whole columns and others take a record at a time. No Python object is made for a record until somebody asks for it.

Source of the format: KIP-98, "Message Format"; https://kafka.apache.org/documentation/#recordbatch.
"""

from collections.abc import Iterator, Sequence
from operator import index
from typing import Any, NamedTuple, Protocol, overload

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

#: Places are int32.
MAX_BYTES = 2**31 - 1


class TornBatch(ValueError):
    """A record batch whose lengths contradict each other, or are beyond all bounds."""


class Record(NamedTuple):
    """One record; `timestamp` in ms, of the arrival where the topic has log-append time."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int


class RecordLike(Protocol):
    """What is read of a record, whoever made it."""

    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102


class Stretch(NamedTuple):
    """One batch of the log: its decompressed records, and what its header says of them.

    `timestamp` is what deltas are added to; with `append_time` it is every record's own.
    """

    payload: bytes | memoryview
    records: int
    base_offset: int
    timestamp: int
    append_time: bool


class RecordBatch(Sequence[Record]):
    """Records of one partition, in offset order.

    Attributes
    ----------
    data : uint8, shape (b,); the buffer
    key_at, key_size, value_at, value_size : int32, shape (n,); places in `data`; a size of -1: there is none
    offsets, timestamps : int64, shape (n,)
    """

    __slots__ = ("_buffer", "data", "key_at", "key_size", "offsets", "timestamps", "value_at", "value_size")

    def __init__(self, buffer: bytes, places: NDArray[np.int32], stamps: NDArray[np.int64]) -> None:
        """Take columns as rows of two arrays, shapes (4, n) and (2, n)."""
        self._buffer = buffer
        self.data = np.frombuffer(buffer, np.uint8)
        self.key_at, self.key_size, self.value_at, self.value_size = places
        self.offsets, self.timestamps = stamps

    @classmethod
    def of(cls, records: "Sequence[RecordLike] | RecordBatch") -> "RecordBatch":
        """Lay single records side by side; a batch is returned as it is."""
        if isinstance(records, RecordBatch):
            return records
        return cls.of_columns(
            [record.key for record in records],
            [record.value for record in records],
            [record.offset for record in records],
            [record.timestamp for record in records],
        )

    @classmethod
    def of_columns(
        cls,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        offsets: Sequence[int],
        timestamps: Sequence[int],
    ) -> "RecordBatch":
        """Lay records side by side, given by column, all as long."""
        parts: list[bytes | None] = [None] * (2 * len(keys))
        parts[::2], parts[1::2] = keys, values
        sizes = np.array([-1 if part is None else len(part) for part in parts], np.int64)
        ends = np.cumsum(np.maximum(sizes, 0))
        places = np.stack((ends - np.maximum(sizes, 0), sizes), axis=1).reshape(-1, 4).T.astype(np.int32)
        stamps = np.array([offsets, timestamps], np.int64).reshape(2, len(keys))
        return cls(b"".join([part for part in parts if part]), np.ascontiguousarray(places), stamps)

    @classmethod
    def joined(cls, batches: "Sequence[RecordBatch]") -> "RecordBatch":
        """Batches made by `of`, or slices of them, as one; a single one is returned as it is."""
        if len(batches) == 1:
            return batches[0]
        buffers, places, end = [], [], 0
        for batch in batches:
            if not len(batch):
                continue
            # Their bytes lie side by side, in order.
            start = int(batch.key_at[0])
            stop = int(batch.value_at[-1]) + max(0, int(batch.value_size[-1]))
            shift = end - start
            places.append(np.stack((batch.key_at + shift, batch.key_size, batch.value_at + shift, batch.value_size)))
            buffers.append(batch._buffer[start:stop])
            end += stop - start
        if not buffers:
            return cls.of(())
        stamps = np.stack(
            (
                np.concatenate([batch.offsets for batch in batches]),
                np.concatenate([batch.timestamps for batch in batches]),
            )
        )
        return cls(b"".join(buffers), np.concatenate(places, axis=1).astype(np.int32), stamps)

    @classmethod
    def read(cls, stretches: Sequence[Stretch]) -> "RecordBatch":
        """Find the records of consecutive batches of the log. Raises TornBatch."""
        buffer = b"".join([stretch.payload for stretch in stretches])
        ends = np.cumsum(np.array([len(stretch.payload) for stretch in stretches], np.int64))
        heads = np.array([(s.records, s.base_offset, s.timestamp, s.append_time) for s in stretches], np.int64).reshape(
            len(stretches), 4
        )
        if len(buffer) > MAX_BYTES:
            raise TornBatch(f"{len(buffer)} bytes in one fetch, at most {MAX_BYTES} can be addressed")
        # Each record has six bytes of lengths and deltas at least: a count beyond that is no reason to ask for memory.
        n = int(heads[:, 0].sum()) if len(heads) else 0
        if len(heads) and (heads[:, 0].min() < 0 or n > len(buffer)):
            raise TornBatch(f"{n} records in {len(buffer)} bytes")
        places, stamps = np.empty((4, n), np.int32), np.empty((2, n), np.int64)
        torn = _read(np.frombuffer(buffer, np.uint8), ends, heads, places, stamps)
        if torn >= 0:
            raise TornBatch(f"a record's lengths contradict each other at byte {torn} of {len(buffer)}")
        return cls(buffer, places, stamps)

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> "RecordBatch": ...
    def __getitem__(self, place: "int | slice") -> "Record | RecordBatch":
        if isinstance(place, slice):
            places = np.stack((self.key_at[place], self.key_size[place], self.value_at[place], self.value_size[place]))
            return RecordBatch(self._buffer, places, np.stack((self.offsets[place], self.timestamps[place])))
        i = index(place)  # a TypeError for anything else, as of a list: Faust tries names
        return Record(self.key(i), self.value(i), int(self.offsets[i]), int(self.timestamps[i]))

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def key(self, i: int) -> bytes | None:
        """Key of record `i`."""
        return self._cut(int(self.key_at[i]), int(self.key_size[i]))

    def value(self, i: int) -> bytes | None:
        """Value of record `i`."""
        return self._cut(int(self.value_at[i]), int(self.value_size[i]))

    def texts(self, at: NDArray[np.int32], sizes: NDArray[np.int32]) -> list[bytes]:
        """Pieces of the buffer; int32, shapes (m,)."""
        buffer = self._buffer
        return [buffer[start:end] for start, end in zip(at.tolist(), (at + np.maximum(sizes, 0)).tolist(), strict=True)]

    def text(self, at: int, size: int) -> str:
        """A piece of the buffer that is known to be UTF-8."""
        return self._buffer[at : at + size].decode()

    def keys(self) -> list[bytes | None]:
        """Keys of all records."""
        return [self.key(i) for i in range(len(self))]

    def where(self, chosen: NDArray[np.bool_]) -> "RecordBatch":
        """Some of the records; bool, shape (n,)."""
        places = np.stack((self.key_at, self.key_size, self.value_at, self.value_size))[:, chosen]
        return RecordBatch(self._buffer, places, np.stack((self.offsets, self.timestamps))[:, chosen])

    def before(self, offset: int) -> "RecordBatch":
        """Records below `offset`."""
        return self[: int(np.searchsorted(self.offsets, offset))]

    def since(self, offset: int) -> "RecordBatch":
        """Records at or above `offset`; itself if that is all."""
        first = int(np.searchsorted(self.offsets, offset))
        return self[first:] if first else self

    def _cut(self, at: int, size: int) -> bytes | None:
        return None if size < 0 else self._buffer[at : at + size]


_bytes = types.Array(types.uint8, 1, "C", readonly=True)


@numba.njit(
    types.int64(_bytes, types.int64[::1], types.int64[:, ::1], types.int32[:, ::1], types.int64[:, ::1]),
    cache=True, nogil=True, error_model="numpy",
)  # fmt: skip
def _read(data: Any, ends: Any, heads: Any, places: Any, stamps: Any) -> int:
    """Fill the columns; returns -1, or the byte at which the lengths are wrong.

    A record: its length, attributes (1 byte), delta of time, delta of offset, key, value, headers. All numbers are zigzag
    varints; the headers are passed over.
    """
    done = 0
    start = 0
    for s in range(ends.shape[0]):
        at = start
        end = ends[s]
        for _ in range(heads[s, 0]):
            numbers = np.zeros(5, np.int64)  # length, time, offset, key's size, value's size
            record_end = end
            for field in range(5):
                value = np.uint64(0)
                shift = np.uint64(0)
                while True:
                    if at >= record_end or shift > np.uint64(63):
                        return at
                    byte = data[at]
                    at += 1
                    value |= np.uint64(byte & 0x7F) << shift
                    shift += np.uint64(7)
                    if byte < 0x80:
                        break
                number: Any = np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))
                numbers[field] = number
                if field == 0:
                    if number < 0 or number > end - at:
                        return at
                    record_end = at + number
                    at += 1  # the attributes, of which none is in use
                elif field >= 3:
                    if number < -1 or number > record_end - at:
                        return at
                    places[2 * (field - 3), done] = at
                    places[2 * (field - 3) + 1, done] = number
                    if number > 0:
                        at += number
            stamps[0, done] = heads[s, 1] + numbers[2]
            stamps[1, done] = heads[s, 2] if heads[s, 3] else heads[s, 2] + numbers[1]
            done += 1
            at = record_end
        if at != end:
            return at
        start = end
    return -1

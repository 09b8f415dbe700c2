"""All videos that this worker knows, as dense arrays by row: the models' columns, the catalogue, counters and flags.

Flows in: rows read from a store or a changelog, evidence, catalogue records. Flows out: what the models score and what a
checkpoint writes. Always holds: a row number belongs to one video until `drop`, and a dropped row is free again only after
`recycle`, when no buffer can still name it. Bound: `capacity` rows; a video beyond it is refused with StateFull.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from online_models.base import ItemModel
from state.codes import CodeTable
from state.errors import StateFull
from state.growth import LEAST, grown_size
from state.types import AnyArray, BoolArray, Int32Array, Int64Array, UInt8Array, UInt64Array
from state.users import KINDS
from topics.catalog import Video
from topics.partitions import partition_of, stable_hash

S = TypeVar("S", bound=np.generic)

#: The columns of the factorization that travel as steps.
FACTOR_COLUMNS = ("q", "b", "acc")


class _Packed(Video, frozen=True, array_like=True, omit_defaults=False):
    """A video as it lies in memory: without the names of its fields."""


def _pack(video: Video) -> bytes:
    return _encode(_Packed(*msgspec.structs.astuple(video)))


_encode = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Packed).decode


def video_code(video_id: str) -> int:
    """The hash that names a video in rows: even (a seen set keeps a flag in the low bit), and never 0 (which means none)."""
    return (stable_hash(video_id) & ~1) or 2


def _grown(old: "NDArray[S]", size: int, fill: int = 0) -> "NDArray[S]":
    fresh = np.full((size, *old.shape[1:]), fill, old.dtype)
    fresh[: len(old)] = old
    return fresh


@njit(types.void(types.int32[:, ::1], types.int32[::1], types.uint8[::1]), cache=True, nogil=True)
def _count(counts: Int32Array, rows: Int32Array, kinds: UInt8Array) -> None:
    for e in range(rows.shape[0]):
        counts[rows[e], kinds[e]] += 1


class Replica:
    """Rows of videos.

    Parameters
    ----------
    models : by name; the replica resizes them together and gives a new row its prior
    capacity : the largest number of videos
    partitions : how many shards there are
    clock_step_ms : how far one positive may move the clock by which decayed counts are read
    """

    def __init__(self, models: Mapping[str, ItemModel], *, capacity: int, partitions: int, clock_step_ms: int) -> None:
        self.models = dict(models)
        self.capacity = capacity
        self.partitions = partitions
        self._clock_step_ms = clock_step_ms
        self._row_of: dict[str, int] = {}
        self._codes = CodeTable()
        self.ids: list[str | None] = []
        #: Catalogue records, packed: as objects they would take three times the memory.
        self._videos: list[bytes | None] = []
        self._free: list[int] = []
        self._quarantine: list[int] = []
        #: About the event time of the latest positive applied (see `advance`): a replayed log is read in its own time.
        self.stream_ms = 0
        self._size = 0
        #: (size,) the video's hash; the shard that owns it, -1 while only its hash is known; accepted events by kind
        self.hashes: UInt64Array = np.zeros(0, np.uint64)
        self.partition: Int32Array = np.zeros(0, np.int32)
        self.counts: Int32Array = np.zeros((0, KINDS), np.int32)
        #: (size,) may be recommended: its id is known and it is neither hidden nor deleted
        self.active: BoolArray = np.zeros(0, np.bool_)
        #: (size,) the catalogue has deleted it; events for it teach nothing until it is published again
        self.deleted: BoolArray = np.zeros(0, np.bool_)
        #: (size,) it has expired: as if never learned of, until the next event or description; its record stays
        self.expired: BoolArray = np.zeros(0, np.bool_)
        #: (size,) it has come back after it had expired
        self.returned: BoolArray = np.zeros(0, np.bool_)
        #: (size,) the latest day of an event or description, 0 where videos do not expire
        self.touched: Int32Array = np.zeros(0, np.int32)
        #: (size,) its id or its record has changed since `state.search` has read them
        self.unread: BoolArray = np.zeros(0, np.bool_)
        self._active_rows: Int32Array | None = None
        self.base: dict[str, AnyArray] = {}
        self._resize(1024)

    def _resize(self, size: int) -> None:
        size = min(size, self.capacity)
        self.hashes = _grown(self.hashes, size)
        self.partition = _grown(self.partition, size, -1)
        self.counts = _grown(self.counts, size)
        self.active = _grown(self.active, size)
        self.deleted = _grown(self.deleted, size)
        self.expired = _grown(self.expired, size)
        self.returned = _grown(self.returned, size)
        self.touched = _grown(self.touched, size)
        self.unread = _grown(self.unread, size)
        for model in self.models.values():
            model.resize(size)
        #: What the owner of each row has applied. The factors that are served (the model's own columns) are these plus the steps
        #: that this worker has learned and whose evidence block has not come back yet.
        served = self.models["sequential_mf"].columns
        self.base = {name: _grown(self.base.get(name, served[name][:0]), size) for name in FACTOR_COLUMNS}
        self._size = size

    def __len__(self) -> int:
        """Rows in use or once used: every row number is below it."""
        return len(self.ids)

    def find(self, video_id: str) -> int | None:
        """The video's row, or None; creates nothing."""
        return self._row_of.get(video_id)

    def knows(self, video_id: str) -> bool:
        """Whether the video has a row, if only as a placeholder of its hash."""
        return self._row_of_code(video_code(video_id)) >= 0

    def _row_of_code(self, code: int) -> int:
        return int(self._codes.find(self.hashes, np.array([code], np.uint64))[0])

    def row_of(self, video_id: str) -> int:
        """The video's row, created from the priors if it is new. Raises StateFull at the capacity."""
        row = self._row_of.get(video_id)
        return int(self.rows_of((video_id,))[0]) if row is None else row

    def rows_of(self, video_ids: Sequence[str]) -> Int32Array:
        """The videos' rows, int32, shape (m,), new ones created together.

        Raises
        ------
        StateFull
            At the capacity; videos before the one that found no room have their rows.
        """
        rows = [self._row_of.get(video_id, -1) for video_id in video_ids]
        if -1 in rows:
            self._expect(rows.count(-1))
            fresh: list[int] = []
            try:
                rows = [
                    self._name(video_id, fresh) if row < 0 else row
                    for video_id, row in zip(video_ids, rows, strict=True)
                ]
            finally:
                self._start(fresh)
        return np.array(rows, np.int32)

    def _name(self, video_id: str, fresh: list[int]) -> int:
        """Give the video a row; one that the caller has to `_start` is appended to `fresh`."""
        row = self._row_of.get(video_id)
        if row is not None:  # named twice
            return row
        code = video_code(video_id)
        row = self._row_of_code(code)
        if row < 0:
            row = self._take(code, fresh)
        elif self.ids[row] is not None:
            # Two ids with one 64-bit hash: they share the row (one chance in 10^6 at ten million videos).
            self._row_of[video_id] = row
            return row
        self._row_of[video_id] = row
        self.ids[row] = video_id
        self.unread[row] = True
        self.partition[row] = partition_of(video_id.encode(), self.partitions)
        self._allow(row, not (self.deleted[row] or self.expired[row]))
        return row

    def named_rows(self, hashes: UInt64Array) -> Int32Array:
        """Rows of videos by the `stable_hash` of their ids; int32, -1 where there is none or its id has not come; creates none."""
        codes = hashes & ~np.uint64(1)
        codes[codes == 0] = 2
        rows = self._codes.find(self.hashes, codes)
        rows[self.partition[rows] < 0] = -1
        return rows

    def find_codes(self, codes: UInt64Array) -> Int32Array:
        """Rows (int32) of those of the hashes (of any low bit) that are known; creates nothing."""
        rows = self._codes.find(self.hashes, codes & ~np.uint64(1))
        known: Int32Array = rows[rows >= 0]
        return known

    def rows_of_hashes(self, codes: UInt64Array) -> Int32Array:
        """Rows of videos named by their hashes, -1 for 0; shape as given.

        An unknown one becomes a placeholder, not recommendable, until its id arrives. Raises StateFull at the capacity.
        """
        rows = self._codes.find(self.hashes, codes.ravel())
        unknown = np.flatnonzero((rows < 0) & (codes.ravel() != 0))
        if len(unknown):
            self._expect(len(unknown))
            fresh: list[int] = []
            taken: dict[int, int] = {}
            try:
                for place in unknown.tolist():
                    code = int(codes.ravel()[place])
                    if code not in taken:
                        taken[code] = self._take(code, fresh)
                    rows[place] = taken[code]
            finally:
                self._start(fresh)
        return rows.reshape(codes.shape)

    def _expect(self, more: int) -> None:
        """Have room for many new rows at once, rather than growing for them again and again."""
        if more > LEAST and len(self.ids) + more > self._size:
            self._resize(len(self.ids) + more)

    def _take(self, code: int, fresh: list[int]) -> int:
        if self._free:
            row = self._free.pop()
            self.ids[row] = None
        else:
            row = len(self.ids)
            if row >= self.capacity:
                raise StateFull(f"the catalogue holds {self.capacity} videos: raise HEADRACE_MAX_VIDEOS")
            if row >= self._size:
                self._resize(grown_size(self._size))
            self.ids.append(None)
            self._videos.append(None)
        self.hashes[row] = code
        self._codes.add(self.hashes, np.array([row], np.int32))
        fresh.append(row)
        return row

    def _start(self, fresh: Sequence[int]) -> None:
        """Give rows the prior of every model."""
        if not fresh:
            return
        rows = np.array(fresh, np.int32)
        for model in self.models.values():
            model.admit(rows, self.hashes[rows])
        for name, base in self.base.items():
            base[rows] = self.models["sequential_mf"].columns[name][rows]

    def _allow(self, row: int, active: bool) -> None:
        """Say whether the row may be recommended; `active` is written nowhere else."""
        self.active[row] = active
        self._active_rows = None

    def video(self, row: int) -> Video | None:
        """What the catalogue says of the row's video, None if nothing."""
        packed = self._videos[row]
        return None if packed is None else _unpack(packed)

    def described(self, row: int) -> bool:
        """Whether the catalogue says anything of it."""
        return self._videos[row] is not None

    def publish(self, video_id: str, video: Video) -> int:
        """Put a catalogue record on its row."""
        row = self.row_of(video_id)
        self._videos[row] = _pack(video)
        self.unread[row] = True
        self.deleted[row] = False
        self._return(row)
        self._allow(row, not video.hidden)
        return row

    def _return(self, row: int) -> None:
        self.returned[row] |= self.expired[row]
        self.expired[row] = False

    def bring_back(self, row: int) -> None:
        """An expired video of which the catalogue says nothing is met again."""
        self._return(row)
        self._allow(row, True)

    def mark_deleted(self, video_id: str) -> int:
        """Remember that the catalogue deleted the video, and forget all that was learned about it."""
        known = self.knows(video_id)
        row = self.row_of(video_id)
        self.deleted[row] = True
        self.expired[row] = self.returned[row] = False
        self._allow(row, False)
        if known:
            self._videos[row] = None
            self._unlearn(np.array([row], np.int32))
        return row

    def expire(self, rows: Int32Array) -> None:
        """Forget what was learned about the videos in `rows` (int32, shape (m,)), and recommend them no more; records stay."""
        self.expired[rows] = True
        for row in rows.tolist():
            self._allow(row, False)
        self._unlearn(rows)

    def _unlearn(self, rows: Int32Array) -> None:
        self.unread[rows] = True
        self.counts[rows] = 0
        self.touched[rows] = 0
        for model in self.models.values():
            model.forget(rows)
        self._start(rows.tolist())

    def drop(self, row: int) -> None:
        """Let go of a row altogether (its shard moved away, or its deletion mark expired)."""
        video_id = self.ids[row]
        if video_id is not None:
            self._row_of.pop(video_id, None)
        self._codes.drop(self.hashes, row)
        self.ids[row] = None
        self._videos[row] = None
        self.unread[row] = True
        self.deleted[row] = self.expired[row] = self.returned[row] = False
        self._allow(row, False)
        self.counts[row] = 0
        self.touched[row] = 0
        self.partition[row] = -1
        for model in self.models.values():
            model.forget(np.array([row], np.int32))
        self._quarantine.append(row)

    def recycle(self) -> None:
        """Free the rows dropped so far; call when no buffer names them any more."""
        self._free += self._quarantine
        self._quarantine = []

    def rows_in(self, partition: int) -> Int32Array:
        """Rows that the shard owns; int32, ascending."""
        return np.flatnonzero(self.partition[: len(self)] == partition).astype(np.int32)

    def serve_base(self, partition: int) -> None:
        """Serve the shard's factors as their owner has applied them, without steps of this worker that are under way."""
        rows = self.rows_in(partition)
        for name, base in self.base.items():
            self.models["sequential_mf"].columns[name][rows] = base[rows]

    def advance(self, at_ms: Int64Array) -> None:
        """Let positives at these event times (int64 ms, shape (m,), in any order) move the clock."""
        for time_ms in np.sort(at_ms).tolist():
            reached = min(time_ms, self.stream_ms + self._clock_step_ms) if self.stream_ms else time_ms
            self.stream_ms = max(self.stream_ms, reached)

    def count(self, rows: Int32Array, kinds: UInt8Array) -> None:
        """Count an event of each of `kinds` (uint8, shape (m,)) for each of `rows` (int32, shape (m,))."""
        _count(self.counts, rows, np.ascontiguousarray(kinds))

    def active_rows(self) -> Int32Array:
        """Rows that may be recommended; int32, ascending; not to be changed by the caller."""
        if self._active_rows is None:
            self._active_rows = np.flatnonzero(self.active[: len(self)]).astype(np.int32)
        return self._active_rows

    def ids_of(self, rows: Iterable[int]) -> list[str]:
        """Ids of rows that have one; a placeholder raises KeyError."""
        out = []
        for row in rows:
            video_id = self.ids[row]
            if video_id is None:
                raise KeyError(row)
            out.append(video_id)
        return out

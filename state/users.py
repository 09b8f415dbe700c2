"""The users whose state is in memory: dense arrays by slot, filled from the store on first touch.

Flows in: accepted events, as arrays of slots, rows and hashes. Flows out: what each event was (first positive, signal, repeat,
duplicate) and the history that its learner needs. Always holds: a slot that is dirty or pinned is never evicted, so nothing
that is not yet in a committed checkpoint can be lost; a user's event ids, history and seen set have fixed bounds.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from state.errors import StateFull
from state.expiry import DAY_MS
from state.growth import grown_size
from state.types import AnyArray, BoolArray, Float32Array, Int32Array, Int64Array, UInt8Array, UInt64Array
from topics.evidence import SEGMENT_WORDS

#: Latest positives kept a user, newest first; the models look no further back (models.md, co-visitation).
HISTORY = 20
#: Event ids kept a user to catch redelivery by producers: a retry arrives within a few events of the first try.
RECENT_IDS = 32
#: Videos a user has seen. The oldest is forgotten first; at 8 bytes each this bounds a user at 16 KiB.
SEEN_MAX = 2048
#: Videos kept a user that they went on from without liking them, newest first.
PASSED = 8
#: First positives of a user in an hour of event time that teach the models which all users share; the rest count for the user
#: alone. People stay far below, and a bot of 100,000 likes an hour weighs as much as a busy person.
HOURLY_MAX = 1_000
HOUR_MS = 3_600_000
#: Kinds of event counted a user and a video; the last is `topics.evidence.SHOWN`, and one is free for a new kind.
KINDS = 12

#: What `admit` says of an event.
POSITIVE, SIGNAL, IGNORED, DUPLICATE = 0, 1, 2, 3

#: How an event's kind acts on the user; the table itself is `topics.signals`.
ACT_NONE, ACT_SEEN, ACT_NEGATIVE, ACT_UNDO = 0, 1, 2, 3


@njit(cache=True, nogil=True)
def _remember(
    pool: UInt64Array,
    top: Int64Array,
    offset: Int64Array,
    length: Int32Array,
    room: Int32Array,
    slot: int,
    value: np.uint64,
) -> bool:
    """Append `value` to the slot's seen set; False where the pool has no room for the larger chunk that it needs."""
    n = length[slot]
    if n == room[slot]:
        if n >= SEEN_MAX:
            start = offset[slot]
            for i in range(n - 1):
                pool[start + i] = pool[start + i + 1]
            pool[start + n - 1] = value
            return True
        larger = min(max(4, n + n // 2), SEEN_MAX)
        if top[0] + larger > pool.shape[0]:
            return False
        start = offset[slot]
        for i in range(n):
            pool[top[0] + i] = pool[start + i]
        offset[slot] = top[0]
        room[slot] = larger
        top[0] += larger
    pool[offset[slot] + n] = value
    length[slot] = n + 1
    return True


@njit(cache=True, nogil=True)
def _pack(pool: UInt64Array, into: UInt64Array, offset: Int64Array, starts: Int64Array, length: Int32Array) -> None:
    """Copy each slot's entries to where they start in another pool."""
    for slot in range(starts.shape[0]):
        for i in range(length[slot]):
            into[starts[slot] + i] = pool[offset[slot] + i]


@njit(cache=True, nogil=True)
def _forget_row(history: Int32Array, slot: int, row: int) -> bool:
    """Take `row` out of the slot's list, closing the gap; True if it was there."""
    kept = 0
    found = False
    for i in range(history.shape[1]):
        if history[slot, i] == row:
            found = True
        else:
            history[slot, kept] = history[slot, i]
            kept += 1
    for i in range(kept, history.shape[1]):
        history[slot, i] = -1
    return found


@njit(cache=True, nogil=True)
def _put_first(history: Int32Array, slot: int, row: int) -> None:
    """Put `row` at the head of the slot's list, from wherever it was."""
    _forget_row(history, slot, row)
    for i in range(history.shape[1] - 1, 0, -1):
        history[slot, i] = history[slot, i - 1]
    history[slot, 0] = row


@njit(cache=True, nogil=True)
def _admit(
    first: int,
    slots: Int32Array,
    rows: Int32Array,
    items: UInt64Array,
    event_ids: UInt64Array,
    kinds: UInt8Array,
    acts: UInt8Array,
    positive: UInt8Array,
    at_ms: Int64Array,
    history: Int32Array,
    recent: UInt64Array,
    recent_at: Int32Array,
    counts: Int32Array,
    last_ms: Int64Array,
    pool: UInt64Array,
    top: Int64Array,
    offset: Int64Array,
    length: Int32Array,
    room: Int32Array,
    alive: BoolArray,
    open_row: Int32Array,
    open_liked: UInt8Array,
    open_in: Int64Array,
    batch: int,
    passed: Int32Array,
    hour: Int32Array,
    in_hour: Int32Array,
    outcome: UInt8Array,
    histories: Int32Array,
    passes: Int32Array,
    came: BoolArray,
    before: BoolArray,
    damped: BoolArray,
) -> int:
    """Apply events `first`.. in order; returns how many are done, fewer than all when the seen pool must grow.

    The low bit of a seen entry says that the pair had its first positive; the other 63 are the video's hash.
    """
    for e in range(first, slots.shape[0]):
        slot = slots[e]
        duplicate = False
        for i in range(RECENT_IDS):
            if recent[slot, i] == event_ids[e]:
                duplicate = True
        if duplicate:
            outcome[e] = DUPLICATE
            continue
        mark = items[e]
        entry = -1
        for i in range(length[slot]):
            if (pool[offset[slot] + i] & ~np.uint64(1)) == mark:
                entry = offset[slot] + i
                break
        if entry < 0 and (positive[e] or acts[e] == ACT_SEEN or acts[e] == ACT_NEGATIVE):
            flag = np.uint64(1) if positive[e] else np.uint64(0)
            if not _remember(pool, top, offset, length, room, slot, mark | flag):
                return e
            outcome[e] = POSITIVE if positive[e] else SIGNAL
        elif positive[e]:
            outcome[e] = IGNORED if pool[entry] & np.uint64(1) else POSITIVE
            pool[entry] |= np.uint64(1)
        elif acts[e] == ACT_UNDO:
            outcome[e] = IGNORED
            if entry >= 0 and pool[entry] & np.uint64(1):
                pool[entry] &= ~np.uint64(1)
                outcome[e] = SIGNAL
            _forget_row(history, slot, rows[e])
        elif acts[e] == ACT_NEGATIVE:
            outcome[e] = SIGNAL if _forget_row(history, slot, rows[e]) else IGNORED
        else:
            outcome[e] = IGNORED
        recent[slot, recent_at[slot]] = event_ids[e]
        recent_at[slot] = (recent_at[slot] + 1) % RECENT_IDS
        counts[slot, kinds[e]] += 1
        if alive[e]:
            if open_row[slot] != rows[e]:
                if open_row[slot] >= 0 and not open_liked[slot]:
                    _put_first(passed, slot, open_row[slot])
                open_row[slot], open_liked[slot], open_in[slot] = rows[e], 0, batch
                came[e] = True
            before[e] = open_in[slot] != batch
            if positive[e]:
                open_liked[slot] = 1
                _forget_row(passed, slot, rows[e])
            if came[e]:
                for i in range(HISTORY):
                    histories[e, i] = history[slot, i]
                for i in range(PASSED):
                    passes[e, i] = passed[slot, i]
        if at_ms[e] > last_ms[slot]:
            last_ms[slot] = at_ms[e]
        if outcome[e] == POSITIVE:
            # The clock does not run backwards: a time in the past begins no new hour.
            if at_ms[e] // HOUR_MS > hour[slot]:
                hour[slot], in_hour[slot] = at_ms[e] // HOUR_MS, 0
            in_hour[slot] += 1
            damped[e] = in_hour[slot] > HOURLY_MAX
            for i in range(HISTORY):
                histories[e, i] = history[slot, i]
            for i in range(PASSED):
                passes[e, i] = passed[slot, i]
            _put_first(history, slot, rows[e])
        elif outcome[e] == SIGNAL and acts[e] == ACT_NEGATIVE:
            _forget_row(history, slot, rows[e])
    return int(slots.shape[0])


class Admitted(NamedTuple):
    """What became of m events.

    Attributes
    ----------
    outcome : uint8, shape (m,); POSITIVE, SIGNAL, IGNORED or DUPLICATE
    histories : int32, shape (m, HISTORY); the history before a positive, and before the user came to a video; -1 elsewhere
    passes : int32, shape (m, PASSED); likewise what the user had passed over
    came : bool, shape (m,); the user came to the video with this event: it was shown to them
    before : bool, shape (m,); they had come to it before this batch
    damped : bool, shape (m,); a positive beyond HOURLY_MAX
    """

    outcome: UInt8Array
    histories: Int32Array
    passes: Int32Array
    came: BoolArray
    before: BoolArray
    damped: BoolArray


class Users:
    """Slots of the users in memory, at most `capacity`; the rest live in the stores.

    Parameters
    ----------
    capacity : the bound; when it is reached, the least recently used clean slots go (a tenth at a time)
    k : width of the factor vector
    load : reads a user into a fresh slot by calling `install`; returns False if the store has no such user
    """

    def __init__(self, capacity: int, k: int, load: Callable[["Users", bytes, int], bool] | None = None) -> None:
        self.capacity = capacity
        self.k = k
        self._load = load
        #: By id as UTF-8, which is what the key of a record is.
        self._slot_of: dict[bytes, int] = {}
        self._ids: list[bytes | None] = []
        self._free: list[int] = []
        self._clock = 0
        self._batch = 0
        #: Slots that may not be evicted.
        self.pinned = 0
        self._allocate(min(1024, capacity))
        self.seen_pool = np.zeros(16_384, np.uint64)
        self._seen_top = np.zeros(1, np.int64)

    def _allocate(self, size: int) -> None:
        def grown(name: str, shape: tuple[int, ...], dtype: type, fill: float = 0) -> None:
            fresh: AnyArray = np.full((size, *shape), fill, dtype)
            old = getattr(self, name, None)
            if old is not None:
                fresh[: len(old)] = old
            setattr(self, name, fresh)

        grown("p", (self.k,), np.float32)
        grown("pacc", (), np.float32)
        grown("history", (HISTORY,), np.int32, -1)
        grown("open_row", (), np.int32, -1)
        grown("open_liked", (), np.uint8)
        grown("hour", (), np.int32)
        grown("in_hour", (), np.int32)
        grown("open_in", (), np.int64)
        grown("open_shown", (2,), np.float32, np.nan)
        grown("passed", (PASSED,), np.int32, -1)
        grown("recent", (RECENT_IDS,), np.uint64)
        grown("recent_at", (), np.int32)
        grown("counts", (KINDS,), np.int32)
        grown("last_ms", (), np.int64)
        grown("touched", (), np.int32)
        grown("offset", (), np.int64)
        grown("seen_offset", (), np.int64)
        grown("seen_length", (), np.int32)
        grown("seen_room", (), np.int32)
        grown("used_at", (), np.int64)
        grown("pins", (), np.int32)
        grown("partition", (), np.int32, -1)
        grown("awaited", (), np.uint8)
        grown("segments", (SEGMENT_WORDS,), np.uint64)
        grown("erased_ms", (), np.int64, -1)

    p: Float32Array  #: (capacity, k) factors
    pacc: Float32Array  #: (capacity,) AdaGrad accumulators
    history: Int32Array  #: (capacity, HISTORY) rows in the replica, newest first, -1 for none
    open_row: Int32Array  #: (capacity,) the video that the latest events are about, -1 for none
    open_liked: UInt8Array  #: (capacity,) whether one of them was positive
    hour: Int32Array  #: (capacity,) the latest hour of a first positive, since 1970
    in_hour: Int32Array  #: (capacity,) first positives since it began
    open_in: Int64Array  #: (capacity,) number of the batch in which they came to it
    open_shown: Float32Array  #: (capacity, 2) what `Popularity.shown_features` said of it then, NaN if not known
    passed: Int32Array  #: (capacity, PASSED) videos passed over without liking them, newest first, -1 for none
    recent: UInt64Array  #: (capacity, RECENT_IDS) hashes of event ids, a ring
    recent_at: Int32Array  #: (capacity,) where the ring goes on
    counts: Int32Array  #: (capacity, KINDS) accepted events by kind
    last_ms: Int64Array  #: (capacity,) event time of the latest event
    touched: Int32Array  #: (capacity,) day of the shard's clock at the latest event, 0 where users do not expire
    offset: Int64Array  #: (capacity,) offset in `interactions` of the latest record applied, -1 for none
    seen_offset: Int64Array
    seen_length: Int32Array
    seen_room: Int32Array
    used_at: Int64Array
    pins: Int32Array
    partition: Int32Array  #: (capacity,) the shard that owns the user
    awaited: UInt8Array  #: (capacity,) exposures whose outcome is waited for
    erased_ms: Int64Array  #: (capacity,) events up to this time are not learned any more, -1 for none
    segments: UInt64Array  #: (capacity, SEGMENT_WORDS) bits of what `state.segments` makes of the attributes

    def __len__(self) -> int:
        return len(self._slot_of)

    @property
    def slots(self) -> int:
        """Slots in use or once used: every slot is below it."""
        return len(self._ids)

    def key_of(self, slot: int) -> bytes:
        """The id, as UTF-8, of the user in `slot`."""
        key = self._ids[slot]
        if key is None:
            raise KeyError(slot)
        return key

    def peek(self, user_id: str) -> int | None:
        """The user's slot if they are in memory; creates nothing."""
        return self.peek_key(user_id.encode())

    def peek_key(self, key: bytes) -> int | None:
        """`peek`, for an id as UTF-8."""
        return self._slot_of.get(key)

    def peek_many(self, keys: Sequence[bytes]) -> Int32Array:
        """Slots of users named by their ids as UTF-8; int32, -1 for those who are not in memory."""
        slot_of = self._slot_of.get
        return np.fromiter([slot_of(key, -1) for key in keys], np.int32, len(keys))

    def find(self, user_id: str, partition: int) -> int | None:
        """The user's slot, read from the store if needed; None for a user nobody knows, for whom nothing is created."""
        key = user_id.encode()
        slot = self._slot_of.get(key)
        if slot is None and self._load is not None:
            try:
                slot = self._take(key, partition)
                known = self._fill(key, slot)
            except StateFull:
                # Serving waits for no checkpoint: until there is room, they are served as a stranger.
                return None
            if not known:
                self.drop(slot)
                return None
        if slot is not None:
            self._clock += 1
            self.used_at[slot] = self._clock
        return slot

    def slot_of(self, user_id: str, partition: int) -> int:
        """The user's slot, created where the store has none. Raises StateFull if every slot is pinned."""
        return self.slot_of_key(user_id.encode(), partition)

    def slot_of_key(self, key: bytes, partition: int) -> int:
        """`slot_of`, for an id as UTF-8."""
        slot = self._slot_of.get(key)
        if slot is None:
            slot = self._take(key, partition)
            self._fill(key, slot)
        self._clock += 1
        self.used_at[slot] = self._clock
        return slot

    def _fill(self, key: bytes, slot: int) -> bool:
        """Read the user from the store; a slot that cannot be filled is let go, or it would pass for the user's state."""
        if self._load is None:
            return False
        try:
            return self._load(self, key, slot)
        except BaseException:
            self.drop(slot)
            raise

    def _take(self, key: bytes, partition: int) -> int:
        if not self._free and len(self._ids) >= self.capacity:
            self._evict()
        if self._free:
            slot = self._free.pop()
            self._ids[slot] = key
        else:
            slot = len(self._ids)
            if slot >= len(self.p):
                self._allocate(min(grown_size(len(self.p)), self.capacity))
            self._ids.append(key)
        self._slot_of[key] = slot
        self._reset(slot)
        self.partition[slot] = partition
        return slot

    def _reset(self, slot: int) -> None:
        for array in (
            self.p,
            self.pacc,
            self.open_liked,
            self.hour,
            self.in_hour,
            self.recent,
            self.recent_at,
            self.counts,
            self.last_ms,
            self.touched,
            self.pins,
            self.awaited,
            self.segments,
        ):
            array[slot] = 0
        self.history[slot] = -1
        self.passed[slot] = -1
        self.open_row[slot] = -1
        self.open_in[slot] = 0
        self.open_shown[slot] = np.nan
        self.offset[slot] = -1
        self.erased_ms[slot] = -1
        # The chunk stays with the slot: its next user fills it again.
        self.seen_length[slot] = 0

    def _evict(self) -> None:
        clean = np.flatnonzero(self.pins[: len(self._ids)] == 0)
        clean = clean[[self._ids[slot] is not None for slot in clean]]
        if not len(clean):
            raise StateFull(
                f"all {self.capacity} user slots wait for a checkpoint: raise HEADRACE_MAX_USERS or lower"
                " HEADRACE_CHECKPOINT_INTERVAL_MS"
            )
        count = max(1, self.capacity // 10)
        oldest = clean[np.argsort(self.used_at[clean], kind="stable")[:count]]
        for slot in oldest.tolist():
            self.drop(slot)

    def drop(self, slot: int) -> None:
        """Forget a user's slot (evicted, revoked or deleted); the store is not touched."""
        del self._slot_of[self.key_of(slot)]
        self.pinned -= int(self.pins[slot] > 0)
        self.pins[slot] = 0
        self._ids[slot] = None
        self.partition[slot] = -1
        self._free.append(slot)

    def erase(self, slot: int, erased_ms: int) -> None:
        """Forget what was learned of the user in `slot`, who stays there if they wait for a checkpoint."""
        pins, segments = int(self.pins[slot]), self.segments[slot].copy()
        self._reset(slot)
        self.segments[slot], self.erased_ms[slot] = segments, erased_ms
        start = self.seen_offset[slot]
        self.seen_pool[start : start + self.seen_room[slot]] = 0
        if pins:
            self.pins[slot] = pins
        else:
            self.drop(slot)

    def expired(self, partition: int, horizon: int) -> Int32Array:
        """Slots of the shard's users whose latest event is of a day before `horizon`; int32, ascending."""
        n = len(self._ids)
        days = np.maximum(self.touched[:n], self.last_ms[:n] // DAY_MS)
        old = (self.partition[:n] == partition) & (days > 0) & (days < horizon)
        return np.flatnonzero(old).astype(np.int32)

    def drop_partition(self, partition: int) -> None:
        """Forget every user of a shard that moved to another worker."""
        for slot in np.flatnonzero(self.partition[: len(self._ids)] == partition).tolist():
            self.drop(slot)

    def latest(self, n: int) -> list[bytes]:
        """Ids, as UTF-8, of up to `n` users in memory, those used last first. Cost: about 3 ms for a million users."""
        held = len(self._ids)
        used = np.where(self.partition[:held] >= 0, self.used_at[:held], -1)
        slots = np.argpartition(used, held - n)[held - n :] if held > n else np.arange(held)
        ordered = slots[np.argsort(-used[slots], kind="stable")].tolist()
        return [key for key in (self._ids[slot] for slot in ordered) if key is not None]

    def pin(self, slots: Int32Array | Sequence[int]) -> None:
        """Hold the slots, each named once, until `unpin`: their rows are in no committed checkpoint yet."""
        held = self.pins[slots]
        self.pinned += int((held == 0).sum())
        self.pins[slots] = held + 1

    def pin_one(self, slot: int) -> None:
        """`pin` of a single slot."""
        self.pinned += int(self.pins[slot] == 0)
        self.pins[slot] += 1

    def unpin(self, slots: Int32Array | Sequence[int]) -> None:
        """Let go of slots that `pin` held, each named once."""
        self._clock += 1
        slots = np.asarray(slots, np.int32)
        # A slot that was let go meanwhile holds nothing any more.
        slots = slots[self.pins[slots] > 0]
        self.pins[slots] -= 1
        self.pinned -= int((self.pins[slots] == 0).sum())
        self.used_at[slots] = self._clock

    def use(self, slots: Int32Array) -> None:
        """Note that the slots were used."""
        self._clock += 1
        self.used_at[slots] = self._clock

    def admit(
        self,
        slots: Int32Array,
        rows: Int32Array,
        items: UInt64Array,
        event_ids: UInt64Array,
        kinds: UInt8Array,
        acts: UInt8Array,
        positive: UInt8Array,
        at_ms: Int64Array,
        alive: BoolArray,
    ) -> "Admitted":
        """Apply events to their users in order.

        Parameters
        ----------
        slots, rows : int32, shape (m,); the user's slot and the video's row
        items, event_ids : uint64, shape (m,); hashes, those of videos even
        kinds, acts, positive : uint8, shape (m,); event kind, ACT_*, and whether it is a positive
        at_ms : int64, shape (m,)
        alive : bool, shape (m,); False for a video that the catalogue has deleted
        """
        m = len(slots)
        admitted = Admitted(
            np.zeros(m, np.uint8),
            np.full((m, HISTORY), -1, np.int32),
            np.full((m, PASSED), -1, np.int32),
            np.zeros(m, np.bool_),
            np.zeros(m, np.bool_),
            np.zeros(m, np.bool_),
        )
        self._batch += 1
        done = 0
        while True:
            done = int(_admit(
                done, slots, rows, items, event_ids, kinds, acts, positive, at_ms,
                self.history, self.recent, self.recent_at, self.counts, self.last_ms,
                self.seen_pool, self._seen_top, self.seen_offset, self.seen_length, self.seen_room,
                alive, self.open_row, self.open_liked, self.open_in, self._batch, self.passed, self.hour, self.in_hour,
                *admitted,
            ))  # fmt: skip
            if done == m:
                return admitted
            self._grow_seen(SEEN_MAX)

    def seen(self, slot: int) -> UInt64Array:
        """The user's seen set, oldest first: video hashes whose low bit says that the pair had its positive."""
        start = self.seen_offset[slot]
        return self.seen_pool[start : start + self.seen_length[slot]]

    def set_seen(self, slot: int, values: UInt64Array) -> None:
        """Replace the user's seen set, as read from a row."""
        if len(values) > self.seen_room[slot]:
            if self._seen_top[0] + len(values) > len(self.seen_pool):
                self._grow_seen(len(values))
            self.seen_offset[slot] = self._seen_top[0]
            self.seen_room[slot] = len(values)
            self._seen_top[0] += len(values)
        start = self.seen_offset[slot]
        self.seen_pool[start : start + len(values)] = values
        self.seen_length[slot] = len(values)

    def _grow_seen(self, needed: int) -> None:
        """Make room for `needed` more entries: pack the chunks in use into a new pool, an eighth larger than they are."""
        n = len(self._ids)
        rooms = self.seen_room[:n].astype(np.int64)
        used = int(rooms.sum())
        pool = np.zeros(grown_size(used + needed), np.uint64)
        starts = np.cumsum(rooms) - rooms
        _pack(self.seen_pool, pool, self.seen_offset, starts, self.seen_length)
        self.seen_offset[:n] = starts
        self.seen_pool = pool
        self._seen_top[0] = used

    def forget_rows(self, rows: Iterable[int]) -> list[int]:
        """Take deleted videos out of every history in memory; returns the slots that held one."""
        held = []
        for row in rows:
            named = (self.history == row).any(axis=1) | (self.passed == row).any(axis=1) | (self.open_row == row)
            for slot in np.flatnonzero(named & (self.partition >= 0)).tolist():
                _forget_row(self.history, slot, row)
                _forget_row(self.passed, slot, row)
                if self.open_row[slot] == row:
                    self.open_row[slot] = -1
                held.append(slot)
        return held

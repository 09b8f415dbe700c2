"""Evidence of one shard that waits to be sent, and how it is cut into blocks.

Flows in: what a micro-batch teaches about videos, by row. Flows out, at a checkpoint: blocks for the owners of the videos. Always
holds: an entry keeps its order among those of its kind, and a link goes once to each owner of what it names.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numba import njit, types

from online_models.factor_steps import FactorSteps
from state.replica import Replica
from state.types import AnyArray, BoolArray, Int32Array, Int64Array, UInt64Array
from topics.evidence import EVENT, FACTORS, LINK, STEP, EvidenceBlock

#: A block stays below a broker's default limit of 1 MB a record, its list of ids included.
BLOCK_BYTES = 600_000

_i32 = types.Array(types.int32, 1, "C", readonly=True)


@dataclass
class Pending:
    """Evidence learned since the last checkpoint, by row."""

    events: list[AnyArray] = field(default_factory=list)
    links: list[AnyArray] = field(default_factory=list)
    steps: FactorSteps = field(default_factory=FactorSteps)
    _listed_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """What is buffered; a checkpoint is due early when it grows."""
        return self._listed_bytes + self.steps.size_bytes

    def add_events(self, items: Int32Array, kinds: AnyArray, positive: AnyArray, at_ms: Int64Array) -> None:
        """Accepted events of videos; shapes (m,)."""
        packed = np.empty(len(items), EVENT)
        packed["item"], packed["kind"], packed["positive"], packed["at_ms"] = items, kinds, positive, at_ms
        self.events.append(packed)
        self._listed_bytes += packed.nbytes

    def add_links(self, items: Int32Array, histories: Int32Array, at_ms: Int64Array, segments: UInt64Array) -> None:
        """Users' first positives of videos, with their positives before and segments; shapes (m,), (m, HISTORY), (m,), (m, words)."""
        packed = np.empty(len(items), LINK)
        packed["item"], packed["history"], packed["at_ms"], packed["segments"] = items, histories, at_ms, segments
        self.links.append(packed)
        self._listed_bytes += packed.nbytes

    def blocks(self, replica: Replica, origin: bytes, sender: int) -> Iterator[tuple[int, EvidenceBlock]]:
        """Cut into blocks of at most BLOCK_BYTES, each for one target partition, as (partition, block)."""
        rows, sums = self.steps.peek()
        steps = np.empty(len(rows), STEP)
        steps["item"], steps["q"], steps["b"], steps["acc"] = (
            rows,
            sums[:, :FACTORS],
            sums[:, FACTORS],
            sums[:, FACTORS + 1],
        )
        yield from _fitting(
            _Entries(_joined(self.events, EVENT), _joined(self.links, LINK), steps), replica, origin, sender
        )

    def take(self, replica: Replica, origin: bytes, sender: int) -> list[tuple[int, bytes]]:
        """`blocks`, packed; nothing waits any more."""
        packed = [(target, block.pack()) for target, block in self.blocks(replica, origin, sender)]
        self.clear()
        return packed

    def clear(self) -> None:
        """Forget what waits: it is in blocks now."""
        self.events.clear()
        self.links.clear()
        self.steps.take()
        self._listed_bytes = 0


def _joined(parts: list[AnyArray], dtype: np.dtype[np.void]) -> AnyArray:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


class _Entries(NamedTuple):
    """What waits, by row: arrays of EVENT, LINK and STEP."""

    events: AnyArray
    links: AnyArray
    steps: AnyArray

    def stretch(self, number: int, parts: int) -> "_Entries":
        """Of each kind the `number`-th of `parts` stretches."""
        return _Entries(*(kind[len(kind) * number // parts : len(kind) * (number + 1) // parts] for kind in self))


def _fitting(entries: _Entries, replica: Replica, origin: bytes, sender: int) -> Iterator[tuple[int, EvidenceBlock]]:
    """Blocks of the entries, which are cut into stretches until each target's block fits."""
    count = sum(map(len, entries))
    if not count:
        return
    # About what a target gets, without ids. A first guess spares making blocks that are too large; what they are decides.
    largest = entries.links.nbytes + (entries.events.nbytes + entries.steps.nbytes) // replica.partitions
    if largest <= BLOCK_BYTES or count == 1:
        blocks = _blocks(entries, replica, origin, sender)
        largest = max(_size_bytes(block) for _, block in blocks)
        if largest <= BLOCK_BYTES or count == 1:
            yield from blocks
            return
    parts = min(count, 1 + int(largest / (0.8 * BLOCK_BYTES)))
    for number in range(parts):
        yield from _fitting(entries.stretch(number, parts), replica, origin, sender)


def _blocks(entries: _Entries, replica: Replica, origin: bytes, sender: int) -> list[tuple[int, EvidenceBlock]]:
    """A block for each target that any entry is for, of any size; row numbers become positions in its list of ids.

    Nearly all targets own something in nearly all histories: links are given their positions once, and every list of ids
    begins with those that links name.
    """
    events, links, steps = entries
    owner = replica.partition[: len(replica)]
    place, named, used = np.full(len(owner), -1, np.int32), np.empty(len(owner), np.int32), np.zeros(1, np.int64)
    item, history = links["item"].astype(np.int32), np.ascontiguousarray(links["history"])
    link_for = _place_links(owner, place, named, used, item, history, replica.partitions)
    links = links.copy()
    links["item"], links["history"] = item, history
    shared = named[: used[0]].copy()
    shared_ids = replica.ids_of(shared.tolist())
    event_item, step_item = events["item"].astype(np.int32), steps["item"].astype(np.int32)
    event_owner, step_owner = owner[event_item], owner[step_item]
    blocks = []
    for target in range(replica.partitions):
        event_at, link_at, step_at = (
            np.flatnonzero(event_owner == target), np.flatnonzero(link_for[target]), np.flatnonzero(step_owner == target)
        )  # fmt: skip
        if not (len(event_at) or len(link_at) or len(step_at)):
            continue
        used[0] = len(shared)
        own_events, own_steps = events[event_at], steps[step_at]
        own_events["item"] = _places_of(place, named, used, event_item[event_at])
        own_steps["item"] = _places_of(place, named, used, step_item[step_at])
        own = named[len(shared) : used[0]]
        place[own] = -1
        ids = shared_ids + replica.ids_of(own.tolist())
        blocks.append((target, EvidenceBlock(origin, sender, ids, own_events, links[link_at], own_steps)))
    return blocks


def _size_bytes(block: EvidenceBlock) -> int:
    """What the block takes when packed, rounded up: each id has a head of up to 3 bytes."""
    columns = sum(column.nbytes for column in (block.events, block.links, block.steps))
    return columns + len("".join(block.ids).encode()) + 3 * len(block.ids) + 100


@njit(inline="always")
def _place_of(row: int, place: Int32Array, named: Int32Array, used: Int64Array) -> int:
    """Where the row stands in the list of ids, at its end if it is new."""
    if place[row] < 0:
        place[row] = used[0]
        named[used[0]] = row
        used[0] += 1
    return int(place[row])


@njit(types.int32[::1](types.int32[::1], types.int32[::1], types.int64[::1], types.int32[::1]), cache=True, nogil=True)
def _places_of(place: Int32Array, named: Int32Array, used: Int64Array, rows: Int32Array) -> Int32Array:
    """Places of rows."""
    places = np.empty(rows.shape[0], np.int32)
    for e in range(rows.shape[0]):
        places[e] = _place_of(rows[e], place, named, used)
    return places


@njit(
    types.boolean[:, ::1](
        _i32, types.int32[::1], types.int32[::1], types.int64[::1], types.int32[::1], types.int32[:, ::1], types.int64
    ),
    cache=True, nogil=True,
)  # fmt: skip
def _place_links(
    owner: Int32Array,
    place: Int32Array,
    named: Int32Array,
    used: Int64Array,
    items: Int32Array,
    histories: Int32Array,
    partitions: int,
) -> BoolArray:
    """Replace the rows of links by their places, -1 for none; returns by target and link whether the target owns any of them."""
    wanted = np.zeros((partitions, items.shape[0]), np.bool_)
    for e in range(items.shape[0]):
        wanted[owner[items[e]], e] = True
        items[e] = _place_of(items[e], place, named, used)
        for lag in range(histories.shape[1]):
            held = histories[e, lag]
            if held >= 0:
                wanted[owner[held], e] = True
                histories[e, lag] = _place_of(held, place, named, used)
    return wanted

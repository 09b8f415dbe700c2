"""One shard: what its part of the state has changed since the last checkpoint, and where its inputs stand.

Flows in: evidence and rows touched by the agents. Flows out: `Checkpoint`, everything of the shard that must become visible
together. Always holds: `swap` takes all or nothing, at a batch boundary; what it took stays pinned until it is stored.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from state import rows
from state.distinct import distinct
from state.replica import Replica
from state.rows import Cut
from state.store import Row, Store
from state.types import AnyArray, Float32Array, Int32Array, Int64Array
from state.users import Users
from topics.dead_letter import DeadLetter
from topics.evidence import EVENT, LINK, STEP, EvidenceBlock

#: A block stays below a broker's default limit of 1 MB a record, its list of ids included.
BLOCK_BYTES = 600_000


@dataclass
class Pending:
    """Evidence learned since the last checkpoint, by row; cut into blocks when it is sent."""

    events: list[AnyArray] = field(default_factory=list)
    links: list[AnyArray] = field(default_factory=list)
    steps: list[AnyArray] = field(default_factory=list)
    #: What is buffered; a checkpoint is due early when it grows.
    size_bytes: int = 0

    def clear(self) -> None:
        """Forget what is buffered: it is in a block now."""
        for parts in (self.events, self.links, self.steps):
            parts.clear()
        self.size_bytes = 0

    def add_events(self, items: Int32Array, kinds: AnyArray, positive: AnyArray, at_ms: Int64Array) -> None:
        """Accepted events of videos; shapes (m,)."""
        packed = np.empty(len(items), EVENT)
        packed["item"], packed["kind"], packed["positive"], packed["at_ms"] = items, kinds, positive, at_ms
        self.events.append(packed)
        self.size_bytes += packed.nbytes

    def add_links(self, items: Int32Array, histories: Int32Array, at_ms: Int64Array) -> None:
        """Users' first positives of videos, with their positives before; shapes (m,), (m, HISTORY), (m,)."""
        packed = np.empty(len(items), LINK)
        packed["item"], packed["history"], packed["at_ms"] = items, histories, at_ms
        self.links.append(packed)
        self.size_bytes += packed.nbytes

    def add_steps(self, items: Int32Array, q: Float32Array, b: Float32Array, acc: Float32Array) -> None:
        """Factor steps of distinct rows; shapes (m,), (m, k), (m,), (m,)."""
        packed = np.empty(len(items), STEP)
        packed["item"], packed["q"], packed["b"], packed["acc"] = items, q, b, acc
        self.steps.append(packed)
        self.size_bytes += packed.nbytes

    def blocks(self, replica: Replica, origin: bytes, sender: int) -> Iterator[tuple[int, EvidenceBlock]]:
        """Cut into blocks of at most BLOCK_BYTES, each for one target partition, as (partition, block)."""
        events = _joined(self.events, EVENT)
        links = _joined(self.links, LINK)
        steps = _merged_steps(_joined(self.steps, STEP))
        owner = replica.partition
        owners = np.concatenate([owner[links["item"]][:, None], _by_row(owner, links["history"])], axis=1)
        event_owners, step_owners = owner[events["item"]], owner[steps["item"]]
        for target in range(replica.partitions):
            mine = [
                events[event_owners == target],
                links[(owners == target).any(axis=1)],
                steps[step_owners == target],
            ]
            for block in _fitting(mine, replica, origin, sender):
                yield target, block


def _by_row(table: Int32Array, rows: Int32Array) -> Int32Array:
    """`table[rows]` for row numbers in any shape, -1 where there is no row."""
    found: Int32Array = np.where(rows >= 0, table[rows], -1)
    return found


def _joined(parts: list[AnyArray], dtype: np.dtype[np.void]) -> AnyArray:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def _merged_steps(steps: AnyArray) -> AnyArray:
    """Steps of one row become their sum."""
    if not len(steps):
        return steps
    ordered = steps[np.argsort(steps["item"], kind="stable")]
    starts = np.flatnonzero(np.diff(ordered["item"], prepend=np.uint32(0xFFFFFFFF)))
    merged = np.empty(len(starts), STEP)
    merged["item"] = ordered["item"][starts]
    for name in ("q", "b", "acc"):
        merged[name] = np.add.reduceat(ordered[name], starts)
    return merged


def _fitting(columns: list[AnyArray], replica: Replica, origin: bytes, sender: int) -> Iterator[EvidenceBlock]:
    """Blocks of the columns, halved until each fits: ids count as much as entries, and are known only then."""
    entries = sum(map(len, columns))
    if not entries:
        return
    block = _block(columns, replica, origin, sender)
    if entries == 1 or _size_bytes(block) <= BLOCK_BYTES:
        yield block
        return
    middles = [-(-len(column) // 2) for column in columns]
    yield from _fitting([c[:m] for c, m in zip(columns, middles, strict=True)], replica, origin, sender)
    yield from _fitting([c[m:] for c, m in zip(columns, middles, strict=True)], replica, origin, sender)


def _size_bytes(block: EvidenceBlock) -> int:
    """What the block takes when packed, rounded up: each id has a head of up to 3 bytes."""
    columns = sum(column.nbytes for column in (block.events, block.links, block.steps))
    return columns + len("".join(block.ids).encode()) + 3 * len(block.ids) + 100


def _block(columns: list[AnyArray], replica: Replica, origin: bytes, sender: int) -> EvidenceBlock:
    """Replace row numbers by positions in the block's own list of ids."""
    events, links, steps = (column.copy() for column in columns)
    known, place = distinct(len(replica), events["item"], links["item"], links["history"], steps["item"])
    for column in (events, links, steps):
        column["item"] = place[column["item"]]
    links["history"] = _by_row(place, links["history"])
    return EvidenceBlock(origin, sender, replica.ids_of(known.tolist()), events, links, steps)


@dataclass(frozen=True)
class Checkpoint:
    """What a shard makes visible at once; rows are copies, learning goes on behind them."""

    users: list[Row]
    items: list[Row]
    blocks: list[tuple[int, bytes]]
    dead: list[DeadLetter]
    cut: Cut
    pinned: list[int]

    def __len__(self) -> int:
        return len(self.users) + len(self.items) + len(self.blocks) + len(self.dead)


class Shard:
    """The state of shard `partition` in this worker."""

    def __init__(self, partition: int, users_store: Store, items_store: Store, cut: Cut) -> None:
        self.partition = partition
        self.users_store = users_store
        self.items_store = items_store
        #: Next offset by input topic: records below it are already in the state.
        self.next = dict(cut.next)
        self.totals: Counter[str] = Counter(cut.totals)
        #: Where the clock stood at the last checkpoint, 0 for a fresh shard.
        self.clock_ms = cut.clock_ms
        self.topic_ids = dict(cut.topic_ids)
        #: Offset by input topic below which another version of the state has judged the records: their dead letters are written.
        self.judged: Mapping[str, int] = {}
        #: It is being handed on: nothing may be learned behind its last checkpoint.
        self.leaving = False
        self._fresh()

    def _fresh(self) -> None:
        self.pending = Pending()
        self.dead: list[DeadLetter] = []
        self.dirty_users: set[int] = set()
        self.dirty_items: set[int] = set()
        self.dirty_neighbours: set[int] = set()
        self.user_rows: dict[bytes, bytes | None] = {}
        self.item_rows: dict[bytes, bytes | None] = {}
        self.moved = False

    @property
    def dirty(self) -> bool:
        """Whether a checkpoint has anything to write: input was taken, or a deletion in another shard changed rows here."""
        return self.moved or bool(self.dirty_users or self.dirty_items or self.dirty_neighbours)

    def advance(self, topic: str, offset: int) -> None:
        """The record at `offset` of `topic` is in the state."""
        self.next[topic] = offset + 1
        self.moved = True

    def touch_users(self, users: Users, slots: Int32Array) -> None:
        """Mark users changed; they stay in memory until the checkpoint that holds them is done."""
        fresh = set(slots.tolist()) - self.dirty_users
        users.pin(fresh)
        self.dirty_users |= fresh

    def hold_user(self, users: Users, user_id: str) -> int:
        """The user's slot, marked changed: it stays theirs until the checkpoint. Raises StateFull."""
        held = users.peek(user_id)
        if held is not None and held in self.dirty_users:
            # Pinned already: it cannot be evicted, so when it was used last does not matter yet.
            return held
        slot = users.slot_of(user_id, self.partition)
        if slot not in self.dirty_users:
            users.pin([slot])
            self.dirty_users.add(slot)
        return slot

    def swap(self, users: Users, replica: Replica, origin: bytes) -> Checkpoint:
        """Take everything changed since the last swap, and begin anew (step 6 of the checkpoint)."""
        user_rows = rows.encode_users(users, _sorted(self.dirty_users), replica)
        live = _sorted(row for row in self.dirty_items if replica.ids[row] is not None and not replica.deleted[row])
        lists = _sorted(
            row for row in self.dirty_neighbours if replica.ids[row] is not None and not replica.deleted[row]
        )
        cut = Cut(dict(self.next), dict(self.totals), replica.stream_ms, self.topic_ids)
        taken = Checkpoint(
            users=[*user_rows, *self.user_rows.items(), (rows.CUT_KEY, rows.encode_cut(cut))],
            # The last row of a key counts: a video that was deleted and published again has both, in this order.
            items=[
                *self.item_rows.items(),
                *rows.encode_items(replica, live),
                *rows.encode_neighbours(replica, lists),
            ],
            blocks=[(target, block.pack()) for target, block in self.pending.blocks(replica, origin, self.partition)],
            dead=self.dead,
            cut=cut,
            pinned=sorted(self.dirty_users),
        )
        self._fresh()
        return taken

    def close(self) -> None:
        """Close both stores."""
        self.users_store.close()
        self.items_store.close()


def _sorted(values: "Iterator[int] | set[int]") -> Int32Array:
    return np.array(sorted(values), np.int32)

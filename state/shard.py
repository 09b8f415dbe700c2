"""One shard: what its part of the state has changed since the last checkpoint, and where its inputs stand.

Flows in: evidence and rows touched by the agents. Flows out: `Checkpoint`, everything of the shard that must become visible
together. Always holds: `swap` takes all or nothing, at a batch boundary; what it took stays pinned until it is stored.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from online_models.factor_steps import FactorSteps
from state import rows
from state.distinct import distinct
from state.errors import StateFull
from state.marks import Marks
from state.replica import Replica
from state.rows import Cut
from state.store import Row, Store
from state.types import AnyArray, Float32Array, Int32Array, Int64Array
from state.users import Users
from topics.dead_letter import DeadLetter
from topics.evidence import EVENT, FACTORS, LINK, STEP, EvidenceBlock

#: A block stays below a broker's default limit of 1 MB a record, its list of ids included.
BLOCK_BYTES = 600_000


@dataclass
class Pending:
    """Evidence learned since the last checkpoint, by row; cut into blocks when it is sent."""

    events: list[AnyArray] = field(default_factory=list)
    links: list[AnyArray] = field(default_factory=list)
    steps: FactorSteps = field(default_factory=FactorSteps)
    _listed_bytes: int = 0

    def clear(self) -> None:
        """Forget what is buffered: it is in a block now."""
        self.events.clear()
        self.links.clear()
        self.steps.take()
        self._listed_bytes = 0

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

    def add_links(self, items: Int32Array, histories: Int32Array, at_ms: Int64Array) -> None:
        """Users' first positives of videos, with their positives before; shapes (m,), (m, HISTORY), (m,)."""
        packed = np.empty(len(items), LINK)
        packed["item"], packed["history"], packed["at_ms"] = items, histories, at_ms
        self.links.append(packed)
        self._listed_bytes += packed.nbytes

    def blocks(self, replica: Replica, origin: bytes, sender: int) -> Iterator[tuple[int, EvidenceBlock]]:
        """Cut into blocks of at most BLOCK_BYTES, each for one target partition, as (partition, block)."""
        events = _joined(self.events, EVENT)
        links = _joined(self.links, LINK)
        steps = _packed_steps(*self.steps.peek())
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


def _packed_steps(rows: Int32Array, sums: Float32Array) -> AnyArray:
    packed = np.empty(len(rows), STEP)
    packed["item"], packed["q"], packed["b"], packed["acc"] = (
        rows,
        sums[:, :FACTORS],
        sums[:, FACTORS],
        sums[:, FACTORS + 1],
    )
    return packed


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
    pinned: Int32Array

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
        self.dirty_users = Marks()
        self.dirty_items = Marks()
        self.dirty_neighbours = Marks()
        self._fresh()

    def _fresh(self) -> None:
        self.pending = Pending()
        self.dead: list[DeadLetter] = []
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
        users.pin(self.dirty_users.add(slots))

    def hold_user(self, users: Users, key: bytes) -> int:
        """The slot of the user with this id, marked changed: it stays theirs until the checkpoint. Raises StateFull."""
        slot = users.slot_of_key(key, self.partition)
        self.touch_users(users, np.array([slot], np.int32))
        return slot

    def hold_users(self, users: Users, keys: Sequence[bytes]) -> tuple[Int32Array, dict[int, StateFull]]:
        """Slots (int32) of users named by their ids as UTF-8, marked changed; -1, and an error, where there is no room."""
        slots = users.peek_many(keys)
        # Those who are here first: a slot that is not held yet may go to somebody who is read from the store.
        fresh = self.dirty_users.add(slots[slots >= 0])
        users.pin(fresh)
        users.use(fresh)
        full: dict[int, StateFull] = {}
        for i in np.flatnonzero(slots < 0).tolist():
            try:
                slots[i] = self.hold_user(users, keys[i])
            except StateFull as error:
                full[i] = error
        return slots, full

    def swap(self, users: Users, replica: Replica, origin: bytes) -> Checkpoint:
        """Take everything changed since the last swap, and begin anew (step 6 of the checkpoint)."""
        changed = self.dirty_users.take()
        user_rows = rows.encode_users(users, changed, replica)
        live = _live(self.dirty_items.take(), replica)
        lists = _live(self.dirty_neighbours.take(), replica)
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
            pinned=changed,
        )
        self._fresh()
        return taken

    def close(self) -> None:
        """Close both stores."""
        self.users_store.close()
        self.items_store.close()


def _live(numbers: Int32Array, replica: Replica) -> Int32Array:
    """Rows that have a video, which is not deleted."""
    kept: Int32Array = numbers[(replica.partition[numbers] >= 0) & ~replica.deleted[numbers]]
    return kept

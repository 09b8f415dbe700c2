"""One shard: what its part of the state has changed since the last checkpoint, and where its inputs stand.

Flows in: evidence and rows touched by the agents. Flows out: `Checkpoint`, everything of the shard that must become visible
together. Always holds: `swap` takes all or nothing, at a batch boundary; what it took stays pinned until it is stored.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from online_models.parts import Shared
from state import rows
from state.errors import StateFull
from state.expiry import EvidenceClock
from state.exposures import Exposures, ServedLists
from state.held_lists import HeldLists
from state.marks import Changed, Marks
from state.pending import Pending
from state.quota import Quota
from state.recent_events import RecentEvents
from state.replica import Replica
from state.rows import Cut
from state.store import Row, Store
from state.types import Int32Array
from state.users import Users
from topics.dead_letter import DeadLetter
from topics.erasures import Erasures

#: Neighbour rows are 4 KB each, and under load all are changed in every checkpoint: then they are in every fourth one only. Few
#: are in each.
LISTS_EVERY = 4
LISTS_FEW = 200


@dataclass(frozen=True)
class Checkpoint:
    """What a shard makes visible at once; rows are copies, learning goes on behind them."""

    users: list[Row]
    items: list[Row]
    blocks: list[tuple[int, bytes]]
    dead: list[DeadLetter]
    cut: Cut
    pinned: Int32Array
    #: Records of `users` that have a mark of erasure which the latest record has not, by id as UTF-8.
    carried: dict[bytes, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users) + len(self.items) + len(self.blocks) + len(self.dead)


class Shard:
    """The state of shard `partition` in this worker."""

    def __init__(self, partition: int, users_store: Store, items_store: Store, cut: Cut) -> None:
        self.partition = partition
        #: What lessons may be taken; the engine sets it with the shard's share.
        self.ranker_quota = self.heads_quota = Quota(0.0, 0.0)
        self.users_store = users_store
        self.items_store = items_store
        #: Next offset by input topic: records below it are already in the state.
        self.next = dict(cut.next)
        self.totals: Counter[str] = Counter(cut.totals)
        #: Where users or videos expire: the latest event time of the interactions, and how far the evidence has come.
        self.event_ms = cut.event_ms
        self.evidence_clock = EvidenceClock(cut.heard, cut.blocks)
        #: Users whose latest event is of an earlier day have expired; 0: nobody has.
        self.horizon = 0
        #: The day for which the users' rows were looked through last, and the id behind which that goes on; None: it is done.
        self.swept = cut.swept
        #: Where the clock stood at the last checkpoint, 0 for a fresh shard.
        self.clock_ms = cut.clock_ms
        self.topic_ids = dict(cut.topic_ids)
        #: Next offset of the evidence whose links are in the lists: in memory, which are behind `next` after a take-over until the
        #: evidence between is read once more, and in the stores. None: as `next`.
        self.lists: int | None = cut.lists
        self.stored_lists: int | None = cut.lists
        #: Lists must be in the next checkpoint: what changed them is not in the evidence.
        self.lists_due = False
        self._skipped = 0
        #: Offset by input topic below which another version of the state has judged the records: their dead letters are written.
        self.judged: Mapping[str, int] = {}
        #: Who had been erased, and until when, before this version began to read: what they did until then is passed over.
        self.forgotten: Erasures | None = None
        #: It is being handed on: nothing may be learned behind its last checkpoint.
        self.leaving = False
        self.pending = Pending()
        #: The engine's models of which this shard has a part, by the key of its row, and those that lessons have changed since the
        #: last checkpoint.
        self.shared: Mapping[bytes, Shared] = {}
        self.taught: set[bytes] = set()
        #: When the latest event that is applied arrived, by the broker's clock; 0 before the first of this process.
        self.arrived_ms = 0
        #: What was shown and is waited for; lost with the process, as lessons are samples.
        self.exposures = Exposures()
        self.served = ServedLists()
        self.held_lists = HeldLists()
        #: Where lists are counted; the engine sets it.
        self.recent: RecentEvents | None = None
        self.dirty_users = Marks()
        self.dirty_items = Changed()
        self.dirty_neighbours = Changed()
        self._under_way: dict[bytes, bytes | None] = {}
        self._fresh()

    def _fresh(self) -> None:
        self.dead: list[DeadLetter] = []
        self.carried: dict[bytes, bytes] = {}
        self.user_rows: dict[bytes, bytes | None] = {}
        self.item_rows: dict[bytes, bytes | None] = {}
        self.moved = False

    @property
    def dirty(self) -> bool:
        """Whether a checkpoint has anything to write: input was taken, or a deletion in another shard changed rows here."""
        return self.moved or self.sweeping or bool(self.dirty_users or self.dirty_items or self.dirty_neighbours)

    @property
    def sweeping(self) -> bool:
        """Whether rows of expired users are still looked for."""
        return self.swept[1] is not None

    def advance(self, topic: str, offset: int) -> None:
        """The record at `offset` of `topic` is in the state."""
        self.next[topic] = offset + 1
        self.moved = True

    def goes_on_at(self, topic: str, evidence: str) -> int:
        """Offset from which the shard has to read an input; of the evidence also what only the lists lack."""
        following = self.next.get(topic, 0)
        return following if topic != evidence or self.lists is None else min(self.lists, following)

    def takes_links(self, evidence: str) -> None:
        """Links of the evidence at hand are about to change lists: those in the stores hold what is before it."""
        if self.stored_lists is None:
            self.stored_lists = self.next.get(evidence, 0)

    def took_links(self, evidence: str, offset: int) -> None:
        """Links of the record at `offset`, which is below `next`, are in the lists."""
        self.lists = offset + 1 if offset + 1 < self.next.get(evidence, 0) else None

    def touch_users(self, users: Users, slots: Int32Array) -> None:
        """Mark users changed; they stay in memory until the checkpoint that holds them is done."""
        users.pin(self.dirty_users.add(slots))

    def hold_user(self, users: Users, key: bytes) -> int:
        """The slot of the user with this id, marked changed: it stays theirs until the checkpoint. Raises StateFull."""
        slot = users.slot_of_key(key, self.partition)
        if self.dirty_users.add_one(slot):
            users.pin_one(slot)
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
        alone = not (self.moved or self.dirty_users or self.dirty_items)
        changed = self.dirty_users.take()
        user_rows = self._settled(rows.encode_users(users, changed, replica), users, changed)
        live = _live(self.dirty_items.take(), replica)
        lists = self._due_lists(alone, replica)
        cut = Cut(
            dict(self.next), dict(self.totals), replica.stream_ms, self.topic_ids, self.stored_lists,
            self.event_ms, dict(self.evidence_clock.heard), self.evidence_clock.blocks, self.swept,
        )  # fmt: skip
        taken = Checkpoint(
            users=[*user_rows, *self.user_rows.items(), (rows.CUT_KEY, rows.encode_cut(cut))],
            # The last row of a key counts: a video that was deleted and published again has both, in this order.
            items=[
                *self._parts(),
                *self.item_rows.items(),
                *rows.encode_items(replica, live),
                *rows.encode_neighbours(replica, lists),
            ],
            blocks=self.pending.take(replica, origin, self.partition),
            dead=self.dead,
            cut=cut,
            pinned=changed,
            carried=self.carried,
        )
        self._under_way = self.user_rows
        self._fresh()
        return taken

    def erase(self, key: bytes) -> None:
        """What was learned of the user with this id is not in the next checkpoint, nor in the store after it."""
        self.user_rows[rows.USER + key] = None
        self.served.forget(key)
        self.moved = True

    def _settled(self, changed_rows: Sequence[Row], users: Users, changed: Int32Array) -> Sequence[Row]:
        """The rows of changed users without those that were erased; of whom something was learned since is not erased any more."""
        if not self.user_rows:
            return changed_rows
        settled = []
        for (key, row), slot in zip(changed_rows, changed.tolist(), strict=True):
            if key not in self.user_rows:
                settled.append((key, row))
            elif users.counts[slot].any():
                settled.append((key, row))
                del self.user_rows[key]
        return settled

    def stored(self) -> None:
        """What the last swap took is in the stores."""
        self._under_way = {}

    def row_of_user(self, key: bytes) -> bytes | None:
        """A row as it is now, or None; the store may have an older one still."""
        for rows_ in (self.user_rows, self._under_way):
            if key in rows_:
                return rows_[key]
        return self.users_store.get(key)

    def _parts(self) -> list[Row]:
        """The shard's parts of the models that lessons have changed."""
        taught, self.taught = sorted(self.taught), set()
        return [(key, rows.encode_part(key, self.partition, self.shared[key].part(self.partition))) for key in taught]

    def _due_lists(self, alone: bool, replica: Replica) -> Int32Array:
        """Rows whose lists are in this checkpoint: all that have changed, or none."""
        lists = self.dirty_neighbours.take()
        due = self.lists_due or self.leaving or alone or self._skipped + 1 >= LISTS_EVERY
        if not due and len(lists) > LISTS_FEW:
            self._skipped += 1
            self.dirty_neighbours.add(lists)
            return np.empty(0, np.int32)
        self._skipped, self.lists_due = 0, False
        self.stored_lists = self.lists
        return _live(lists, replica)

    def close(self) -> None:
        """Close both stores."""
        self.users_store.close()
        self.items_store.close()


def _live(numbers: Int32Array, replica: Replica) -> Int32Array:
    """Rows that have a video, which is neither deleted nor expired."""
    gone = replica.deleted[numbers] | replica.expired[numbers]
    kept: Int32Array = numbers[(replica.partition[numbers] >= 0) & ~gone]
    return kept

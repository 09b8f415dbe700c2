"""The canonical replay: what a log amounts to when one process learns it in one order, in batches of fixed counts.

Flows in: windows of a log in the canonical order (`topics.canonical_order`) and its served lists. Flows out: an engine, and its rows
in stores. It takes the steps of a worker, at places that the log alone decides; where a worker waits for the clock or the broker,
this counts:

1. A window is SHARD_WINDOW records of the canonical order for each partition that there is. What it says of videos and users is
   applied first, then its interactions, shard by shard, in micro-batches of a worker's size. Before a micro-batch the lists that had
   arrived when its first event did are read, and after it those that had when its last one did, as a worker reads them.
2. After a window all shards apply the evidence that all have learned in it, by target and then by sender.
3. After every CHECKPOINT_WINDOWS windows, and earlier where every user slot waits for it, all rows go to the stores.
4. At the end, the lists that are left are read, and 2 and 3 once more; then rows of expired users go.

Always holds: nothing depends on time, on the process, on what a fetch brought or on the order of a hash table. Dead letters are not
written: a worker has done so.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from agents import catalog, expiry, feedback, items, ranking, users
from agents.app import CHUNK, LISTS_AT_ONCE
from state.engine import Engine, EngineOptions
from state.errors import StateFull
from state.rows import Cut
from state.shard import Checkpoint, Shard
from state.store import MemoryStore, Store
from topics.canonical_order import CATALOGUE, Stream
from topics.evidence import EvidenceBlock
from topics.record_batch import RecordBatch
from topics.specs import INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS

#: Records a shard, about, after which evidence is applied: a micro-batch of a worker, which does it four times a second.
SHARD_WINDOW = CHUNK
#: Windows after which rows are stored.
CHECKPOINT_WINDOWS = 10
#: Names the replay in evidence blocks, which never leave it.
ORIGIN = b"replayed"
_ALL = 2**63 - 1


class Log(Protocol):
    """What is replayed, as `topics.canonical_log` reads it."""

    def windows(self, size: int) -> Iterable[Sequence[tuple[Stream, RecordBatch]]]:
        """Stretches of so many records of the canonical order."""

    def lists(self, partition: int, until_ms: int | None, most: int) -> RecordBatch:
        """The next served lists of a partition, at most so many, that had arrived by then; None: all that are left."""


class Keep(Protocol):
    """Makes a checkpoint of a shard last."""

    def __call__(self, shard: Shard, taken: Checkpoint) -> None:
        """Write the rows to the shard's stores, and wherever else they must be."""


def keep_in_stores(shard: Shard, taken: Checkpoint) -> None:
    """Write the rows to the shard's stores alone."""
    shard.users_store.write(taken.users, 0)
    shard.items_store.write(taken.items, 0)


class Replayer:
    """An engine with all shards, fed in the canonical order.

    Parameters
    ----------
    options : bounds, partitions, rate and seed, as the workers have them
    future_tolerance_ms : as the workers have it
    stores : users' and items' of each shard, empty; by default in memory
    keep : called with every checkpoint of every shard, in their order
    judge : ranks positives before they are learned; what is learned does not depend on it
    shard_window : records a shard after which evidence is applied, and most that are learned at once; part of the canonical order, so
        that another one gives another state
    """

    def __init__(
        self,
        options: EngineOptions,
        future_tolerance_ms: int,
        stores: Mapping[int, tuple[Store, Store]] | None = None,
        keep: Keep = keep_in_stores,
        judge: users.Judge | None = None,
        shard_window: int = SHARD_WINDOW,
    ) -> None:
        self._tolerance_ms, self._keep, self._judge = future_tolerance_ms, keep, judge
        self._shard_window = shard_window
        #: Windows after which rows are stored: as many records, whatever a window is.
        self._checkpoint_windows = max(1, CHECKPOINT_WINDOWS * SHARD_WINDOW // shard_window)
        # The graph holds what it had time for, so all videos are looked at instead.
        self.engine = Engine(replace(options, exact_below=options.max_videos), ORIGIN)
        for partition in range(options.partitions):
            pair = (MemoryStore(), MemoryStore()) if stores is None else stores[partition]
            shard = Shard(partition, *pair, Cut({}))
            shard.judged = dict.fromkeys((INTERACTIONS, VIDEOS, USERS, RECOMMENDATIONS), _ALL)
            self.engine.add_shard(shard)
        #: Interactions so far, refused ones too.
        self.events = 0
        #: Ids (UTF-8) of videos that the catalogue has deleted, if only for a time; at most as many as videos.
        self.deleted: set[bytes] = set()

    @property
    def shards(self) -> Sequence[Shard]:
        """All shards, in order."""
        return [self.engine.shards[partition] for partition in range(self.engine.options.partitions)]

    def run(self, log: Log, told: Callable[[int], None] = lambda _: None) -> None:
        """Learn the log to its stopping point; `told` is called with the interactions so far after each window."""
        for number, window in enumerate(log.windows(self._shard_window * self.engine.options.partitions), 1):
            self._learn(log, window)
            self._apply_evidence()
            if number % self._checkpoint_windows == 0:
                self.checkpoint()
            told(self.events)
        for shard in self.shards:
            self._read_lists(log, shard, None)
        self._apply_evidence()
        self.checkpoint()
        for shard in self.shards:
            expiry.sweep_users(self.engine, shard, _ALL)
        self.checkpoint()

    def _learn(self, log: Log, window: Sequence[tuple[Stream, RecordBatch]]) -> None:
        for stream, batch in window:
            topic, shard = stream.topic, self.engine.shards[stream.partition]
            if topic == VIDEOS and len(self.deleted) < self.engine.options.max_videos:
                self.deleted.update(filter(None, (batch.key(i) for i in np.flatnonzero(batch.value_size < 0).tolist())))
            if topic in CATALOGUE:
                for first in range(0, len(batch), CHUNK):
                    catalog.step(self.engine, shard, topic, batch[first : first + CHUNK])
            else:
                self._learn_events(log, shard, batch)
                self.events += len(batch)

    def _learn_events(self, log: Log, shard: Shard, batch: RecordBatch) -> None:
        held = self.engine.users
        first = 0
        while first < len(batch):
            chunk = ranking.batch_of(self.engine, shard, min(CHUNK, self._shard_window, held.capacity))
            if held.pinned + chunk > held.capacity:
                self._apply_evidence()
                self.checkpoint()
            self._read_lists(log, shard, int(batch.timestamps[first]))
            users.step(self.engine, shard, batch[first : first + chunk], self._tolerance_ms, self._judge)
            self._read_lists(log, shard, shard.arrived_ms)
            first += chunk

    def _read_lists(self, log: Log, shard: Shard, until_ms: int | None) -> None:
        while len(lists := log.lists(shard.partition, until_ms, LISTS_AT_ONCE)):
            if until_ms is None:
                shard.arrived_ms = max(shard.arrived_ms, int(lists.timestamps[-1]))
            feedback.step(self.engine, shard, RECOMMENDATIONS, lists)

    def _apply_evidence(self) -> None:
        blocks: dict[int, list[EvidenceBlock]] = defaultdict(list)
        for shard in self.shards:
            for target, block in shard.pending.blocks(self.engine.replica, ORIGIN, shard.partition):
                blocks[target].append(block)
            shard.pending.clear()
        for target in sorted(blocks):
            shard = self.engine.shards[target]
            for block in blocks[target]:
                try:
                    items.apply(self.engine, shard, block)
                except StateFull:
                    shard.totals["dead_blocks"] += 1

    def checkpoint(self) -> None:
        """Put what has changed into the stores; only when no evidence waits."""
        for shard in self.shards:
            if not shard.dirty:
                continue
            # Evidence is not logged, so nothing could make up for lists that a checkpoint leaves out.
            shard.lists_due = True
            taken = shard.swap(self.engine.users, self.engine.replica, ORIGIN)
            self._keep(shard, taken)
            shard.stored()
            self.engine.users.unpin(taken.pinned)

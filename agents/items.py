"""The items agent: applies evidence to the videos that its shard owns, and is the only writer of their rows.

Flows in: evidence blocks of one partition, in offset order. Flows out: changed rows, marked in the shard. Always holds: what a
block says of a deleted video, or of one that another shard owns, changes nothing.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from agents import expiry
from agents.inbox import bury, took
from state.engine import Engine
from state.errors import SchemaMismatch, StateFull
from state.expiry import DAY_MS
from state.shard import Shard
from state.types import AnyArray, BoolArray, Int32Array
from topics.evidence import SHOWN, BadBlock, EvidenceBlock, OtherRelease, unpack
from topics.record_batch import RecordBatch, RecordLike
from topics.rejected import Reason, Rejected


def step(engine: Engine, shard: Shard, topic: str, records: Sequence[RecordLike]) -> None:
    """Apply the blocks that the state does not hold yet. Raises SchemaMismatch for a block of a later release."""
    batch = RecordBatch.of(records).since(shard.goes_on_at(topic, topic))
    shard.takes_links(topic)
    for record in batch.before(shard.next.get(topic, 0)):
        # Applied before a take-over, and in no list that was stored. One that was refused then is refused again.
        with suppress(BadBlock, StateFull):
            named = _Named.of(engine, shard, _read(record, topic, shard.partition))
            _learn_links(engine, shard, named.without(engine.replica.expired[named.rows]))
        shard.took_links(topic, record.offset)
    for record in batch.since(shard.next.get(topic, 0)):
        try:
            apply(engine, shard, _read(record, topic, shard.partition))
        except (BadBlock, StateFull) as error:
            shard.totals["dead_blocks"] += 1
            bury(shard, topic, record, Rejected(Reason.MALFORMED_BLOCK, str(error)))
    took(shard, topic, batch)


def _read(record: RecordLike, topic: str, partition: int) -> EvidenceBlock:
    try:
        return unpack(record.value or b"")
    except OtherRelease as error:
        # Never a dead letter: the release that wrote it counts on its being applied.
        raise SchemaMismatch(
            f"{topic}[{partition}] offset {record.offset}: {error}."
            " Run the release that wrote it, or replay into a new HEADRACE_VERSION"
        ) from error


def apply(engine: Engine, shard: Shard, block: EvidenceBlock) -> None:
    """Apply one block. Raises StateFull, before anything changes, if it names more videos than there is room for."""
    named = _Named.of(engine, shard, block)
    if block.origin == engine.origin:
        engine.awaited -= int((block.events["kind"] != SHOWN).sum())
    for events in expiry.days_of(engine, shard, block.events, block.sender):
        _count(engine, shard, events, named)
    # What has expired and was not met again learns nothing.
    named = named.without(engine.replica.expired[named.rows])
    rows, mine = named.rows, named.mine

    links = block.links[mine[block.links["item"]]]
    if links["segments"].any():
        engine.segments.apply(
            rows[links["item"]],
            np.ascontiguousarray(links["segments"]),
            engine.ticks(links["at_ms"].astype(np.int64)),
        )
        shard.dirty_items.add(rows[links["item"]])
    _learn_links(engine, shard, named)
    _apply_steps(engine, shard, block, rows, mine)


def _count(engine: Engine, shard: Shard, events: AnyArray, named: "_Named") -> None:
    """Count events (array of EVENT) of the block."""
    events = events[named.mine[events["item"]]]
    items = named.rows[events["item"]]
    at_ms = events["at_ms"].astype(np.int64)
    expiry.meet(engine, shard, items, at_ms // DAY_MS)
    engine.replica.count(items, events["kind"])
    positive = events["positive"] == 1
    shown = events["kind"] == SHOWN
    if shown.any():
        engine.count_shown(items[shown], at_ms[shown])
    # Every event makes a row, so that a catalogue restored from changelogs is the whole catalogue.
    shard.dirty_items.add(items)
    if positive.any():
        engine.count_positives(items[positive], at_ms[positive])


class _Named(NamedTuple):
    """A block, and of the videos that it names: their rows, which of them are not deleted, and which of these are the shard's."""

    block: EvidenceBlock
    rows: Int32Array
    alive: BoolArray
    mine: BoolArray

    @classmethod
    def of(cls, engine: Engine, shard: Shard, block: EvidenceBlock) -> "_Named":
        """Find the rows. Raises StateFull."""
        replica = engine.replica
        rows = replica.rows_of(block.ids)
        alive = ~replica.deleted[rows]
        return cls(block, rows, alive, alive & (replica.partition[rows] == shard.partition))

    def without(self, gone: BoolArray) -> "_Named":
        """As if those (bool, by place) were deleted."""
        return self._replace(alive=self.alive & ~gone, mine=self.mine & ~gone)


def _learn_links(engine: Engine, shard: Shard, named: _Named) -> None:
    links, rows = named.block.links, named.rows
    ticks = engine.ticks(links["at_ms"].astype(np.int64))
    linked = np.zeros(len(rows), np.bool_)
    for model in (engine.covisitation, engine.markov):
        linked |= model.learn_links(
            links["history"], links["item"].astype(np.int32), ticks, rows, named.alive, named.mine
        )
    shard.dirty_neighbours.add(rows[linked])


def _apply_steps(engine: Engine, shard: Shard, block: EvidenceBlock, rows: Int32Array, mine: BoolArray) -> None:
    """Add factor steps to the owner's rows; the rows served from have this process's own steps already."""
    # A step that is not finite would make the row, and whatever is learned with it, not finite for good.
    sound = np.isfinite(block.steps["q"]).all(axis=1) & np.isfinite(block.steps["b"]) & np.isfinite(block.steps["acc"])
    if not sound.all():
        shard.totals["unsound_steps"] += int((~sound).sum())
    steps: AnyArray = block.steps[sound & mine[block.steps["item"]]]
    touched = rows[steps["item"]]
    targets = [engine.replica.base]
    if block.origin != engine.origin:
        targets.append(engine.mf.columns)
    for columns in targets:
        for name in ("q", "b", "acc"):
            columns[name][touched] += steps[name]
    shard.dirty_items.add(touched)
    engine.refresh_index(np.unique(touched))

"""The users agent: learns the user's side of every interaction, and collects what it teaches about videos.

Flows in: records of `interactions` of one shard, in offset order. Flows out, into the shard's buffers: changed users, evidence
for the owners of the videos, dead letters. Always holds: a record counts in exactly one of `learned`, `ignored`, `duplicate`
and `dead`, whatever it holds.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from agents import expiry, feedback, ranking
from agents.events import Events
from agents.inbox import bury, due, took
from online_models.sequential_mf import NEGATIVES
from state.engine import Engine
from state.errors import StateFull
from state.replica import Replica
from state.shard import Shard
from state.types import Float32Array, Int32Array, Int64Array, UInt8Array
from state.users import ACT_NEGATIVE, ACT_NONE, ACT_SEEN, ACT_UNDO, DUPLICATE, POSITIVE
from topics.event_columns import EventColumns, read_events
from topics.evidence import SHOWN
from topics.interactions import EVENTS, Interaction, decode, event_code
from topics.partitions import stable_hash
from topics.record_batch import RecordBatch, RecordLike
from topics.rejected import Reason, Rejected
from topics.specs import INTERACTIONS

#: Negatives drawn a micro-batch, of which each event uses 40: more would send more rows, fewer would repeat themselves. A batch
#: of many positives draws three for each.
POOL = 200
POOL_SHARE = 3

_ACTS = np.zeros(len(EVENTS), np.uint8)
_ACTS[event_code("watch")] = ACT_SEEN
_ACTS[event_code("dislike")] = ACT_NEGATIVE
_ACTS[event_code("unlike")] = ACT_UNDO

#: What the outcomes of `Users.admit` count as: POSITIVE, SIGNAL, IGNORED, DUPLICATE.
_OUTCOMES = ("learned", "learned", "ignored", "duplicate")


class Judge(Protocol):
    """Ranks positives before they are learned; changes nothing that is learned."""

    def score(self, engine: Engine, shard: Shard, events: Events, liked: UInt8Array) -> None:
        """Look at a micro-batch before anything of it is in the state; `liked` (uint8, shape (m,)) is 1 for a positive."""


def step(
    engine: Engine,
    shard: Shard,
    records: Sequence[RecordLike],
    future_tolerance_ms: int,
    scorer: Judge | None = None,
) -> None:
    """Decode and learn a micro-batch; records that the state already holds are passed over (step 4 of the protocol).

    Parameters
    ----------
    scorer : told of the batch before it is learned
    """
    batch = due(shard, INTERACTIONS, records)
    found = read_events(
        batch,
        partition=shard.partition,
        partitions=engine.options.partitions,
        future_tolerance_ms=future_tolerance_ms,
    )
    refused: dict[int, Rejected] = {}
    for i in np.flatnonzero(found.odd).tolist():
        try:
            _put(found, i, _decode(batch[i], engine, shard, future_tolerance_ms))
        except Rejected as error:
            refused[i] = error
    gone = _forgotten(shard, batch, found, refused)
    at_ms = found.at_ms.copy()
    at_ms[list({*refused, *gone})] = 0
    if ends := expiry.pieces(engine, shard, at_ms):
        for first, end in pairwise([0, *ends, len(batch)]):
            step(engine, shard, batch[first:end], future_tolerance_ms, scorer)
        return
    expiry.pass_time(engine, shard, at_ms)
    shard.totals["ignored"] += len(gone)
    # Bounds are met here, before the batch changes anything; a held slot is there when the batch is learned.
    rows = _rows(engine.replica, batch, found, {*refused, *gone}, refused)
    fit = np.flatnonzero(rows >= 0)
    slots, full = shard.hold_users(engine.users, batch.texts(batch.key_at[fit], batch.key_size[fit]))
    for i, why in full.items():
        refused[int(fit[i])] = Rejected(Reason.STATE_FULL, str(why))
    for i in sorted(refused):
        shard.totals["dead"] += 1
        shard.totals[f"dead.{refused[i].reason}"] += 1
        bury(shard, INTERACTIONS, batch[i], refused[i])
    if len(batch):
        shard.arrived_ms = max(shard.arrived_ms, int(batch.timestamps[-1]))
    kept, slots = fit[slots >= 0], slots[slots >= 0]
    erased = found.at_ms[kept] <= engine.users.erased_ms[slots]
    if erased.any():
        # Of before the user was erased: sent again, late, or read anew.
        shard.totals["ignored"] += int(erased.sum())
        kept, slots = kept[~erased], slots[~erased]
    if len(kept):
        events = Events(
            batch.offsets[kept], slots, rows[kept], found.kinds[kept], found.at_ms[kept], found.event_ids[kept],
            found.watch_seconds[kept], found.duration_seconds[kept], batch.timestamps[kept],
        )  # fmt: skip
        _learn(engine, shard, events, None, scorer)
        expiry.touch(engine, shard, slots)
    took(shard, INTERACTIONS, batch)


def _decode(record: RecordLike, engine: Engine, shard: Shard, future_tolerance_ms: int) -> Interaction:
    return decode(
        record.key,
        record.value,
        record.timestamp,
        partition=shard.partition,
        partitions=engine.options.partitions,
        future_tolerance_ms=future_tolerance_ms,
    )


def _put(found: EventColumns, i: int, event: Interaction) -> None:
    """Make event `i` of the columns what `decode` has read; its video has a name that is not in the batch as it stands."""
    found.kinds[i] = event_code(event.event)
    found.at_ms[i] = event.at_ms
    found.event_ids[i] = stable_hash(event.event_id)
    found.video_ids[i] = stable_hash(event.video_id)
    found.watch_seconds[i] = np.nan if event.watch_seconds is None else event.watch_seconds
    found.duration_seconds[i] = np.nan if event.duration_seconds is None else event.duration_seconds
    found.names[i] = event.video_id


def _forgotten(shard: Shard, batch: RecordBatch, found: EventColumns, refused: dict[int, Rejected]) -> set[int]:
    """Events of users who had been erased before this version began to read: not even their videos are made known."""
    if shard.forgotten is None or not len(shard.forgotten):
        return set()
    gone = np.flatnonzero(found.at_ms <= shard.forgotten.until(batch.keys()))
    return set(gone.tolist()) - refused.keys()


def _rows(
    replica: Replica, batch: RecordBatch, found: EventColumns, passed: set[int], refused: dict[int, Rejected]
) -> Int32Array:
    """Rows of the events' videos, new ones created; -1 for what is passed over, and for want of room, which `refused` gets."""
    rows = replica.named_rows(found.video_ids)
    rows[list(passed)] = -1
    for i in np.flatnonzero(rows < 0).tolist():
        if i in passed:
            continue
        try:
            name = found.names.get(i)
            rows[i] = replica.row_of(batch.text(found.video_at[i], found.video_size[i]) if name is None else name)
        except StateFull as error:
            refused[i] = Rejected(Reason.STATE_FULL, str(error))
    return rows


def learn(
    engine: Engine,
    shard: Shard,
    events: Sequence[Interaction],
    offsets: Sequence[int],
    positive: Sequence[bool] | None = None,
) -> None:
    """Learn decoded events of one shard, in order.

    Parameters
    ----------
    offsets : of each event; the first one seeds the batch's draw of negatives
    positive : overrides what is a positive, for evaluation on logs with labels of their own
    """
    columns = Events(
        np.array(offsets, np.int64),
        np.array([shard.hold_user(engine.users, event.user_id.encode()) for event in events], np.int32),
        engine.replica.rows_of([event.video_id for event in events]),
        np.array([event_code(event.event) for event in events], np.uint8),
        np.array([event.at_ms for event in events], np.int64),
        np.array([stable_hash(event.event_id) for event in events], np.uint64),
        # None becomes NaN
        np.array([event.watch_seconds for event in events], np.float64),
        np.array([event.duration_seconds for event in events], np.float64),
        np.array([event.at_ms for event in events], np.int64),
    )
    _learn(engine, shard, columns, positive)


def _learn(
    engine: Engine, shard: Shard, events: Events, positive: Sequence[bool] | None, scorer: Judge | None = None
) -> None:
    users, replica = engine.users, engine.replica
    slots, rows, kinds, at_ms = events.slots, events.rows, events.kinds, events.at_ms
    said = engine.options.signals.signals(kinds, events.watch_seconds, events.duration_seconds)
    liked = np.asarray(said.positive if positive is None else positive).astype(np.uint8)
    # What somebody else calls positive has no weight of its own.
    weights = np.where(said.positive, said.weights, np.float32(1.0))
    # Nothing is learned about a deleted video; the event still counts.
    alive = ~replica.deleted[rows]
    acts = np.where(alive, _ACTS[kinds], ACT_NONE).astype(np.uint8)
    liked[~alive] = 0
    before = feedback.Before.of(engine, slots)
    if scorer is not None:
        # Before anything of the batch is known: that is what a list is made of.
        scorer.score(engine, shard, events, liked)

    admitted = users.admit(slots, rows, replica.hashes[rows], events.event_ids, kinds, acts, liked, at_ms, alive)
    outcome = admitted.outcome
    users.offset[slots] = events.offsets
    for name, count in zip(_OUTCOMES, np.bincount(outcome, minlength=len(_OUTCOMES)).tolist(), strict=True):
        if count:
            shard.totals[name] += count

    # Before all models, as the ranker: what they say of an exposure must be what they knew before it.
    feedback.follow(engine, shard, events, liked, admitted, before)
    fresh = alive & (outcome != DUPLICATE)
    first = (outcome == POSITIVE) & ~admitted.damped
    if admitted.damped.any():
        shard.totals["damped"] += int(admitted.damped.sum())
    shard.pending.add_events(rows[fresh], kinds[fresh], first[fresh], at_ms[fresh])
    engine.awaited += int(np.isin(replica.partition[rows[fresh]], list(engine.shards)).sum())
    came = admitted.came
    if came.any():
        shown, none = np.full(int(came.sum()), SHOWN, np.uint8), np.zeros(int(came.sum()), np.bool_)
        shard.pending.add_events(rows[came], shown, none, at_ms[came])
    if first.any():
        histories = admitted.histories[first]
        # The ranker before all others: it must see what was known when the user chose.
        ranking.learn(engine, shard, slots[first], rows[first], histories, admitted, first, weights[first])
        seed = int(events.offsets[0])
        _teach(engine, shard, slots[first], rows[first], histories, at_ms[first], weights[first], seed)
        shard.totals["positives"] += int(first.sum())
    # As it is now, before what this batch has shown counts.
    users.open_shown[slots[came]] = engine.popularity.shown_features(rows[came], engine.now())


def _teach(
    engine: Engine,
    shard: Shard,
    slots: Int32Array,
    rows: Int32Array,
    histories: Int32Array,
    at_ms: Int64Array,
    weights: Float32Array,
    seed_offset: int,
) -> None:
    """Learn the batch's first positives: links for the neighbour tables, factor steps, the users' own vectors."""
    pending = shard.pending
    pending.add_links(rows, histories, at_ms, engine.users.segments[slots])

    known = engine.replica.active_rows()
    rng = np.random.Generator(np.random.PCG64([engine.options.seed, shard.partition, seed_offset]))
    # Nothing to draw from where all that is known is hidden.
    drawn = min(max(POOL, POOL_SHARE * len(rows)), NEGATIVES * len(rows)) if len(known) else 0
    negatives = known[rng.integers(0, max(1, len(known)), drawn)]
    engine.mf.learn_batch(
        engine.users.p,
        engine.users.pacc,
        slots,
        histories,
        rows,
        negatives,
        len(known),
        engine.options.seed,
        seed_offset,
        pending.steps,
        weights,
    )

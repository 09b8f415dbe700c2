"""The users agent: learns the user's side of every interaction, and collects what it teaches about videos.

Flows in: records of `interactions` of one shard, in offset order. Flows out, into the shard's buffers: changed users, evidence
for the owners of the videos, dead letters. Always holds: a record counts in exactly one of `learned`, `ignored`, `duplicate`
and `dead`, whatever it holds.
"""

from collections.abc import Sequence

import numpy as np

from agents.inbox import Record, bury, due, took
from online_models.sequential_mf import LAGS, NEGATIVES
from state.distinct import distinct
from state.engine import Engine
from state.errors import StateFull
from state.shard import Shard
from state.types import Int32Array, Int64Array
from state.users import ACT_NEGATIVE, ACT_NONE, ACT_SEEN, ACT_UNDO, DUPLICATE, POSITIVE
from topics.interactions import EVENTS, Interaction, decode, event_code, require_partition
from topics.partitions import stable_hash
from topics.rejected import Reason, Rejected
from topics.signals import signals
from topics.specs import INTERACTIONS

#: Negatives drawn a micro-batch, of which each event uses 40: more would send more rows, fewer would repeat themselves.
POOL = 200

_ACTS = np.zeros(len(EVENTS), np.uint8)
_ACTS[event_code("watch")] = ACT_SEEN
_ACTS[event_code("dislike")] = ACT_NEGATIVE
_ACTS[event_code("unlike")] = ACT_UNDO

#: What the outcomes of `Users.admit` count as: POSITIVE, SIGNAL, IGNORED, DUPLICATE.
_OUTCOMES = ("learned", "learned", "ignored", "duplicate")


def step(engine: Engine, shard: Shard, records: Sequence[Record], future_tolerance_ms: int) -> None:
    """Decode and learn a micro-batch; records that the state already holds are passed over (step 4 of the protocol)."""
    events: list[Interaction] = []
    offsets: list[int] = []
    slots: list[int] = []
    rows: list[int] = []
    users, row_of, hold_user = engine.users, engine.replica.row_of, shard.hold_user
    partition, partitions = shard.partition, engine.options.partitions
    for record in due(shard, INTERACTIONS, records):
        try:
            event = decode(
                record.key,
                record.value,
                record.timestamp,
                partition=None,
                partitions=partitions,
                future_tolerance_ms=future_tolerance_ms,
            )
            if users.home(event.user_id) != partition:
                require_partition(event.user_id.encode(), partition, partitions)
            # Bounds are met here, before the batch changes anything; a held slot is there when the batch is learned.
            row = row_of(event.video_id)
            slot = hold_user(users, event.user_id)
        except (Rejected, StateFull) as error:
            why = error if isinstance(error, Rejected) else Rejected(Reason.STATE_FULL, str(error))
            shard.totals["dead"] += 1
            shard.totals[f"dead.{why.reason}"] += 1
            bury(shard, INTERACTIONS, record, why)
        else:
            events.append(event)
            offsets.append(record.offset)
            rows.append(row)
            slots.append(slot)
    if events:
        _learn(engine, shard, events, offsets, slots, rows, None)
    took(shard, INTERACTIONS, records)


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
    slots = [shard.hold_user(engine.users, event.user_id) for event in events]
    rows = [engine.replica.row_of(event.video_id) for event in events]
    _learn(engine, shard, events, offsets, slots, rows, positive)


def _learn(
    engine: Engine,
    shard: Shard,
    events: Sequence[Interaction],
    offsets: Sequence[int],
    held: Sequence[int],
    named: Sequence[int],
    positive: Sequence[bool] | None,
) -> None:
    users, replica = engine.users, engine.replica
    slots, rows = np.array(held, np.int32), np.array(named, np.int32)
    kinds = np.array([event_code(e.event) for e in events], np.uint8)
    at_ms = np.array([e.at_ms for e in events], np.int64)
    event_ids = np.array([stable_hash(e.event_id) for e in events], np.uint64)
    # None becomes NaN
    watched = np.array([e.watch_seconds for e in events], np.float64)
    duration = np.array([e.duration_seconds for e in events], np.float64)
    default = signals(kinds, watched, duration).positive
    liked = np.asarray(default if positive is None else positive).astype(np.uint8)
    # Nothing is learned about a deleted video; the event still counts.
    alive = ~replica.deleted[rows]
    acts = np.where(alive, _ACTS[kinds], ACT_NONE).astype(np.uint8)
    liked[~alive] = 0

    outcome, histories = users.admit(slots, rows, replica.hashes[rows], event_ids, kinds, acts, liked, at_ms)
    users.offset[slots] = np.asarray(offsets, np.int64)
    for name, count in zip(_OUTCOMES, np.bincount(outcome, minlength=len(_OUTCOMES)).tolist(), strict=True):
        if count:
            shard.totals[name] += count

    fresh = alive & (outcome != DUPLICATE)
    first = outcome == POSITIVE
    shard.pending.add_events(rows[fresh], kinds[fresh], first[fresh], at_ms[fresh])
    if first.any():
        _teach(engine, shard, slots[first], rows[first], histories[first], at_ms[first], offsets[0])


def _teach(
    engine: Engine,
    shard: Shard,
    slots: Int32Array,
    rows: Int32Array,
    histories: Int32Array,
    at_ms: Int64Array,
    seed_offset: int,
) -> None:
    """Learn the batch's first positives: links for the neighbour tables, factor steps, the users' own vectors."""
    pending = shard.pending
    pending.add_links(rows, histories, at_ms)

    known = engine.replica.active_rows()
    rng = np.random.Generator(np.random.PCG64([engine.options.seed, shard.partition, seed_offset]))
    # Nothing to draw from where all that is known is hidden.
    drawn = min(POOL, NEGATIVES * len(rows)) if len(known) else 0
    negatives = known[rng.integers(0, max(1, len(known)), drawn)]
    recent = histories[:, :LAGS]
    touched, _ = distinct(len(engine.replica), rows, recent, negatives)
    columns = engine.mf.columns
    before = {name: columns[name][touched] for name in ("q", "b", "acc")}
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
    )
    steps = {name: columns[name][touched] - before[name] for name in before}
    pending.add_steps(touched, steps["q"], steps["b"], steps["acc"])

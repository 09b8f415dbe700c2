"""The ranker's lessons: what a user chose among what they could have been shown.

Flows in: first positives of a micro-batch, before any model learns them. Flows out: steps in the shard's part of the ranker.
Always holds: candidates and features are made by the code that serves; a video that would not have been a candidate teaches
nothing.
"""

import numpy as np

from online_models.counters import in_partition, uniforms
from online_models.features import FEATURES
from state import ranking
from state.engine import Engine
from state.rows import RANKER_KEY
from state.shard import Shard
from state.types import BoolArray, Float32Array, Int32Array, UInt64Array
from state.users import Admitted

#: Lessons while the loop is held, some milliseconds, and the share of records that are first positives, about.
LESSONS_AT_ONCE = 25
POSITIVES_SHARE = 0.25
#: Lessons that may wait before micro-batches become short, to take them all: short ones cost more an event.
LESSONS_WAIT = 4 * LESSONS_AT_ONCE

_SHOWN = slice(FEATURES.index("shown_300"), FEATURES.index("shown_3000") + 1)


def drawn(seed: int, seeds: UInt64Array, granted: int) -> BoolArray:
    """Which `granted` ones of seeds (uint64, shape (m,)), all alike; bool, shape (m,)."""
    chosen = np.ones(len(seeds), np.bool_)
    if granted < len(seeds):
        chosen[np.argsort(uniforms(seed, seeds), kind="stable")[granted:]] = False
    return chosen


def batch_of(engine: Engine, shard: Shard, most: int) -> int:
    """Records to learn at once, at most `most`: fewer while so many lessons may be taken that one batch would hold the loop."""
    left = shard.ranker_quota.left(engine.replica.stream_ms)
    return most if left < LESSONS_WAIT else max(1, min(most, int(LESSONS_AT_ONCE / POSITIVES_SHARE)))


def learn(
    engine: Engine,
    shard: Shard,
    slots: Int32Array,
    rows: Int32Array,
    histories: Int32Array,
    admitted: Admitted,
    first: BoolArray,
    weights: Float32Array,
) -> None:
    """Give the ranker its lessons of a micro-batch.

    Parameters
    ----------
    slots, rows : int32, shape (m,); of each first positive
    histories : int32, shape (m, 20); the user's positives before it, newest first, -1 for none
    admitted, first : what became of all events of the batch, and which of them (bool) these are
    weights : float32, shape (m,); how many times the usual step each lesson takes
    """
    numbers = shard.totals["positives"] + np.arange(1, len(rows) + 1)
    # By the number of the positive, so that it does not matter what batches there are.
    seeds = in_partition(shard.partition, numbers)
    granted = shard.ranker_quota.take(engine.replica.stream_ms, min(len(rows), LESSONS_AT_ONCE))
    passes, before = admitted.passes[first], admitted.before[first]
    for e in np.flatnonzero(drawn(engine.options.seed, seeds, granted)).tolist():
        # That it was shown to this user is no news to the lesson: at serving it had not been.
        shown = engine.users.open_shown[slots[e]] if before[e] else None
        became = teach(
            engine, shard, int(slots[e]), int(rows[e]), histories[e], passes[e], shown, int(seeds[e]), float(weights[e])
        )
        engine.lessons[became] += 1


def teach(
    engine: Engine,
    shard: Shard,
    slot: int,
    row: int,
    history: Int32Array,
    passed: Int32Array,
    shown: Float32Array | None,
    seed: int,
    weight: float = 1.0,
) -> str:
    """One lesson: the user in `slot`, whose positives were `history`, chose `row`, of which `shown` was known before.

    Returns what became of it, as `Engine.lessons` counts it.
    """
    replica = engine.replica
    if shown is not None and np.isnan(shown).any():
        # They came to it before they were last read from the store.
        return "no_candidate"
    if not replica.described(row) and not replica.counts[row].any():
        # It has come with this event: nobody could have listed it.
        return "no_candidate"
    context = engine.context_before(slot, history, passed)
    allowed = engine.allowed(slot)
    allowed[row] = replica.active[row]
    found = ranking.propose_with(engine, context, allowed, row)
    if found is None or len(found[0]) < 2:
        return "no_candidate"
    rows, votes = found
    place = int(np.searchsorted(rows, row))
    described = ranking.described(engine, context, rows, votes)
    if shown is not None:
        described.items[place, _SHOWN] = shown
    lesson = engine.ranker.learn(shard.partition, described, len(context.history), place, seed, weight)
    if lesson.learned:
        shard.taught.add(RANKER_KEY)
    return "learned" if lesson.learned else "refused"

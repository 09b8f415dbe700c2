"""The ranker's lessons: what a user chose among what they could have been shown.

Flows in: first positives of a micro-batch, before any model learns them. Flows out: steps in the shard's part of the ranker.
Always holds: candidates and features are made by the code that serves; a video that would not have been a candidate teaches
nothing.
"""

import numpy as np

from online_models.base import Context
from state import ranking
from state.engine import Engine
from state.shard import Shard
from state.types import Int32Array

#: Of a shard's first positives, all up to this many teach the ranker, then one of so many: its steps have become small.
LESSONS_FIRST = 100_000
LESSONS_EVERY = 1


def learn(
    engine: Engine,
    shard: Shard,
    slots: Int32Array,
    rows: Int32Array,
    histories: Int32Array,
    passes: Int32Array,
    seed_offset: int,
) -> None:
    """Give the ranker its lessons of a micro-batch.

    Parameters
    ----------
    slots, rows : int32, shape (m,); of each first positive
    histories : int32, shape (m, 20); the user's positives before it, newest first, -1 for none
    passes : int32, shape (m, 8); what they had passed over before it
    seed_offset : of the batch's first record; seeds the draws
    """
    for e in range(len(rows)):
        teach(engine, shard, int(slots[e]), int(rows[e]), histories[e], passes[e], seed_offset + e)


def teach(
    engine: Engine, shard: Shard, slot: int, row: int, history: Int32Array, passed: Int32Array, seed: int
) -> None:
    """One lesson: the user in `slot`, whose positives were `history`, chose `row`."""
    replica = engine.replica
    if not replica.described(row) and not replica.counts[row].any():
        # It has come with this event: nobody could have listed it.
        engine.lessons["no_candidate"] += 1
        return
    context = Context(history[history >= 0], engine.users.p[slot], engine.now(), passed[passed >= 0])
    allowed = replica.active[: len(replica)].copy()
    allowed[replica.find_codes(engine.users.seen(slot))] = False
    allowed[row] = replica.active[row]
    found = ranking.find(engine, context, allowed)
    place = int(np.searchsorted(found.rows, row))
    if place == len(found.rows) or found.rows[place] != row or len(found.rows) < 2:
        engine.lessons["no_candidate"] += 1
        return
    lesson = engine.ranker.learn(shard.partition, found.described, len(context.history), place, seed)
    engine.lessons["learned" if lesson.learned else "refused"] += 1
    shard.taught |= lesson.learned

"""Expiry: who was not met for long, in the days of event time, is forgotten; see docs/operations.md.

Flows in: event times of a shard's interactions and evidence. Flows out: users and videos out of memory, tombstones of their rows, a
mark for each video. Always holds:

- A user has expired or not by the records of their own partition alone, whatever batches they came in: the clock is the running
  maximum of its event times, a micro-batch ends where the day changes, and a row that is too old is not read. So it does not matter
  when `sweep_users` comes to it: that only makes room.
- No user in memory has expired.
- A video goes when all shards whose evidence comes have passed its last day by the time to live (`EvidenceClock`), and comes back,
  with its record and nothing else, when it is met again.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from infra import metrics
from state import rows
from state.engine import Engine
from state.expiry import DAY_MS, by_day, day_ends, day_of, horizon
from state.shard import Shard
from state.types import Int32Array, Int64Array

#: Rows looked at in a checkpoint: a millisecond of the loop, and a million users in a quarter of an hour.
SWEEP_ROWS = 250


def pieces(engine: Engine, shard: Shard, at_ms: Int64Array) -> list[int]:
    """Where a micro-batch with these event times (int64 ms, shape (m,), 0 of what is refused) must end, for the day changes."""
    expires = engine.options.user_ttl_days is not None and len(at_ms) > 0
    return day_ends(shard.event_ms, at_ms) if expires else []


def pass_time(engine: Engine, shard: Shard, at_ms: Int64Array) -> None:
    """Move the shard's clock on to these events, all of one day of it (see `pieces`), before they are learned."""
    ttl_days = engine.options.user_ttl_days
    if ttl_days is None or not len(at_ms):
        return
    shard.event_ms = max(shard.event_ms, int(at_ms.max()))
    reached = horizon(shard.event_ms, ttl_days)
    if reached == shard.horizon:
        return
    shard.horizon = reached
    users = engine.users
    for slot in users.expired(shard.partition, reached).tolist():
        if users.pins[slot]:
            # A row that is not in the store yet, or is about to be: the tombstone comes behind it.
            _let_go(shard, [rows.USER + users.key_of(slot)])
        users.erase(slot, int(users.erased_ms[slot]))
    _begin(shard)


def _let_go(shard: Shard, gone: Sequence[bytes]) -> None:
    """Rows of users that are not in the store behind the next checkpoint, unless they are met before it."""
    shard.user_rows.update(dict.fromkeys(gone))
    shard.moved = True
    metrics.EXPIRED.labels("users").inc(len(gone))


def touch(engine: Engine, shard: Shard, slots: Int32Array) -> None:
    """Note that the users in `slots` (int32, shape (m,)) were met today."""
    if engine.options.user_ttl_days is not None:
        engine.users.touched[slots] = day_of(shard.event_ms)


def _begin(shard: Shard) -> None:
    """Begin to look through the users' rows, unless that goes on already or was done for this day."""
    if shard.horizon and not shard.sweeping and shard.swept[0] < shard.horizon:
        shard.swept = (shard.horizon, "")


def sweep_users(engine: Engine, shard: Shard, most: int) -> None:
    """Look at up to `most` rows of users, and put tombstones of the expired ones into the next checkpoint.

    Call it right before `Shard.swap`, without a pause in between: the store holds what the checkpoint before has written, and who was
    met since is in memory.
    """
    day, after = shard.swept
    if after is not None:
        last = _sweep(engine, shard, after, most)
        shard.swept = (day if after else shard.horizon, last)
        _begin(shard)


def _sweep(engine: Engine, shard: Shard, after: str, most: int) -> str | None:
    """Returns the id of the last of `most` users behind the id `after`, None where there are not so many."""
    looked, gone = 0, []
    for key, row in islice(shard.users_store.scan(rows.USER, rows.USER + after.encode()), most):
        looked += 1
        name = key[len(rows.USER) :]
        after = name.decode()
        if rows.user_day(row) >= shard.horizon:
            continue
        slot = engine.users.peek_key(name)
        if slot is not None and engine.users.counts[slot].any():
            # Met again: the row is older than what is in memory.
            continue
        gone.append(key)
    if gone:
        _let_go(shard, gone)
    return after if looked == most else None


def days_of(engine: Engine, shard: Shard, block: Any, sender: int) -> Iterator[Any]:
    """Events of a block, day by day where videos expire; before each day what has expired by then goes.

    Parameters
    ----------
    block : array of EVENT
    sender : shard that learned it
    """
    ttl_days = engine.options.video_ttl_days
    if ttl_days is None or not len(block):
        yield block
        return
    clock = shard.evidence_clock
    clock.blocks += 1
    for latest_ms, events in by_day(block):
        before = today(engine, shard)
        clock.hear(sender, latest_ms)
        if (after := today(engine, shard)) != before:
            sweep_videos(engine, shard, after)
        yield events


def today(engine: Engine, shard: Shard) -> int:
    """Day of the shard's videos, 0 where they do not expire or too little was learned of them."""
    ttl_days = engine.options.video_ttl_days
    return 0 if ttl_days is None else shard.evidence_clock.day(engine.options.partitions, ttl_days)


def meet(engine: Engine, shard: Shard, met: Int32Array, days: Int64Array | int) -> None:
    """The shard's videos in `met` (int32, shape (m,)) were met on these days: who had expired comes back."""
    if engine.options.video_ttl_days is None or not len(met):
        return
    replica = engine.replica
    back = np.unique(met[replica.expired[met]])
    if len(back):
        engine.bring_back(back)
        for video_id in replica.ids_of(back.tolist()):
            shard.item_rows[rows.DELETED + video_id.encode()] = None
    np.maximum.at(replica.touched, met, np.asarray(days, np.int32))


def sweep_videos(engine: Engine, shard: Shard, day: int) -> None:
    """Let the shard's videos go that were not met since `day` minus the time to live."""
    replica, ttl_days = engine.replica, engine.options.video_ttl_days or 0
    n = len(replica)
    mine = (replica.partition[:n] == shard.partition) & ~replica.deleted[:n] & ~replica.expired[:n]
    days = np.maximum(replica.touched[:n], engine.popularity.columns["last_ms"][:n] // DAY_MS)
    # Of these only the record is known, or a row of before videos expired: their time begins now.
    fresh = np.flatnonzero(mine & (days <= 0)).astype(np.int32)
    replica.touched[fresh] = day
    shard.dirty_items.add(fresh)
    gone = np.flatnonzero(mine & (days > 0) & (days < day - ttl_days)).astype(np.int32)
    if not len(gone):
        return
    engine.expire(gone)
    for video_id in replica.ids_of(gone.tolist()):
        key = video_id.encode()
        for prefix in (rows.ITEM, rows.NEIGHBOURS):
            shard.item_rows[prefix + key] = None
        # The record stays, and the mark says that it is not to be served.
        shard.item_rows[rows.DELETED + key] = rows.EXPIRED_MARK
    shard.lists_due = shard.moved = True
    metrics.EXPIRED.labels("videos").inc(len(gone))

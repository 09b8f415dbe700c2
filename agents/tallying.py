"""Counting what follows the lists of an experiment's arms.

Flows in: served lists as they are read, and what `agents.feedback` finds to have followed them. Flows out: the shard's part of the
tally. Always holds: a list counts for the arm that it was served in, of the experiment that is configured; events that were read
before it are joined from the latest ones, each with one list only.
"""

from collections.abc import Mapping

import numpy as np

from agents.events import Events
from state.behaviour import IMPRESSION
from state.engine import Engine
from state.exposures import ServedList
from state.recent_events import Applied, RecentEvents
from state.rows import TALLY_KEY
from state.shard import Shard
from state.tally import Followed
from state.types import BoolArray, UInt8Array
from topics.interactions import event_code
from topics.recommendations import Recommended

#: How much earlier than its list an event may be in the log and still have followed it: lists are sent together, every 20 ms, and
#: later where the loop is busy.
RACE_MS = 500
#: A list is late if the latest events that are kept do not go back so near to it: what followed it may have passed.
LATE_MS = 10_000

_WATCH = event_code("watch")


def open_list(engine: Engine, shard: Shard, key: bytes, listed: Recommended, served: ServedList) -> None:
    """Count a list that was read, if it is one of the experiment's, with what followed it and was read before it.

    Parameters
    ----------
    key : the user's id as UTF-8
    """
    tally, recent = engine.tally, shard.recent
    if tally is None or recent is None or listed.experiment != tally.experiment.id:
        return
    arm = tally.experiment.place_named(listed.arm)
    if arm is None:
        return
    shard.taught.add(TALLY_KEY)
    if recent.since_ms > served.arrived_ms + LATE_MS:
        tally.miss(shard.partition)
        return
    slot = engine.users.find(key.decode(), shard.partition)
    sends = slot is not None and bool(engine.users.counts[slot, IMPRESSION])
    served.followed = Followed.of(arm, tally.experiment.bucket_of(key), len(served.codes), sends)
    if shard.arrived_ms >= served.arrived_ms - RACE_MS:
        _catch_up(engine, shard, recent, key, served, served.followed)
    tally.open(shard.partition, served.followed)


def _catch_up(
    engine: Engine, shard: Shard, recent: RecentEvents, key: bytes, served: ServedList, followed: Followed
) -> None:
    """Note what followed the list and was read before it, also what seemed to have followed an older one."""
    for number in recent.of(key, served.arrived_ms - RACE_MS):
        place = served.place_of(int(recent.codes[number]))
        if place < 0 or not served.was_there(int(recent.at_ms[number])):
            continue
        said, older = recent.said(number), recent.joined.get(number)
        if older is not None:
            if recent.arrived_ms[number] < served.arrived_ms:
                continue
            older[0].add(older[1], said, times=-1)
            count(engine, shard, older[0])
        served.note(place, said)
        recent.joined[number] = followed, place


def count(engine: Engine, shard: Shard, followed: Followed | None) -> None:
    """Count what has followed a list meanwhile."""
    if engine.tally is not None and followed is not None:
        engine.tally.count(shard.partition, followed)
        shard.taught.add(TALLY_KEY)


def remember(
    engine: Engine,
    shard: Shard,
    batch: Events,
    fresh: BoolArray,
    clicked: BoolArray,
    liked: UInt8Array,
    joined: Mapping[int, tuple[ServedList, int]],
) -> None:
    """Keep the events that are `fresh`, for lists that are read after them; `joined` has the lists that are known, by event."""
    if shard.recent is None:
        return
    key_of = engine.users.key_of
    events = Applied(
        [key_of(slot) for slot in batch.slots[fresh].tolist()],
        batch.arrived_ms[fresh],
        batch.at_ms[fresh],
        engine.replica.hashes[batch.rows[fresh]],
        batch.kinds[fresh] == IMPRESSION,
        clicked[fresh],
        liked[fresh] > 0,
        np.where(batch.kinds == _WATCH, batch.watch_seconds, 0.0)[fresh],
    )
    places = np.cumsum(fresh) - 1
    shard.recent.add(
        events,
        {
            int(places[e]): (served.followed, place)
            for e, (served, place) in joined.items()
            if served.followed is not None
        },
    )


def close(engine: Engine, shard: Shard, served: ServedList) -> None:
    """What the tally has of a list is all."""
    if engine.tally is not None and served.followed is not None:
        engine.tally.close(shard.partition, served.followed)
        shard.taught.add(TALLY_KEY)

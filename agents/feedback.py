"""The heads' lessons: what followed when a video was shown to a user.

Flows in: events of a micro-batch and what they changed, before any model learns them; served lists. Flows out: steps in the shard's
part of the heads, and what followed each list to `agents.tallying`. Always holds: inputs are of before the exposure, made by the code
that serves or taken from the list that was served; an outcome is learned once, when its window is over.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import structlog

from agents import tallying
from agents.events import Events
from agents.inbox import due, took
from agents.ranking import drawn
from online_models.counters import in_partition
from online_models.features import Votes
from online_models.heads import HEADS, INPUTS
from state import ranking
from state.behaviour import IMPRESSION, behaviour_of, positives_in
from state.engine import Engine
from state.exposures import CLICK, LIKE, LONG_VIEW, SKIP, WATCH_SHARE, Exposure, ServedList
from state.prediction import INPUT_NAMES, inputs_of
from state.replica import video_code
from state.rows import HEADS_KEY
from state.shard import Shard
from state.tally import Said
from state.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, UInt8Array
from state.users import DUPLICATE, POSITIVE, Admitted
from topics.interactions import event_code
from topics.recommendations import BadList, decode_list
from topics.record_batch import RecordLike

log = structlog.get_logger(__name__)

#: A watch this long, or of all of a shorter video, says that the user meant to see it. KuaiRand-Pure calls it a click: 99.8% of
#: watches of 7 s or more, 2% of shorter ones.
CLICK_WATCH_S = 7.0

#: Exposures that are opened in one micro-batch: they hold the loop for some milliseconds.
EXPOSURES_AT_ONCE = 60

_VIEW, _WATCH, _LIKE, _UNLIKE = (event_code(kind) for kind in ("view", "watch", "like", "unlike"))
_SKIPS = (event_code("skip"), event_code("dislike"))
_PLACE = INPUTS.index("place")


class Before(NamedTuple):
    """What the users of a micro-batch had done before it.

    Attributes
    ----------
    counts : int32, shape (m, kinds); of each event's user
    last_ms : int64, shape (m,)
    """

    counts: Int32Array
    last_ms: Int64Array

    @classmethod
    def of(cls, engine: Engine, slots: Int32Array) -> "Before":
        """As it is now."""
        return cls(engine.users.counts[slots], engine.users.last_ms[slots])


def follow(engine: Engine, shard: Shard, batch: Events, liked: UInt8Array, admitted: Admitted, before: Before) -> None:
    """Open exposures, note what followed those that are waited for, and learn from those whose window is over.

    Parameters
    ----------
    liked : uint8, shape (m,); which events are positive
    """
    fresh = admitted.outcome != DUPLICATE
    shown = admitted.came & _is_shown(batch.kinds, before.counts)
    late = int((admitted.came & fresh & ~shown).sum())
    if late:
        engine.exposures["late"] += late
    # By the place in the log, so that it does not matter what batches there are.
    seeds = in_partition(shard.partition, batch.offsets)
    granted = shard.heads_quota.take(engine.replica.stream_ms, min(int(shown.sum()), EXPOSURES_AT_ONCE))
    opened = np.zeros(len(shown), np.bool_)
    opened[shown] = drawn(engine.options.seed, seeds[shown], granted)
    awaited = engine.users.awaited[batch.slots] > 0
    if opened.any():
        awaited |= np.isin(batch.slots, batch.slots[opened])
    listed = _has_lists(engine, shard, batch.slots)
    clicked = _clicks(batch)
    joined: dict[int, tuple[ServedList, int]] = {}
    for e in np.flatnonzero((awaited | listed) & fresh).tolist():
        slot, row = int(batch.slots[e]), int(batch.rows[e])
        found = None
        if listed[e]:
            code = int(engine.replica.hashes[row])
            found = shard.served.find(engine.users.key_of(slot), code, int(batch.at_ms[e]))
        if opened[e]:
            _open(engine, shard, batch, admitted, before, found, e)
        if found is not None:
            served, place = joined[e] = found
            seconds = float(batch.watch_seconds[e]) if batch.kinds[e] == _WATCH else 0.0
            said = Said(bool(batch.kinds[e] == IMPRESSION), bool(clicked[e]), bool(liked[e]), seconds)
            served.note(place, said)
            tallying.count(engine, shard, served.followed)
        exposure = shard.exposures.find(slot, row)
        if exposure is not None:
            _note(exposure, batch, bool(clicked[e]), bool(liked[e]), engine.options.signals.skipped_share, e)
    tallying.remember(engine, shard, batch, fresh, clicked, liked, joined)
    close(engine, shard)


def _has_lists(engine: Engine, shard: Shard, slots: Int32Array) -> BoolArray:
    """Which of the users in `slots` (int32, shape (m,)) have been served lists lately."""
    if not len(shard.served):
        return np.zeros(len(slots), np.bool_)
    each, place = np.unique(slots, return_inverse=True)
    key_of = engine.users.key_of
    return np.array([shard.served.has(key_of(slot)) for slot in each.tolist()], np.bool_)[place]


def _is_shown(kinds: UInt8Array, counts: Int32Array) -> BoolArray:
    """Which events tell that a video was shown: impressions, of clients that send any; else whatever comes first.

    With impressions at hand, another event that comes first is a late one: its exposure is over, and what it says is only good.
    """
    shown: BoolArray = (kinds == IMPRESSION) | (counts[:, IMPRESSION] == 0)
    return shown


def _open(
    engine: Engine,
    shard: Shard,
    batch: Events,
    admitted: Admitted,
    before: Before,
    found: tuple[ServedList, int] | None,
    e: int,
) -> None:
    """Wait for what follows event `e`; `found` is the list that it follows and the place there, if it is known."""
    slot, row = int(batch.slots[e]), int(batch.rows[e])
    users, replica = engine.users, engine.replica
    key, code = users.key_of(slot), int(replica.hashes[row])
    if found is not None and found[0].inputs is not None:
        inputs = found[0].inputs[found[1]].copy()
    else:
        context = engine.context_before(slot, admitted.histories[e], admitted.passes[e])
        rows = np.array([row], np.int32)
        described = ranking.described(engine, context, rows, Votes.of(engine.models, context, len(replica)))
        if described.broken[0]:
            engine.exposures["refused"] += 1
            return
        of_user = batch.slots == slot
        new = int((admitted.outcome[of_user] == POSITIVE).sum())
        positives = positives_in(users, slot) - new
        behaviour = behaviour_of(before.counts[e], max(positives, 0), int(before.last_ms[e]), int(batch.at_ms[e]))
        inputs = inputs_of(engine, rows, behaviour, described)[0]
    inputs[_PLACE] = 0.0 if found is None else np.log1p(found[0].first + found[1])
    # Before the first positive the stream has no time of its own.
    opened_ms = replica.stream_ms or int(batch.at_ms[e])
    if shard.exposures.open(Exposure(slot, key, row, code, opened_ms, inputs)):
        users.awaited[slot] = min(int(users.awaited[slot]) + 1, 255)


def _clicks(batch: Events) -> BoolArray:
    """Which events say that the user meant to see the video."""
    watched, length = batch.watch_seconds, batch.duration_seconds
    needed = np.where(length > 0.0, np.minimum(length, CLICK_WATCH_S), CLICK_WATCH_S)
    # Of unknown time it is taken for all of it, as it is for positives.
    clicked: BoolArray = (batch.kinds == _VIEW) | ((batch.kinds == _WATCH) & ~(watched < needed))
    return clicked


def _note(exposure: Exposure, batch: Events, clicked: bool, liked: bool, skipped_share: float, e: int) -> None:
    kind, outcomes = batch.kinds[e], exposure.outcomes
    if clicked:
        outcomes[CLICK] = 1.0
    if kind == _WATCH:
        watched, length = float(batch.watch_seconds[e]), float(batch.duration_seconds[e])
        outcomes[LONG_VIEW] = max(outcomes[LONG_VIEW], float(liked))
        share = watched / length if length > 0.0 else np.nan
        if share < skipped_share and not liked:
            outcomes[SKIP] = 1.0
        # NaN, once there was a watch of which it is not known, stays.
        outcomes[WATCH_SHARE] = np.maximum(outcomes[WATCH_SHARE], min(share, 1.0) if share == share else np.nan)
    elif kind == _LIKE:
        outcomes[LIKE] = 1.0
    elif kind == _UNLIKE:
        outcomes[LIKE] = 0.0
    elif kind in _SKIPS:
        outcomes[SKIP] = 1.0


def close(engine: Engine, shard: Shard) -> None:
    """Learn what followed the exposures and lists whose window is over."""
    now_ms = engine.replica.stream_ms
    users, replica = engine.users, engine.replica
    for exposure in shard.exposures.over(now_ms):
        if users.peek_key(exposure.key) != exposure.slot or replica.hashes[exposure.row] != exposure.code:
            engine.exposures["lost"] += 1
            continue
        users.awaited[exposure.slot] = max(int(users.awaited[exposure.slot]) - 1, 0)
        if replica.deleted[exposure.row]:
            engine.exposures["lost"] += 1
            continue
        _teach(engine, shard, exposure.inputs, exposure.outcomes)
    for served in shard.served.over(shard.arrived_ms):
        _learn_list(engine, shard, served)
        tallying.close(engine, shard, served)


def _learn_list(engine: Engine, shard: Shard, served: ServedList) -> None:
    """Of a client that sends no impressions: what stands above a video that was played was seen, and left."""
    if not served.engaged.any() and not served.impressions:
        engine.exposures["unanswered"] += 1
        return
    if served.impressions or served.inputs is None:
        return
    last = int(np.flatnonzero(served.engaged)[-1])
    passed = np.flatnonzero(~served.engaged[:last])
    granted = shard.heads_quota.take(engine.replica.stream_ms, len(passed))
    for place in passed[drawn(engine.options.seed, served.codes[passed], granted)].tolist():
        inputs = served.inputs[place].copy()
        inputs[_PLACE] = np.log1p(served.first + place)
        _teach(engine, shard, inputs, np.zeros(len(HEADS)))


def _teach(engine: Engine, shard: Shard, inputs: Float32Array, outcomes: Float64Array) -> None:
    if engine.heads.learn(shard.partition, inputs, outcomes):
        engine.exposures["learned"] += 1
        shard.taught.add(HEADS_KEY)
    else:
        engine.exposures["refused"] += 1


def step(engine: Engine, shard: Shard, topic: str, records: Sequence[RecordLike]) -> None:
    """Take served lists, so that what follows can be joined with them; those of other releases and broken ones are counted."""
    waiting = due(shard, topic, records)
    if shard.forgotten is not None and len(shard.forgotten):
        waiting = waiting.where(waiting.timestamps > shard.forgotten.until(waiting.keys()))
    for record in waiting:
        try:
            key, listed = decode_list(record.key, record.value)
            if listed.names != INPUT_NAMES:
                raise BadList("the inputs are of another release")
            inputs = listed.matrix()
            if inputs is not None and (inputs.shape[1] != len(INPUTS) or not np.isfinite(inputs).all()):
                raise BadList("inputs that are not finite, or of another number")
        except BadList as error:
            engine.exposures["unreadable"] += 1
            log.debug("a served list is passed over", shard=shard.partition, offset=record.offset, reason=str(error))
            continue
        codes = np.array([video_code(video_id) for video_id in listed.video_ids], np.uint64)
        engaged = np.zeros(len(codes), np.bool_)
        served = ServedList(listed.at_ms, record.timestamp, codes, inputs, engaged, first=listed.first)
        tallying.open_list(engine, shard, key, listed, served)
        shard.served.add(key, served)
        engine.exposures["listed"] += 1
    close(engine, shard)
    took(shard, topic, records)

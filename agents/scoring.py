"""Evaluation while the worker runs: a sampled share of first positives is ranked before it is learned, by the code that serves.

Flows in: the positives of a micro-batch, before anything of the batch is in the state: what is ranked is what a request right before
the batch would have got. Flows out: figures by arm and window, and an alarm where `served` is below its baselines. Always holds:
nothing that is learned changes by it, whatever goes wrong in here; memory is fixed; so is its share of the CPU time.

What counts is what `headrace evaluate` counts. A list is made without any event of the target's own row of the log; what the user had
seen before is in no list; a target that nobody can list is a miss of every arm, not left out. A user who came to a video in an
earlier batch is ranked as they were then, as far as the state still tells.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import structlog

from agents.budget import Budget
from agents.drift import Drift
from agents.events import Events
from agents.windows import BELOW_ERRORS, CLEAR_ERRORS, WINDOWS, Sample, Windows
from online_models.base import Context
from online_models.counters import in_partition, uniforms
from online_models.popularity import HALF_LIVES
from state import ranking
from state.arms import ABSENT, COMPONENTS, decayed, place_in, position
from state.engine import Engine
from state.lists import rank
from state.shard import Shard
from state.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, UInt8Array
from state.users import HOURLY_MAX

log = structlog.get_logger(__name__)

#: Length of a scored list.
K = 10
#: What `served` must not fall below, and single models beside it.
BASELINES = ("popularity", "popularity_decayed", "item_knn")
MODELS = ("mf", "markov")
ARMS = ("served", *BASELINES, *MODELS)
#: One arm for each half-life; `popularity_decayed` is the one that has done best in the longest window.
_DECAYED = tuple(f"popularity_{half_life:.0f}" for half_life in HALF_LIVES)
#: Scored positives between two looks at what has done best, and at the alarm.
LOOK_EVERY = 100
#: Keeps the draw apart from those of lessons, which are drawn with the seed itself.
SALT = 0x5C0E
#: Records at once where every positive is ranked: a quarter of them hold the loop for some ten milliseconds.
BATCH_OF_ALL = 100
#: Events that are so late want the time that measuring takes; of its share this much is left then.
LATE_S, LATE_PART = 0.2, 0.25


class Scorer:
    """Ranks positives as they come.

    Parameters
    ----------
    share : of the process's CPU time, 0 to 1; 0 ranks nothing, 1 ranks every positive whatever it takes
    seed : of the draw
    process, thread : clocks of CPU time, in seconds
    """

    def __init__(
        self,
        share: float,
        seed: int = 1,
        *,
        process: Callable[[], float] = time.process_time,
        thread: Callable[[], float] = time.thread_time,
    ) -> None:
        self.budget = Budget(share, process, thread)
        self._share = share
        self.windows = Windows((*ARMS, *_DECAYED), K)
        #: Positives that have come, and those of them that were drawn: a few of these are none after all.
        self.wanted = self.drawn = 0
        #: Those that could not be ranked because of an error.
        self.failed = 0
        self.below_baselines = False
        #: Of the share of positives that served lists hold.
        self.drift = Drift()
        self._seed = seed ^ SALT
        self._half_life = 0

    def look_at(self, late_s: float) -> None:
        """Take less of the time while events come `late_s` late; not where every positive is to be ranked."""
        late = late_s > LATE_S and self._share < 1.0
        self.budget.share = self._share * (LATE_PART if late else 1.0)

    def batch_of(self, most: int) -> int:
        """Records to learn at once, at most `most`: so many that ranking all positives among them does not hold the loop for long."""
        return min(most, BATCH_OF_ALL) if self.budget.share >= 1.0 else most

    def score(self, engine: Engine, shard: Shard, events: Events, liked: UInt8Array) -> None:
        """Rank for a sample of a micro-batch's first positives; to be called before the batch changes anything.

        Parameters
        ----------
        events : all of the batch
        liked : uint8, shape (m,); 1 for a positive of a video that is not deleted
        """
        if self.budget.share <= 0.0:
            return
        found = np.flatnonzero(liked)
        if not len(found):
            return
        self.budget.begin()
        before = self.windows.scored
        drawn = self._draw(shard.partition, events.offsets[found])
        self.wanted += len(found)
        for e in found[drawn].tolist():
            self.drawn += 1
            try:
                if is_first(engine, events, e, liked):
                    slot, row = int(events.slots[e]), int(events.rows[e])
                    self._add(self._ranked(engine, slot, row, row_start(events, e)))
            except Exception as error:  # noqa: BLE001 - what only measures must not stop what learns; it is counted, and said once
                self._failed(error)
        self.budget.end(self.windows.scored - before)

    def _draw(self, partition: int, offsets: Int64Array) -> BoolArray:
        """Which of the batch's positives are ranked.

        By a hash of their places in the log: neither who nor what it is, nor where it stands in the batch, makes it more likely.
        """
        rate = self.budget.rate(len(offsets))
        chosen: BoolArray = uniforms(self._seed, in_partition(partition, offsets)) < rate
        return chosen

    def _failed(self, error: Exception) -> None:
        if not self.failed:
            log.warning(
                "a positive could not be ranked; more are only counted", error=f"{type(error).__name__}: {error}"
            )
        self.failed += 1

    def _ranked(self, engine: Engine, slot: int, row: int, ahead: int) -> Sample:
        """The list of the user in `slot` before they came to `row`, and where `row` is in it and in those of the other arms.

        `ahead` events of the batch are before it. Of every shard's events about as many are from the same time: that is how far a
        list is behind which does not know its user's latest. Other shards' are known, though, and some of these are from later.
        """
        context, allowed = situation(engine, slot, row)
        n = len(allowed)
        candidates = ranking.score_candidates(engine, context, allowed, K)
        best = ranking.best_of(candidates, K)
        listed = rank(engine, context, allowed, K, scored=best)
        places = {"served": place_in(listed, row)}
        for name in ("popularity", "item_knn", *MODELS):
            places[name] = position(COMPONENTS[name](engine, context, n), allowed, row, K)
        for name, scores in zip(_DECAYED, decayed(engine, context, n), strict=True):
            places[name] = position(scores, allowed, row, K)
        places["popularity_decayed"] = places[_DECAYED[self._half_life]]
        predicted, loss = float("nan"), float("nan")
        chances = _chances(candidates.scores)
        at = int(np.searchsorted(candidates.rows, row))
        if at < len(candidates.rows) and candidates.rows[at] == row and chances[at] > 0.0:
            predicted = float(chances[np.searchsorted(candidates.rows, best.rows)].sum())
            loss = float(-np.log(chances[at]))
        found = place_in(best.rows, row) != ABSENT
        own_lag, shared_lag = ahead * engine.options.partitions, ahead + max(engine.awaited, 0)
        return Sample(places, listed, _novelty_bits(engine, listed), predicted, found, loss, own_lag, shared_lag)

    def _add(self, sample: Sample) -> None:
        windows = self.windows
        windows.add(sample)
        self._follow(sample)
        if windows.scored % LOOK_EVERY:
            return
        recalls = windows.recalls(max(WINDOWS))
        self._half_life = int(np.argmax([recalls[name] for name in _DECAYED]))
        self._look()

    def _follow(self, sample: Sample) -> None:
        """Count a change of what served lists find, and say so where it is one for the worse."""
        change = self.drift.add(float(sample.places["served"] != ABSENT))
        if change is not None and change.direction == "down":
            recalls = {"before": round(change.before, 4), "after": round(change.after, 4)}
            log.warning("served lists find less than they did", **recalls)

    def _look(self) -> None:
        """Raise the alarm where some window says that `served` is below its baselines; clear it where none does any more."""
        errors = {window: self.windows.errors_below(BASELINES, window) for window in WINDOWS}
        below = max(errors.values()) > (CLEAR_ERRORS if self.below_baselines else BELOW_ERRORS)
        if below == self.below_baselines:
            return
        self.below_baselines = below
        window = max(errors, key=lambda window: errors[window])
        recalls = {arm: round(recall, 4) for arm, recall in self.windows.recalls(window).items() if arm in ARMS[:4]}
        said = (
            "served lists are below their baselines" if below else "served lists are not below their baselines any more"
        )
        log.warning(said, window=window, standard_errors=round(errors[window], 1), **recalls)

    def figures(self, active: int) -> dict[str, Any]:
        """All figures as plain numbers, NaN where there is nothing to take a mean of.

        Parameters
        ----------
        active : videos that may be recommended, of which the lists cover a part
        """
        windows, budget = self.windows, self.budget
        return {
            "scored": windows.scored,
            "positives": self.wanted,
            "failed": self.failed,
            "sampled_ratio": self.drawn / self.wanted if self.wanted else 0.0,
            "cpu_seconds": budget.spent_s,
            "cpu_ratio": budget.spent_s / max(budget.process_s, 1e-9),
            "below_baselines": self.below_baselines,
            "drifts": dict(self.drift.changes),
            "popularity_half_life": HALF_LIVES[self._half_life],
            "hits": {arm: windows.hits[arm] for arm in ARMS},
            "own_lags": windows.own_lags,
            "shared_lags": windows.shared_lags,
            "gains": {arm: windows.gains[arm] for arm in ARMS},
            "windows": {window: _of_arms(windows.figures(window, active)) for window in WINDOWS},
        }


def situation(engine: Engine, slot: int, row: int) -> tuple[Context, BoolArray]:
    """What is known of the user in `slot` before they came to `row`, and what may be in their list; bool, by row."""
    users, replica = engine.users, engine.replica
    context, allowed = engine.context(slot), engine.allowed(slot)
    if users.open_row[slot] == row:
        # They came to it in an earlier batch. It is not what they went on from, and what was seen last was seen only then.
        passed = users.passed[slot]
        context = context._replace(passed=passed[passed >= 0])
        seen = users.seen(slot)
        if len(seen) and seen[-1] & ~np.uint64(1) == replica.hashes[row]:
            allowed[row] = replica.active[row]
    if not replica.described(row) and not replica.counts[row].any():
        # It has come with this batch: nobody could have listed it.
        allowed[row] = False
    return context, allowed


def is_first(engine: Engine, events: Events, e: int, liked: UInt8Array) -> bool:
    """Whether event `e` will be its pair's first positive, and teach what all users share."""
    users, slot, row = engine.users, int(events.slots[e]), events.rows[e]
    if (liked[:e].astype(np.bool_) & (events.slots[:e] == slot) & (events.rows[:e] == row)).any():
        return False
    if (users.recent[slot] == events.event_ids[e]).any() or users.in_hour[slot] >= HOURLY_MAX:
        return False
    return not bool((users.seen(slot) == (engine.replica.hashes[row] | np.uint64(1))).any())


def row_start(events: Events, e: int) -> int:
    """Place in the batch of the first event of the log's row that event `e` belongs to: one user, video and time."""
    slots, rows, at_ms = events.slots, events.rows, events.at_ms
    start = e
    while start > 0 and (slots[start - 1], rows[start - 1], at_ms[start - 1]) == (slots[e], rows[e], at_ms[e]):
        start -= 1
    return start


def _chances(scores: Float32Array) -> Float64Array:
    """Softmax of scores, float64; a score of minus infinity has no chance."""
    usable = np.where(np.isfinite(scores), scores, -np.inf).astype(np.float64)
    highest = usable.max(initial=-np.inf)
    if not np.isfinite(highest):
        return np.zeros(len(usable))
    chances: Float64Array = np.exp(usable - highest)
    chances /= chances.sum()
    return chances


def _novelty_bits(engine: Engine, listed: Int32Array) -> float:
    """Mean of -log2 of the listed videos' shares of all first positives; one is added to each count, so that none is 0."""
    if not len(listed):
        return 0.0
    plays = engine.popularity.columns["plays"][listed] + 1.0
    return float(-np.log2(plays / (engine.plays + len(engine.replica))).mean())


def _of_arms(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Without the arms that only choose a half-life."""
    chosen = {name: {arm: figures[name][arm] for arm in ARMS} for name in ("recall", "ndcg")}
    return {**figures, **chosen}

"""Prequential evaluation: rank for each positive, then learn it; the engine and the ranking are those that serve.

Flows in: an event table and a catalogue. Flows out: recall, NDCG, MRR and precision of each arm. Always holds: nothing of an
event is known when it is ranked, neither its own row nor anything later; every arm sees the same catalogue, the same unseen
videos and breaks ties the same way, by the order in which videos became known.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from agents import items, users
from api.recommend import rank
from ingestion.event_table import EventTable, NothingPositive
from online_models.base import Context
from state.engine import DAY_MS, Engine, EngineOptions
from state.rows import Cut
from state.shard import Shard
from state.store import MemoryStore
from state.types import BoolArray, Float64Array, Int64Array
from topics.catalog import Video
from topics.interactions import Interaction
from topics.signals import signals

ARMS = ("served", "popularity", "popularity_decayed", "item_knn", "mf")
#: Half-lives of the decayed baseline, in positive events; the best of them in the warm-up is the arm.
HALF_LIVES = (300.0, 3_000.0, 30_000.0)
#: Users with fewer events than this before the ranked one are cold.
COLD_BELOW = 3
#: Events learned at once where nothing has to be ranked between them.
BATCH = 500
#: A clock that runs slower than this would make every half-life longer than any log.
LEAST_POSITIVES_PER_DAY = 1e-3


@dataclass
class Tally:
    """Sums of one arm over one group of ranked positives."""

    n: int = 0
    hits: int = 0
    dcg: float = 0.0
    reciprocal: float = 0.0

    def add(self, position: int | None) -> None:
        """Count a ranked positive; `position` from 0 in the list of k, None if it is not in it."""
        self.n += 1
        if position is not None:
            self.hits += 1
            self.dcg += 1.0 / math.log2(position + 2.0)
            self.reciprocal += 1.0 / (position + 1.0)

    def metrics(self, k: int) -> dict[str, float]:
        """Means; one relevant video an event, so that NDCG's ideal is 1 and recall is the hit rate."""
        n = max(self.n, 1)
        return {
            f"recall@{k}": round(self.hits / n, 5),
            f"ndcg@{k}": round(self.dcg / n, 5),
            "mrr": round(self.reciprocal / n, 5),
            f"precision@{k}": round(self.hits / n / k, 6),
        }


class CountedPopularity:
    """The decayed baseline: counts that halve every `half_life` positive events of the whole stream."""

    def __init__(self) -> None:
        self._counts: Float64Array = np.zeros((len(HALF_LIVES), 1024))
        self._at: Float64Array = np.zeros((len(HALF_LIVES), 1024))
        self._clock = 0.0

    def learn(self, row: int) -> None:
        """One more positive for `row`."""
        if row >= self._counts.shape[1]:
            more = max(row + 1, 2 * self._counts.shape[1]) - self._counts.shape[1]
            self._counts = np.pad(self._counts, ((0, 0), (0, more)))
            self._at = np.pad(self._at, ((0, 0), (0, more)))
        self._clock += 1.0
        for h, half_life in enumerate(HALF_LIVES):
            age = self._clock - self._at[h, row]
            self._counts[h, row] = self._counts[h, row] * 2.0 ** (-age / half_life) + 1.0
            self._at[h, row] = self._clock

    def scores(self, which: int, n: int) -> Float64Array:
        """Counts of the first `n` rows with half-life number `which`, as of now."""
        out = np.zeros(n)
        known = min(n, self._counts.shape[1])
        age = self._clock - self._at[which, :known]
        out[:known] = self._counts[which, :known] * 2.0 ** (-age / HALF_LIVES[which])
        return out


@dataclass
class Result:
    """What came out; `to_json` has the documented shape."""

    k: int
    arms: dict[str, Tally] = field(default_factory=lambda: {arm: Tally() for arm in ARMS})
    cold: dict[str, Tally] = field(default_factory=lambda: {arm: Tally() for arm in ARMS})
    warm: dict[str, Tally] = field(default_factory=lambda: {arm: Tally() for arm in ARMS})
    learned: int = 0
    learn_seconds: float = 0.0
    rank_seconds: float = 0.0
    half_life: float = HALF_LIVES[0]
    new_videos: int = 0
    events: int = 0
    positives_per_day: float = 0.0

    def to_json(self) -> dict[str, object]:
        """`n`, `arms`, `cold`, `warm`, `learn_us`, `rank_us`, and how the run was made."""

        def table(tallies: dict[str, Tally]) -> dict[str, dict[str, float]]:
            return {arm: tally.metrics(self.k) for arm, tally in tallies.items()}

        n = self.arms["served"].n
        return {
            "n": n,
            "arms": table(self.arms),
            "cold": {"n": self.cold["served"].n, "arms": table(self.cold)},
            "warm": {"n": self.warm["served"].n, "arms": table(self.warm)},
            "learn_us": round(1e6 * self.learn_seconds / max(self.learned, 1), 1),
            "rank_us": round(1e6 * self.rank_seconds / max(n, 1), 1),
            "events": self.events,
            "new_video_n": self.new_videos,
            "popularity_half_life": self.half_life,
            "positives_per_day": round(self.positives_per_day, 3),
        }


def first_positives(table: EventTable, positive: BoolArray) -> Int64Array:
    """Indices of the events that are a user-video pair's first positive, ascending; int64."""
    where = np.flatnonzero(positive)
    pairs = _pairs(table)[where]
    _, first = np.unique(pairs, return_index=True)
    chosen: Int64Array = np.sort(where[first])
    return chosen


def _pairs(table: EventTable) -> Int64Array:
    """A number for each event's user-video pair; int64, shape (n,)."""
    users_ = table.user_ids.dictionary_encode().indices.to_numpy().astype(np.int64)
    videos = table.video_ids.dictionary_encode()
    pairs: Int64Array = users_ * len(videos.dictionary) + videos.indices.to_numpy()
    return pairs


def _seen_before_row(table: EventTable, positive: BoolArray) -> BoolArray:
    """For each event: whether its user had seen its video at an earlier time than the event's own row; bool, shape (n,)."""
    seen = positive | signals(table.codes, table.watch_seconds, table.duration_seconds).seen
    pairs = _pairs(table)
    where = np.flatnonzero(seen)
    unique, first = np.unique(pairs[where], return_index=True)
    place = np.minimum(np.searchsorted(unique, pairs), max(len(unique) - 1, 0))
    found = unique[place] == pairs if len(unique) else np.zeros(len(pairs), np.bool_)
    before: BoolArray = found & (table.at_ms[where[first]][place] < table.at_ms)
    return before


class Evaluator:
    """One pass over a table.

    Parameters
    ----------
    table : events by time
    videos : the catalogue; a video joins at its `published_ms`, or with its first event
    positive : bool, shape (n,); what is a positive
    warmup : share of the first positives that is learned and not reported
    k : length of the list
    rank_every : rank only each so many-th of the first positives
    """

    def __init__(
        self,
        table: EventTable,
        videos: Iterable[tuple[str, Video]],
        positive: BoolArray,
        *,
        warmup: float = 0.3,
        k: int = 10,
        rank_every: int = 1,
        seed: int = 1,
    ) -> None:
        self.table = table
        self.positive = positive
        self.k = k
        self._first = first_positives(table, positive)
        if not len(self._first):
            raise NothingPositive("no event is positive by that rule: nothing can be ranked; try another --positive")
        self._warm_n = int(warmup * len(self._first))
        self._rank_every = rank_every
        self._seen_before = _seen_before_row(table, positive)
        begin_ms, end_ms = int(table.at_ms[0]), int(table.at_ms[self._first[max(self._warm_n - 1, 0)]])
        # The clock's rate as an operator would set it: measured on what came before, the warm-up.
        per_day = max(self._warm_n, 1) * DAY_MS / max(end_ms - begin_ms, 1)
        self.result = Result(k, positives_per_day=max(per_day, LEAST_POSITIVES_PER_DAY), events=len(table))
        named = dict(videos)
        self.engine = Engine(
            EngineOptions(
                partitions=1,
                max_users=max(len(table.user_ids.unique()), 1),
                max_videos=max(len(table.video_ids.unique()) + len(named), 1),
                positives_per_day=self.result.positives_per_day,
                seed=seed,
            ),
            origin=b"evaluate",
        )
        self._shard = Shard(0, MemoryStore(), MemoryStore(), Cut({}))
        self.engine.add_shard(self._shard)
        dated = [(video.published_ms, video_id) for video_id, video in named.items() if video.published_ms is not None]
        self._due = sorted(dated, reverse=True)
        self._undated = {video_id: video for video_id, video in named.items() if video.published_ms is None}
        self._named = named
        self._counted = CountedPopularity()

    def run(self, progress: Callable[[int], None] = lambda _done: None) -> Result:
        """Rank and learn the whole table; `progress` is told how many events are done."""
        learned_to = 0
        choosing = [Tally() for _ in HALF_LIVES]
        for number, event in enumerate(self._first.tolist()):
            self._learn(learned_to, event)
            learned_to = event
            self._publish(int(self.table.at_ms[event]))
            if number < self._warm_n:
                self._choose(choosing, event)
            elif (number - self._warm_n) % self._rank_every == 0:
                self._rank(event)
            self._learn(event, event + 1)
            learned_to = event + 1
            self._counted.learn(self.engine.replica.row_of(self.table.video_ids[event].as_py()))
            if number + 1 == self._warm_n:
                self.result.half_life = HALF_LIVES[int(np.argmax([tally.hits for tally in choosing]))]
            if number % 200 == 0:
                progress(learned_to)
        self._learn(learned_to, len(self.table))
        progress(len(self.table))
        return self.result

    def _publish(self, at_ms: int) -> None:
        due = []
        while self._due and self._due[-1][0] <= at_ms:
            video_id = self._due.pop()[1]
            due.append((video_id, self._named[video_id]))
        self.engine.publish(due)

    def _learn(self, start: int, stop: int) -> None:
        for low in range(start, stop, BATCH):
            high = min(low + BATCH, stop)
            events = list(self.table.interactions(low, high))
            self._publish(int(self.table.at_ms[high - 1]))
            self._describe(events)
            began = time.perf_counter()
            users.learn(self.engine, self._shard, events, range(low, high), self.positive[low:high].tolist())
            for _, block in self._shard.pending.blocks(self.engine.replica, self.engine.origin, 0):
                items.apply(self.engine, self._shard, block)
            self._shard.pending.clear()
            self.result.learn_seconds += time.perf_counter() - began
            self.result.learned += high - low

    def _describe(self, events: Iterable[Interaction]) -> None:
        """Give videos without a date their description with their first event."""
        found = [(event.video_id, self._undated.pop(event.video_id, None)) for event in events]
        self.engine.publish([(video_id, video) for video_id, video in found if video is not None])

    def _situation(self, event: int) -> tuple[Context, BoolArray, int | None, int]:
        """Context, allowed rows, the target's row if it is known, and the user's events so far."""
        engine = self.engine
        slot = engine.users.find(self.table.user_ids[event].as_py(), 0)
        allowed = engine.replica.active[: len(engine.replica)].copy()
        target = engine.replica.find(self.table.video_ids[event].as_py())
        if slot is None:
            return engine.stranger(), allowed, target, 0
        allowed[engine.replica.find_codes(engine.users.seen(slot))] = False
        if target is not None and not self._seen_before[event]:
            # Only its own row has made it seen, and that row is not known yet.
            allowed[target] = engine.replica.active[target]
        return engine.context(slot), allowed, target, int(engine.users.counts[slot].sum())

    def _choose(self, tallies: list[Tally], event: int) -> None:
        _, allowed, target, _ = self._situation(event)
        for which, tally in enumerate(tallies):
            tally.add(self._position(self._counted.scores(which, len(allowed)), allowed, target))

    def _rank(self, event: int) -> None:
        context, allowed, target, before = self._situation(event)
        engine, n = self.engine, len(allowed)
        if target is None:
            self.result.new_videos += 1
        began = time.perf_counter()
        listed = rank(engine, context, allowed, self.k)
        self.result.rank_seconds += time.perf_counter() - began
        place = np.flatnonzero(listed == target) if target is not None else np.empty(0, np.int64)
        positions: dict[str, int | None] = {"served": int(place[0]) if len(place) else None}

        plays = engine.popularity.columns["plays"]
        neighbours = np.empty(n, np.float32)
        engine.covisitation.scores(context.history, plays, context.ticks, neighbours)
        factors = np.empty(n, np.float32)
        engine.mf.scores(engine.mf.user_vector(context.p, context.history), factors)
        scores = {
            "popularity": plays[:n],
            "popularity_decayed": self._counted.scores(HALF_LIVES.index(self.result.half_life), n),
            "item_knn": neighbours,
            "mf": factors,
        }
        for arm, values in scores.items():
            # Most videos are nobody's neighbour: that baseline is far better with popularity to order them.
            ties = plays[:n] if arm == "item_knn" else None
            positions[arm] = self._position(values.astype(np.float64), allowed, target, ties)
        group = self.result.cold if before < COLD_BELOW else self.result.warm
        for arm, position in positions.items():
            self.result.arms[arm].add(position)
            group[arm].add(position)

    def _position(
        self, scores: Float64Array, allowed: BoolArray, target: int | None, ties: Float64Array | None = None
    ) -> int | None:
        """The target's place among the allowed rows, None beyond k.

        Of equal scores the larger of `ties` comes first, then the row that was known first.
        """
        if target is None or not allowed[target] or not np.isfinite(scores[target]):
            return None
        own = scores[target]
        ahead = int((allowed & (scores > own)).sum())
        equal = np.flatnonzero(allowed & (scores == own))
        if ties is not None:
            ahead += int((ties[equal] > ties[target]).sum())
            equal = equal[ties[equal] == ties[target]]
        ahead += int((equal < target).sum())
        return ahead if ahead < self.k else None

"""Prequential evaluation: rank for each positive, then learn it; the engine and the ranking are those that serve.

Flows in: an event table and a catalogue. Flows out: the place of each positive in the list of each arm. Always holds: nothing of a
row of the log is known when its positive is ranked, neither its impression nor anything later; every arm sees the same
catalogue, the same unseen videos and breaks ties the same way, by the order in which videos became known.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from agents import catalog, items
from agents import users as users_agent
from agents.trial import COLD_BELOW
from cli.arms import DEFAULT, HALF_LIVES, REFITTED, CountedPopularity
from cli.positions import Positions
from cli.refit import Refit, make
from ingestion.event_table import EventTable, NothingPositive
from online_models.base import Context
from state.arms import ABSENT, COMPONENTS, Scores, place_in, position
from state.engine import Engine, EngineOptions
from state.expiry import DAY_MS
from state.exploration import EXPLORATION, PROVEN_PLAYS
from state.lists import rank
from state.objective import Objective
from state.rows import Cut
from state.shard import Shard
from state.store import MemoryStore
from state.types import BoolArray, Int64Array
from topics.catalog import User, Video
from topics.evidence import EvidenceBlock
from topics.interactions import Interaction
from topics.signals import DEFAULT_SIGNALS, SignalTable

#: Events learned at once where nothing has to be ranked between them.
BATCH = 500
#: A clock that runs slower than this would make every half-life longer than any log.
LEAST_POSITIVES_PER_DAY = 1e-3


@dataclass
class Result:
    """What came out; `to_json` has the documented shape."""

    positions: Positions
    learned: int = 0
    learn_seconds: float = 0.0
    rank_seconds: float = 0.0
    half_life: float = HALF_LIVES[0]
    events: int = 0
    positives_per_day: float = 0.0
    lag: int = 0
    evidence_lag: int = 0

    @property
    def n(self) -> int:
        """Ranked positives."""
        return len(self.positions)

    def to_json(self) -> dict[str, object]:
        """`n`, `arms`, `cold`, `warm`, `young`, `new_video_n`, `learn_us`, `rank_us`, and how the run was made."""
        cold = np.array(self.positions.cold, np.bool_)
        return {
            **self.positions.group(np.ones(self.n, np.bool_)),
            "cold": self.positions.group(cold),
            "warm": self.positions.group(~cold),
            "young": self.positions.group(np.array(self.positions.young, np.bool_)),
            "learn_us": round(1e6 * self.learn_seconds / max(self.learned, 1), 1),
            "rank_us": round(1e6 * self.rank_seconds / max(self.n, 1), 1),
            "events": self.events,
            "lag": self.lag,
            "evidence_lag": self.evidence_lag,
            "new_video_n": sum(self.positions.new),
            "popularity_half_life": self.half_life,
            "positives_per_day": round(self.positives_per_day, 3),
        }


def first_positives(table: EventTable, positive: BoolArray) -> Int64Array:
    """Indices of the events that are a user-video pair's first positive, ascending; int64."""
    where = np.flatnonzero(positive)
    pairs = pairs_of(table)[where]
    _, first = np.unique(pairs, return_index=True)
    chosen: Int64Array = np.sort(where[first])
    return chosen


def pairs_of(table: EventTable) -> Int64Array:
    """A number for each event's user-video pair; int64, shape (n,)."""
    users_ = table.user_ids.dictionary_encode().indices.to_numpy().astype(np.int64)
    videos = table.video_ids.dictionary_encode()
    pairs: Int64Array = users_ * len(videos.dictionary) + videos.indices.to_numpy()
    return pairs


def row_starts(table: EventTable, events: Int64Array) -> Int64Array:
    """First event of the row that each of `events` (int64, shape (m,)) belongs to; int64, shape (m,).

    One row of a log may be an impression, a watch and a like at one time: they follow each other in the table, with the same
    user, video and time. Whoever asks what was known before one of them must leave out all of them.
    """
    pairs = pairs_of(table)
    same = np.zeros(len(table), np.bool_)
    same[1:] = (pairs[1:] == pairs[:-1]) & (table.at_ms[1:] == table.at_ms[:-1])
    starts: Int64Array = np.maximum.accumulate(np.where(same, 0, np.arange(len(table))))
    return starts[events]


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
    seed : of first vectors and draws
    lag : events that a list does not know yet
    evidence_lag : those that what all users share does not know yet, where that is more: a worker knows of its own users at once, and
        of all others when evidence has come back
    exploration : share of lists that explore
    arms : names of `cli.arms.NAMES`
    without : features that the ranker does without
    objective : what lists are ordered by
    signals : what events say about taste
    users : what is known of users beside events, from the beginning on
    progress : told what is done, of what, and how many of how many events or positives are done
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
        lag: int = 0,
        evidence_lag: int = 0,
        exploration: float = EXPLORATION,
        arms: Sequence[str] = DEFAULT,
        without: Sequence[str] = (),
        objective: Objective = Objective(),  # noqa: B008 - frozen
        signals: SignalTable = DEFAULT_SIGNALS,
        users: Iterable[tuple[str, User]] = (),
        progress: Callable[[str, int, int], None] = lambda _what, _done, _of: None,
    ) -> None:
        self.table = table
        self.positive = positive
        self.k = k
        self._first = first_positives(table, positive)
        if not len(self._first):
            raise NothingPositive("no event is positive by that rule: nothing can be ranked; try another --positive")
        self._starts = row_starts(table, self._first)
        self._warm_n = int(warmup * len(self._first))
        self._rank_every = rank_every
        self._lag = lag
        self._evidence_lag = max(lag, evidence_lag)
        #: Blocks that are under way, with the event behind the last one that they are of.
        self._evidence: deque[tuple[int, list[EvidenceBlock]]] = deque()
        self._progress = progress
        begin_ms, end_ms = int(table.at_ms[0]), int(table.at_ms[self._first[max(self._warm_n - 1, 0)]])
        # The clock's rate as an operator would set it: measured on what came before, the warm-up.
        per_day = max(max(self._warm_n, 1) * DAY_MS / max(end_ms - begin_ms, 1), LEAST_POSITIVES_PER_DAY)
        arms = list(dict.fromkeys(arms))
        self.result = Result(
            Positions(k, {arm: [] for arm in arms}),
            events=len(table),
            positives_per_day=per_day,
            lag=lag,
            evidence_lag=self._evidence_lag,
        )
        named = dict(videos)
        self.engine = Engine(
            EngineOptions(
                partitions=1,
                max_users=max(len(table.user_ids.unique()), 1),
                max_videos=max(len(table.video_ids.unique()) + len(named), 1),
                positives_per_day=per_day,
                seed=seed,
                objective=objective,
                signals=signals,
                exploration=exploration,
            ),
            origin=b"evaluate",
        )
        self.engine.ranker.do_without(without)
        self._shard = Shard(0, MemoryStore(), MemoryStore(), Cut({}))
        self.engine.add_shard(self._shard)
        for user_id, user in users:
            catalog.describe_user(self.engine, self._shard, user_id, user)
        dated = [(video.published_ms, video_id) for video_id, video in named.items() if video.published_ms is not None]
        self._due = sorted(dated, reverse=True)
        self._undated = {video_id: video for video_id, video in named.items() if video.published_ms is None}
        self._named = named
        self._counted = CountedPopularity()
        self._refits = {arm: self._refit(REFITTED[arm], seed) for arm in arms if arm in REFITTED}

    def _refit(self, name: str, seed: int) -> "_Refitted":
        who = self.table.user_ids.dictionary_encode().indices.to_numpy().astype(np.int64)[self._first]
        names = self.table.video_ids.take(self._first).dictionary_encode()
        what = names.indices.to_numpy().astype(np.int64)
        model = make(name, who, what, seed, lambda done, of: self._progress(f"tuning {name}", done, of))
        return _Refitted(model, who, what, names.dictionary.to_pylist())

    def run(self) -> Result:
        """Rank and learn the whole table."""
        learned_to = 0
        choosing = np.zeros(len(HALF_LIVES), np.int64)
        for number, event in enumerate(self._first.tolist()):
            known = max(learned_to, int(self._starts[number]) - self._lag)
            self._learn(learned_to, known)
            learned_to = known
            self._apply(int(self._starts[number]) - self._evidence_lag)
            self._publish(int(self.table.at_ms[event]))
            if number < self._warm_n:
                choosing += self._choose(event)
            elif (number - self._warm_n) % self._rank_every == 0:
                self._rank(number, event)
            if self._lag == 0:
                self._learn(learned_to, event + 1)
                learned_to = event + 1
            # Baselines that are not ours to delay know every positive at once.
            self._counted.learn(self.engine.replica.row_of(self.table.video_ids[event].as_py()))
            for refit in self._refits.values():
                refit.model.learn(int(refit.users[number]), int(refit.videos[number]))
            if number + 1 == self._warm_n:
                self.result.half_life = HALF_LIVES[int(np.argmax(choosing))]
            if number % 200 == 0:
                self._progress("events", learned_to, len(self.table))
        self._learn(learned_to, len(self.table))
        self._progress("events", len(self.table), len(self.table))
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
            began = time.perf_counter()
            users_agent.learn(self.engine, self._shard, events, range(low, high), self.positive[low:high].tolist())
            blocks = [block for _, block in self._shard.pending.blocks(self.engine.replica, self.engine.origin, 0)]
            self._shard.pending.clear()
            self._evidence.append((high, blocks))
            self._apply(high - self._evidence_lag + self._lag)
            self.result.learn_seconds += time.perf_counter() - began
            self.result.learned += high - low
            self._describe(events)

    def _apply(self, known: int) -> None:
        """Let what all users share learn the evidence of the events before `known`."""
        while self._evidence and self._evidence[0][0] <= known:
            for block in self._evidence.popleft()[1]:
                items.apply(self.engine, self._shard, block)

    def _describe(self, events: Iterable[Interaction]) -> None:
        """Give videos without a date their description with their first event, which cannot have been chosen by it."""
        found = [(event.video_id, self._undated.pop(event.video_id, None)) for event in events]
        self.engine.publish([(video_id, video) for video_id, video in found if video is not None])

    def _situation(self, event: int) -> tuple[Context, BoolArray, int | None, int]:
        """Context, allowed rows, the target's row if it is known, and the user's events so far."""
        engine = self.engine
        slot = engine.users.find(self.table.user_ids[event].as_py(), 0)
        allowed = engine.allowed(slot)
        target = engine.replica.find(self.table.video_ids[event].as_py())
        if slot is None:
            return engine.stranger(), allowed, target, 0
        return engine.context(slot), allowed, target, int(engine.users.counts[slot].sum())

    def _choose(self, event: int) -> Int64Array:
        """Which of the decayed counts would have listed the target; int64, one a half-life."""
        _, allowed, target, _ = self._situation(event)
        return np.array(
            [
                position(Scores(self._counted.scores(which, len(allowed))), allowed, target, self.k) != ABSENT
                for which in range(len(HALF_LIVES))
            ],
            np.int64,
        )

    def _rank(self, number: int, event: int) -> None:
        context, allowed, target, before = self._situation(event)
        engine, n = self.engine, len(allowed)
        # Known, and hardly anybody has played it.
        young = target is not None and bool(engine.popularity.columns["plays"][target] < PROVEN_PLAYS)
        user_id = self.table.user_ids[event].as_py()
        began = time.perf_counter()
        listed = rank(engine, context, allowed, self.k, user_id)
        self.result.rank_seconds += time.perf_counter() - began
        positions = {"served": place_in(listed, target)}
        for arm in self.result.positions.arms:
            if arm == "popularity_decayed":
                scores = Scores(self._counted.scores(HALF_LIVES.index(self.result.half_life), n))
            elif arm in self._refits:
                scores = self._refits[arm].scores(number, engine, n)
            elif arm != "served":
                scores = COMPONENTS[arm](engine, context, n)
            else:
                continue
            positions[arm] = position(scores, allowed, target, self.k)
        self.result.positions.add(int(self.table.at_ms[event]), before < COLD_BELOW, target is None, young, positions)


class _Refitted:
    """A batch model, which numbers videos by their first positive, beside an engine, which numbers them as it met them."""

    def __init__(self, model: Refit, users: Int64Array, videos: Int64Array, names: list[str]) -> None:
        self.model, self.users, self.videos = model, users, videos
        self._names = names
        #: Videos that have had a positive before the one of each number.
        self._known = np.concatenate([[0], np.maximum.accumulate(videos) + 1])
        self._rows: Int64Array = np.empty(0, np.int64)

    def scores(self, number: int, engine: Engine, n: int) -> Scores:
        """Scores for the user of a positive, by the engine's rows; what has had no positive yet comes last."""
        known = int(self._known[number])
        fresh = [engine.replica.row_of(name) for name in self._names[len(self._rows) : known]]
        self._rows = np.append(self._rows, np.array(fresh, np.int64))
        out = np.full(n, -np.inf)
        here = self._rows < n
        out[self._rows[here]] = self.model.scores(int(self.users[number]), known)[here]
        return Scores(out)

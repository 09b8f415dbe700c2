"""Lists for users and videos, computed from live state: candidates, filter, rank, explore.

Flows in: an engine and a user or a video. Flows out: rows with scores and reasons. Always holds: what a user has seen, and what
is hidden or deleted, is in no list of theirs; nothing here creates an entry for anybody. Pure reads of the engine, but for what
`state.exploration` counts of lists and offers, which belongs to the process alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from online_models.base import HISTORY, Context
from online_models.features import Described, Votes
from state import ranking
from state.engine import Engine
from state.exploration import NOBODY, TASTE
from state.expression import Expression
from state.filters import ANY, Filter
from state.index import EXACT_BELOW
from state.mixing import mixed, pool_of
from state.prediction import inputs_of
from state.ranking import Scored, best, best_of, score_candidates, score_rows
from state.stages import Stages
from state.tuning import MAX_EXPLORED, PLAIN, Tuning
from state.types import BoolArray, Float32Array, Int32Array, UInt32Array, UInt64Array
from topics.partitions import stable_hash

#: Shorter lists have no room for a place of exploration.
EXPLORE_FROM_N = 5
#: Videos of a session that count.
MAX_SESSION = HISTORY
#: Videos of the history that can be named as reasons; co-visitation scores by no more.
REASON_LAGS = 10
#: Cosine from which content is named as a reason, and how much more often than by all, as a logarithm, people like the user choose
#: what is named by that: a quarter.
ALIKE = 0.3
LIFTED = 0.22
#: What is among so many most popular videos is said to be trending, if nothing else is known.
TOP = 50
#: The least that one list left alone adds to log-odds: a rotation of 1 holds back, and does not forbid.
HELD_BACK = -20.0
#: Records that are looked at, beside the candidates', for what fits a filter.
LOOKED_AT = 2_000


#: Row, score, and whether the place explores.
Place = tuple[int, float, bool]


@dataclass(frozen=True)
class Why:
    """A reason: kind, words, and the row that it comes from."""

    kind: str
    text: str
    row: int | None = None


@dataclass(frozen=True)
class Served:
    """One place of a list."""

    row: int
    score: float
    reasons: list[Why] = field(default_factory=list)
    explores: bool = False


class PersonalList(NamedTuple):
    """A list, where it came from ("owner", "session" or "trending"), what was known of whom it is for, and its candidates."""

    served: list[Served]
    source: str
    context: Context
    candidates: Scored


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes
    ----------
    n : length
    offset : places to leave out at its top
    exclude : ids of videos that must not be in it
    session : ids of videos that were just watched, the latest last: before the user's own history, as if they had been positives
    wanted : what the videos must be
    tuning : how the list is made
    shown : uint32, shape (m,); the lower halves of hashes of videos that were in the pages before
    """

    n: int
    offset: int = 0
    exclude: Sequence[str] = ()
    session: Sequence[str] = ()
    wanted: Filter = ANY
    tuning: Tuning = PLAIN
    shown: UInt32Array | None = None

    @property
    def before(self) -> int:
        """Places before the list's first."""
        return self.offset + (0 if self.shown is None else len(self.shown))


def recommend(engine: Engine, user_id: str, partition: int, n: int) -> tuple[list[Served], str]:
    """A list of up to `n` videos for a user, and where it came from: "owner" or "trending"."""
    found = personal_list(engine, user_id, partition, Wish(n))
    return found.served, found.source


def personal_list(
    engine: Engine, user_id: str | None, partition: int, wish: Wish, stages: Stages | None = None
) -> PersonalList:
    """A list of up to `wish.n` videos.

    Parameters
    ----------
    user_id : None for somebody without an account, of whom only the session is known
    partition : of the user
    stages : told where the time goes
    """
    slot = None
    if user_id is not None:
        slot = (
            engine.users.find(user_id, partition)
            if engine.holder(partition) is not None
            else engine.users.peek(user_id)
        )
    context = engine.stranger() if slot is None else engine.context(slot)
    source = "owner" if len(context.history) or context.segments.any() else "trending"
    allowed = engine.allowed(slot)
    allowed[_known(engine, wish.exclude)] = False
    if wish.shown is not None:
        allowed[_coded(engine, wish.shown)] = False
    wish.wanted.narrow(engine, allowed)
    watched = _known(engine, wish.session)
    if len(watched):
        allowed[watched] = False
        latest = list(dict.fromkeys([*watched[::-1].tolist(), *context.history.tolist()]))[:HISTORY]
        context = context._replace(history=np.array(latest, np.int32))
        source = "session" if source == "trending" else source
    if stages is not None:
        stages.mark("filter")
    places, candidates = _ordered(engine, context, allowed, user_id, partition, wish, stages)
    reasons = _Reasons(engine, context).of(places)
    served = [Served(row, score, why, explores) for (row, score, explores), why in zip(places, reasons, strict=True)]
    if stages is not None:
        stages.mark("explain")
    return PersonalList(served, source, context, candidates)


def _ordered(
    engine: Engine,
    context: Context,
    allowed: BoolArray,
    user_id: str | None,
    partition: int,
    wish: Wish,
    stages: Stages | None = None,
    exact_below: int = EXACT_BELOW,
) -> tuple[list[Place], Scored]:
    """The list's places, without those that are left out at its top, and all candidates."""
    tuning = wish.tuning
    held_back: Sequence[UInt64Array] = ()
    if tuning.rotation > 0.0 and user_id is not None and partition in engine.shards:
        held_back = engine.shards[partition].served.left_alone(user_id.encode())
    n = wish.n + wish.offset
    pool = pool_of(n) if tuning.mixes else n
    candidates = score_candidates(
        engine, context, allowed, pool, exact_below, objective=tuning.objective, without=tuning.without, stages=stages
    )
    scored = _chosen(engine, candidates, allowed, n, wish, held_back)
    places = _places(engine, context, allowed, n, user_id, scored, wish)
    if stages is not None:
        stages.mark("diversify")
    return places[wish.offset :], candidates


def _chosen(
    engine: Engine,
    scored: Scored,
    allowed: BoolArray,
    n: int,
    wish: Wish,
    held_back: Sequence[UInt64Array],
) -> Scored:
    """The `n` of the candidates that are listed, in their order, as far as nothing explores."""
    tuning, wanted = wish.tuning, wish.wanted
    pool = pool_of(n) if tuning.mixes else n
    if not wanted and not tuning.reorders:
        return best_of(scored, n)
    scores = scored.scores.copy()
    for boost in tuning.boosts:
        scores[_fits(engine, boost.when, scored.rows)] += np.float32(np.log(boost.factor))
    if tuning.rotation > 0.0:
        back = max(float(np.log1p(-min(tuning.rotation, 1.0 - 1e-9))), HELD_BACK)
        for codes in held_back:
            scores[np.isin(engine.replica.hashes[scored.rows], codes)] += np.float32(back)
    places = best(scores, pool if not wanted else len(scores))
    if wanted:
        fit = (place for place in places.tolist() if wanted.admits(engine, int(scored.rows[place])))
        places = np.array(list(islice(fit, pool)), np.int32)
    found = Scored(scored.rows[places], scores[places])
    if wanted and len(places) < n:
        found = _with_others(engine, allowed, scored.rows, found, n, wanted)
    return mixed(engine, found, n, tuning) if tuning.mixes else Scored(found.rows[:n], found.scores[:n])


def _fits(engine: Engine, when: Expression, rows: Int32Array) -> BoolArray:
    """Which rows the expression admits; records are read where columns do not tell."""
    sure, may = when.sides(engine, rows)
    fits: BoolArray = sure.copy()
    for place in np.flatnonzero(may & ~sure).tolist():
        fits[place] = when.admits(engine, int(rows[place]))
    return fits


def _with_others(
    engine: Engine, allowed: BoolArray, candidates: Int32Array, found: Scored, n: int, wanted: Filter
) -> Scored:
    """What is found, and then what else fits, most popular first: columns said that more of the candidates would."""
    others = allowed.copy()
    others[candidates] = False
    rows = np.flatnonzero(others)
    popular = engine.popularity.levels(engine.now(), len(allowed))[rows, 0]
    order = rows[np.argsort(-popular, kind="stable")][:LOOKED_AT]
    fit = list(islice((row for row in order.tolist() if wanted.admits(engine, row)), n - len(found.rows)))
    last = float(found.scores[-1]) if len(found.scores) else 0.0
    return Scored(
        np.append(found.rows, fit).astype(np.int32),
        np.append(found.scores, np.full(len(fit), last)).astype(np.float32),
    )


def _coded(engine: Engine, halves: UInt32Array) -> Int32Array:
    """Rows of the videos whose hashes have one of these lower halves; int32."""
    codes = engine.replica.hashes[: len(engine.replica)].astype(np.uint32)
    # Most share not even their last 16 bits with any: a look-up for all, a search for the few that are left.
    ends = np.zeros(1 << 16, np.bool_)
    ends[halves & 0xFFFF] = True
    rows = np.flatnonzero(ends[codes & 0xFFFF])
    coded: Int32Array = rows[np.isin(codes[rows], halves)].astype(np.int32)
    return coded


def _known(engine: Engine, video_ids: Sequence[str]) -> Int32Array:
    """Rows of those videos that are known and not deleted, in order."""
    found = [engine.replica.find(video_id) for video_id in video_ids]
    rows = np.array([row for row in found if row is not None], np.int32)
    alive: Int32Array = rows[~engine.replica.deleted[rows]]
    return alive


def rank(
    engine: Engine,
    context: Context,
    allowed: BoolArray,
    n: int,
    user_id: str | None = None,
    scored: Scored | None = None,
) -> Int32Array:
    """Rows of the list that `recommend` would serve; for evaluation, which must not differ from serving.

    Parameters
    ----------
    allowed : bool, shape (rows,); what may be recommended to this user
    user_id : to whom an exploring place counts as offered; None: to nobody
    scored : the best `n` of the candidates, where they are known already
    """
    if scored is None:
        scored = score_rows(engine, context, allowed, n)
    return np.array([row for row, _, _ in _places(engine, context, allowed, n, user_id, scored, Wish(n))], np.int32)


def rank_wish(
    engine: Engine, context: Context, allowed: BoolArray, user_id: str, partition: int, wish: Wish
) -> Int32Array:
    """Rows of the list that `personal_list` would serve a user of whom this is known, without a session or a page before.

    Parameters
    ----------
    allowed : bool, shape (rows,); what may be recommended to this user; changed
    """
    allowed[_known(engine, wish.exclude)] = False
    wish.wanted.narrow(engine, allowed)
    # An engine that learns without the graph has none to look into.
    places, _ = _ordered(engine, context, allowed, user_id, partition, wish, exact_below=engine.options.exact_below)
    return np.array([row for row, _, _ in places], np.int32)


def _places(
    engine: Engine,
    context: Context,
    allowed: BoolArray,
    n: int,
    user_id: str | None,
    scored: Scored,
    wish: Wish,
) -> list[Place]:
    """The ranked rows; where the list explores, its last places are unproven videos'."""
    places = [(row, score, False) for row, score in zip(scored.rows.tolist(), scored.scores.tolist(), strict=True)]
    explore = wish.tuning.explore
    wanted_here = int(n >= EXPLORE_FROM_N) if explore is None else min(round(explore * wish.n), MAX_EXPLORED)
    if not wanted_here:
        return places
    user = stable_hash(user_id) if user_id is not None and len(context.history) else NOBODY
    newest, rate = engine.newest_rows(), engine.play_rate
    choose = engine.exploration.choose if explore is None else engine.exploration.choose_for
    last = places[-1][1] if places else 0.0
    explored: list[Place] = []
    listed = scored.rows
    for _ in range(wanted_here):
        row = choose(context, allowed, listed, newest, rate, user)
        if row is None:
            break
        listed = np.append(listed, np.int32(row))
        if wish.wanted.admits(engine, row):
            explored.append((row, last, True))
    return [*places[: n - len(explored)], *explored]


def trending(engine: Engine, n: int, allowed: BoolArray | None = None) -> list[Served]:
    """What has the most recent positives, then whatever is in the catalogue."""
    rows = len(engine.replica)
    if allowed is None:
        allowed = engine.replica.active[:rows]
    popular = engine.popularity.levels(engine.now(), rows)[:, 0]
    found = best(np.where(allowed, popular, -np.inf), n)
    why = [Why("trending", "watched by many now")]
    return [Served(int(row), float(popular[row]), why if popular[row] > 0 else []) for row in found]


def similar(engine: Engine, row: int, n: int) -> list[Served]:
    """Videos that the same people liked, then videos that are described alike."""
    count = len(engine.replica)
    alone = Context(np.array([row], np.int32), np.zeros(engine.mf.columns["q"].shape[1], np.float32), engine.now())
    together = np.zeros(count, np.float32)
    engine.covisitation.scores(alone.history, engine.popularity.columns["plays"], alone.ticks, together)
    alike = np.zeros(count, np.float32)
    engine.content.scores(engine.content.user_vector(alone.history), alike)
    # Each counts by its share of its own best: neither has a natural scale.
    score = together / max(float(together.max(initial=0.0)), 1e-9) + 0.5 * np.maximum(alike, 0.0)
    allowed = engine.replica.active[:count].copy()
    allowed[row] = False
    served = []
    for found in best(np.where(allowed & (score > 0), score, -np.inf), n).tolist():
        reasons = []
        if together[found] > 0:
            reasons.append(Why("watched_together", "liked by the same people", row))
        if alike[found] >= ALIKE:
            reasons.append(Why("content", "described alike", row))
        served.append(Served(found, float(score[found]), reasons))
    return served


class _Reasons:
    """Says why videos are in a list; what all places share is looked up once."""

    def __init__(self, engine: Engine, context: Context) -> None:
        self._engine, self._context = engine, context
        self._history = context.history[:REASON_LAGS]
        self._popular: Float32Array | None = None

    def of(self, places: Sequence[Place]) -> list[list[Why]]:
        """Reasons for each place."""
        engine, context = self._engine, self._context
        rows = np.array([row for row, _, _ in places], np.int32)
        if not len(rows):
            return []
        liked = engine.content.score_many(context, rows).tolist()
        sources = self._sources(rows)
        lifts = [0.0] * len(rows)
        # Most users have none: for them nothing is looked up.
        if context.segments.any():
            lifts = engine.segments.lifts(rows, context.segments, context.ticks).tolist()
        reasons = []
        for place, (row, _, explores) in enumerate(places):
            if explores:
                reasons.append(
                    [Why("new", "new, and like what you watch" if liked[place] >= TASTE else "known to few yet")]
                )
                continue
            found = []
            source = sources[place]
            if source is not None:
                found.append(Why("watched_together", f"because you watched {self._name(source)}", source))
            if len(context.history) and liked[place] >= ALIKE:
                found.append(Why("content", "like what you watch"))
            if lifts[place] >= LIFTED:
                found.append(Why("segment", "liked more by people like you"))
            reasons.append(found or [self._else(row)])
        return reasons

    def _sources(self, rows: Int32Array) -> list[int | None]:
        """Of each row, that of the latest positives which is watched together with it most; None where none is."""
        if not len(self._history):
            return [None] * len(rows)
        columns = self._engine.covisitation.columns
        neighbours, weights = columns["neighbour"][self._history], columns["weight"][self._history]
        together = np.einsum("rhn,hn->rh", neighbours == rows[:, None, None], weights)
        most = together.argmax(axis=1)
        named = self._history[most].tolist()
        return [row if weight > 0 else None for row, weight in zip(named, together.max(axis=1).tolist(), strict=True)]

    def _name(self, row: int) -> str:
        """The video's title, or what it is known by."""
        video = self._engine.replica.video(row)
        return video.title if video is not None and video.title else str(self._engine.replica.ids[row])

    def _else(self, row: int) -> Why:
        """Where no model has a reason of its own."""
        if not len(self._context.history):
            return Why("trending", "watched by many now")
        if self._popular is None:
            engine = self._engine
            self._popular = engine.popularity.levels(self._context.ticks, len(engine.replica))[:, 0]
        popular = self._popular
        if popular[row] > 0 and (popular > popular[row]).sum() < TOP:
            return Why("trending", "watched by many now")
        return Why("taste", "fits what you have liked")


def list_inputs(engine: Engine, context: Context, rows: Int32Array, candidates: Scored | None = None) -> Float32Array:
    """What the heads are told of a list's videos as it is made, for the log of lists; float32, shape (m, 44).

    Parameters
    ----------
    rows : int32, shape (m,)
    candidates : what they were chosen from, in ascending order; features that are there already are not made again
    """
    if candidates is not None and candidates.described is not None and len(candidates.rows):
        places = np.minimum(np.searchsorted(candidates.rows, rows), len(candidates.rows) - 1)
        if (candidates.rows[places] == rows).all():
            known = candidates.described
            described = Described(known.items[places], known.user, known.broken[places])
            return inputs_of(engine, rows, context.behaviour, described)
    described = ranking.described(engine, context, rows, Votes.of(engine.models, context, len(engine.replica)))
    return inputs_of(engine, rows, context.behaviour, described)

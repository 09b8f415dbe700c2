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
from online_models.features import Votes
from state import ranking
from state.engine import Engine
from state.exploration import NOBODY, TASTE
from state.filters import ANY, Filter
from state.prediction import inputs_of
from state.ranking import Scored, best, score_candidates, score_rows
from state.types import BoolArray, Float32Array, Int32Array
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
    """A list, where it came from ("owner", "session" or "trending"), and what was known of whom it is for."""

    served: list[Served]
    source: str
    context: Context


def recommend(engine: Engine, user_id: str, partition: int, n: int) -> tuple[list[Served], str]:
    """A list of up to `n` videos for a user, and where it came from: "owner" or "trending"."""
    served, source, _ = personal_list(engine, user_id, partition, n)
    return served, source


def personal_list(
    engine: Engine,
    user_id: str | None,
    partition: int,
    n: int,
    *,
    exclude: Sequence[str] = (),
    session: Sequence[str] = (),
    wanted: Filter = ANY,
) -> PersonalList:
    """A list of up to `n` videos.

    Parameters
    ----------
    user_id : None for somebody without an account, of whom only the session is known
    partition : of the user
    exclude : ids of videos that must not be in it
    session : ids of videos that were just watched, the latest last: before the user's own history, as if they had been positives
    wanted : what the videos must be
    """
    slot = None
    if user_id is not None:
        slot = engine.users.find(user_id, partition) if partition in engine.shards else engine.users.peek(user_id)
    context = engine.stranger() if slot is None else engine.context(slot)
    source = "owner" if len(context.history) or context.segments.any() else "trending"
    allowed = engine.allowed(slot)
    allowed[_known(engine, exclude)] = False
    wanted.narrow(engine, allowed)
    watched = _known(engine, session)
    if len(watched):
        allowed[watched] = False
        latest = list(dict.fromkeys([*watched[::-1].tolist(), *context.history.tolist()]))[:HISTORY]
        context = context._replace(history=np.array(latest, np.int32))
        source = "session" if source == "trending" else source
    scored = _admitted(engine, context, allowed, n, wanted) if wanted else None
    places = _places(engine, context, allowed, n, user_id, scored)
    served = [
        Served(row, score, _reasons(engine, context, row, explores), explores)
        for row, score, explores in places
        if not explores or wanted.admits(engine.replica.video(row))
    ]
    return PersonalList(served, source, context)


def _admitted(engine: Engine, context: Context, allowed: BoolArray, n: int, wanted: Filter) -> Scored:
    """The best `n` whose records fit."""
    scored = score_candidates(engine, context, allowed, n)
    order = best(scored.scores, len(scored.scores))
    fit = (place for place in order.tolist() if wanted.admits(engine.replica.video(int(scored.rows[place]))))
    places = np.array(list(islice(fit, n)), np.int32)
    return Scored(scored.rows[places], scored.scores[places])


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
    return np.array([row for row, _, _ in _places(engine, context, allowed, n, user_id, scored)], np.int32)


def _places(
    engine: Engine, context: Context, allowed: BoolArray, n: int, user_id: str | None, scored: Scored | None = None
) -> list[Place]:
    """The ranked rows; where the list explores, its last place is an unproven video's."""
    if scored is None:
        scored = score_rows(engine, context, allowed, n)
    places = [(row, score, False) for row, score in zip(scored.rows.tolist(), scored.scores.tolist(), strict=True)]
    if n < EXPLORE_FROM_N:
        return places
    user = stable_hash(user_id) if user_id is not None and len(context.history) else NOBODY
    newest, rate = engine.newest_rows(), engine.play_rate
    row = engine.exploration.choose(context, allowed, scored.rows, newest, rate, user)
    if row is None:
        return places
    last = places[-1][1] if places else 0.0
    return [*places[: n - 1], (row, last, True)]


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


def _reasons(engine: Engine, context: Context, row: int, explores: bool) -> list[Why]:
    if explores:
        liked = float(engine.content.score_many(context, np.array([row], np.int32))[0]) >= TASTE
        return [Why("new", "new, and like what you watch" if liked else "known to few yet")]
    alike = []
    # Most users have none: for them nothing is looked up, place by place.
    if (
        context.segments.any()
        and engine.segments.lifts(np.array([row], np.int32), context.segments, context.ticks)[0] >= LIFTED
    ):
        alike = [Why("segment", "liked more by people like you")]
    if not len(context.history):
        return alike or [Why("trending", "watched by many now")]
    reasons = []
    history = context.history[:REASON_LAGS]
    columns = engine.covisitation.columns
    weights = np.where(columns["neighbour"][history] == row, columns["weight"][history], 0.0).sum(axis=1)
    if len(weights) and weights.max() > 0:
        source = int(history[int(np.argmax(weights))])
        reasons.append(Why("watched_together", f"because you watched {engine.replica.ids[source]}", source))
    if float(engine.content.score_many(context, np.array([row], np.int32))[0]) >= ALIKE:
        reasons.append(Why("content", "like what you watch"))
    reasons += alike
    if not reasons:
        popular = engine.popularity.levels(context.ticks, len(engine.replica))[:, 0]
        if popular[row] > 0 and (popular > popular[row]).sum() < 50:
            reasons.append(Why("trending", "watched by many now"))
        else:
            reasons.append(Why("taste", "fits what you have liked"))
    return reasons


def list_inputs(engine: Engine, context: Context, rows: Int32Array) -> Float32Array:
    """What the heads are told of a list's videos as it is made, for the log of lists; float32, shape (m, 44)."""
    described = ranking.described(engine, context, rows, Votes.of(engine.models, context, len(engine.replica)))
    return inputs_of(engine, rows, context.behaviour, described)

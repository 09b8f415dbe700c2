"""Arms: what a served list is compared with, each a score for every video, and where a target stands in each.

Flows in: the engine and a user's context. Flows out: scores, and places in a list. Always holds: an arm reads what the engine knows
now and changes nothing; where it has no opinion, popularity orders.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from online_models.base import Context
from online_models.neighbours import Neighbours
from online_models.popularity import HALF_LIVES
from state.engine import Engine
from state.types import BoolArray, Float64Array, Int32Array, Int64Array

#: The place of a target that is not in the list.
ABSENT = -1


class Scores(NamedTuple):
    """Scores of the first n rows, and what orders equal ones before the order in which videos became known.

    Attributes
    ----------
    scores : float64, shape (n,)
    ties : float64, shape (n,), or None
    """

    scores: Float64Array
    ties: Float64Array | None = None


Component = Callable[[Engine, Context, int], Scores]


def _popularity(engine: Engine, _context: Context, n: int) -> Scores:
    return Scores(engine.popularity.columns["plays"][:n])


def _shown(engine: Engine, context: Context, n: int) -> Scores:
    return Scores(engine.popularity.shown_lately(context.ticks, n).astype(np.float64))


def _item_knn(engine: Engine, context: Context, n: int) -> Scores:
    return _voted(engine.covisitation, engine, context, n)


def _markov(engine: Engine, context: Context, n: int) -> Scores:
    return _voted(engine.markov, engine, context, n)


def _voted(model: Neighbours, engine: Engine, context: Context, n: int) -> Scores:
    plays = engine.popularity.columns["plays"]
    out = np.empty(n, np.float32)
    model.scores(context.history, plays, context.ticks, out)
    # Most videos are nobody's neighbour: that baseline is far better with popularity to order them.
    return Scores(out.astype(np.float64), plays[:n])


def _mf(engine: Engine, context: Context, n: int) -> Scores:
    out = np.empty(n, np.float32)
    engine.mf.scores(engine.mf.user_vector(context.p, context.history), out)
    return Scores(out.astype(np.float64))


def _content(engine: Engine, context: Context, n: int) -> Scores:
    out = np.empty(n, np.float32)
    engine.content.scores(engine.content.user_vector(context.history), out)
    return Scores(out.astype(np.float64), engine.popularity.columns["plays"][:n])


def _segment(engine: Engine, context: Context, n: int) -> Scores:
    plays = engine.popularity.columns["plays"][:n]
    if not context.segments.any():
        return Scores(plays)
    scores = engine.segments.score_many(context, np.arange(n, dtype=np.int32))
    return Scores(scores.astype(np.float64), plays)


COMPONENTS: Mapping[str, Component] = {
    "popularity": _popularity,
    "item_knn": _item_knn,
    "mf": _mf,
    "markov": _markov,
    "content": _content,
    "shown": _shown,
    "segment": _segment,
}
"""Arms that the engine's own models make, by name."""


def decayed(engine: Engine, context: Context, n: int) -> list[Scores]:
    """The engine's own fading counts of the first `n` rows, one arm for each of `HALF_LIVES` of them."""
    levels = engine.popularity.levels(context.ticks, n)
    return [Scores(levels[:, which].astype(np.float64)) for which in range(len(HALF_LIVES))]


def position(given: Scores, allowed: BoolArray, target: int | None, k: int) -> int:
    """The target's place among the allowed rows by these scores, ABSENT beyond k.

    Of equal scores the larger of `ties` comes first, then the row that was known first.
    """
    scores, ties = given
    if target is None or not allowed[target] or not np.isfinite(scores[target]):
        return ABSENT
    own = scores[target]
    ahead = int((allowed & (scores > own)).sum())
    if ahead >= k:
        return ABSENT
    equal = np.flatnonzero(allowed & (scores == own))
    if ties is not None:
        ahead += int((ties[equal] > ties[target]).sum())
        equal = equal[ties[equal] == ties[target]]
    ahead += int((equal < target).sum())
    return ahead if ahead < k else ABSENT


def place_in(listed: Int32Array, target: int | None) -> int:
    """The target's place in a list (int32, shape (m,)), ABSENT if it is not there."""
    if target is None:
        return ABSENT
    found: Int64Array = np.flatnonzero(listed == target)
    return int(found[0]) if len(found) else ABSENT

"""Arms of an evaluation: what `served` is compared with, each a score for every video.

Flows in: the engine and a user's context; batch models get every first positive too. Flows out: scores. Always holds: an arm reads
what the engine knew when the list was made; where an arm has no opinion, popularity orders.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from online_models.base import Context
from online_models.neighbours import Neighbours
from state.engine import Engine
from state.types import Float64Array

#: Half-lives of the decayed baseline, in positive events; the best of them in the warm-up is the arm.
HALF_LIVES = (300.0, 3_000.0, 30_000.0)


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


COMPONENTS: Mapping[str, Component] = {
    "popularity": _popularity,
    "item_knn": _item_knn,
    "mf": _mf,
    "markov": _markov,
    "content": _content,
    "shown": _shown,
}
"""Arms that the engine's own models make, by name."""

DEFAULT = ("served", "popularity", "popularity_decayed", "item_knn", "mf")
REFITTED = {"ease_refit": "ease", "als_refit": "als"}
"""Arms of batch models, and what they are called when they are asked for."""
NAMES = (*DEFAULT, *(name for name in COMPONENTS if name not in DEFAULT), *REFITTED)

"""The served score: one number an item from what all models say of it.

In: the models' raw scores of the same items for one user. Out: a weighted sum of features, with a set of weights for
each length of history, since neighbours and vectors say nothing of a stranger and popularity little to a friend. All
features are on a logarithmic scale, as the factorisation's scores are, so that a sum of them weighs evidence.

The weights are fixed: a maximum-likelihood fit (softmax of the chosen item over all unseen ones) on the first 30% of
two logs, short videos and films, the same for both.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from online_models.base import Context, Float32Array, Int32Array, ModelError
from online_models.content import ContentModel
from online_models.linear import dot_rows, weighted_sum
from online_models.neighbours import Neighbours
from online_models.popularity import Popularity
from online_models.sequential_mf import SequentialMF

FEATURES = (
    "context",
    "bias",
    "covisitation",
    "markov",
    "popularity_300",
    "popularity_3000",
    "popularity_30000",
    "content",
)
"""Order of the features in every array of this module. `context` is the factorisation's score without `bias`."""

_COVISITATION, _MARKOV = FEATURES.index("covisitation"), FEATURES.index("markov")
_POPULARITY = slice(FEATURES.index("popularity_300"), FEATURES.index("popularity_30000") + 1)
_CONTENT = FEATURES.index("content")

SHARE_FLOOR = np.float32(3e-3)
"""Added to a neighbour share under the logarithm: an item that no neighbour names is not impossible. Ten times less, and
the fit spends its weight on telling rarely named items from unnamed ones instead of ordering the best."""

COUNT_FLOOR = np.float32(0.1)
"""Added to a decayed count under the logarithm: a new item ranks as one with a tenth of an event."""

LEAST_TOTAL = 1e-30
"""A sum of neighbour scores below this is none."""

BUCKETS = (1, 5)
"""Least history lengths of the second and third set of weights; the first is for users without history."""


class Models(NamedTuple):
    """The models whose scores are blended, over the same rows."""

    popularity: Popularity
    covisitation: Neighbours
    markov: Neighbours
    mf: SequentialMF
    content: ContentModel


class Components(NamedTuple):
    """What the models say of some items for one user.

    Attributes
    ----------
    raw : float32, shape (8, n); one row a feature, before logarithms
    covisitation_total, markov_total : sums of these scores over all items, not only over those in `raw`
    """

    raw: Float32Array
    covisitation_total: float
    markov_total: float

    def take(self, places: Int32Array) -> "Components":
        """Keep only some columns of `raw`."""
        return self._replace(raw=self.raw[:, places])


def _fixed() -> Float32Array:
    return np.array(
        [
            [0.00, 0.20, 0.00, 0.00, 0.11, 0.18, 0.58, 0.00],
            [0.50, 0.05, 0.24, -0.04, 0.16, 0.30, 0.50, 0.93],
            [0.51, 0.24, 1.28, 0.22, 0.00, 0.69, -0.34, 3.43],
        ],
        np.float32,
    )


@dataclass(frozen=True)
class BlendWeights:
    """Weights of features.

    Attributes
    ----------
    rows : float32, shape (3, 8); for histories of 0, 1 to 4, and 5 or more items
    """

    rows: Float32Array = field(default_factory=_fixed)

    def __post_init__(self) -> None:
        if self.rows.shape != (len(BUCKETS) + 1, len(FEATURES)) or not np.isfinite(self.rows).all():
            raise ModelError(f"blend: expected finite weights of shape {(len(BUCKETS) + 1, len(FEATURES))}")

    def of(self, history_length: int) -> Float32Array:
        """Weights for a user with so many items of history, float32, shape (8,)."""
        row: Float32Array = self.rows[sum(history_length >= least for least in BUCKETS)]
        return row


class Blended(NamedTuple):
    """Served scores.

    Attributes
    ----------
    scores : float32, shape (n,); minus infinity where a component was not a number
    not_a_number : how many those are; above 0 something is broken and should be seen
    """

    scores: Float32Array
    not_a_number: int


def components(models: Models, context: Context, n_items: int, rows: Int32Array | None = None) -> Components:
    """Ask every model; pure.

    Parameters
    ----------
    n_items : rows in use, the first ones
    rows : int32, shape (n,); the candidates; None: all `n_items`
    """
    n = n_items if rows is None else len(rows)
    plays = models.popularity.columns["plays"]
    q, b = models.mf.columns["q"], models.mf.columns["b"]
    z = models.mf.user_vector(context.p, context.history)
    taste = models.content.user_vector(context.history)
    covisitation, markov = np.empty(n_items, np.float32), np.empty(n_items, np.float32)
    models.covisitation.scores(context.history, plays, context.ticks, covisitation)
    models.markov.scores(context.history, plays, context.ticks, markov)
    raw = np.empty((len(FEATURES), n), np.float32)
    if rows is None:
        dot_rows(q, z, raw[0])
        raw[1] = b[:n]
        raw[_COVISITATION], raw[_MARKOV] = covisitation, markov
        raw[_POPULARITY] = models.popularity.levels(context.ticks, n).T
        models.content.scores(taste, raw[_CONTENT])
    else:
        dot_rows(q, z, raw[0], rows)
        raw[1] = b[rows]
        raw[_COVISITATION], raw[_MARKOV] = covisitation[rows], markov[rows]
        raw[_POPULARITY] = models.popularity.levels_of(rows, context.ticks).T
        models.content.scores(taste, raw[_CONTENT], rows)
    return Components(raw, float(covisitation.sum()), float(markov.sum()))


def features(given: Components) -> Float32Array:
    """Put components on one logarithmic scale; float32, shape (8, n). Pure."""
    out = given.raw.copy()
    for place, total in ((_COVISITATION, given.covisitation_total), (_MARKOV, given.markov_total)):
        # Links that have all but faded say nothing, and their reciprocal is no float32.
        out[place] *= np.float32(1.0 / total) if total > LEAST_TOTAL else np.float32(0.0)
        out[place] += SHARE_FLOOR
        np.log(out[place], out=out[place])
    out[_POPULARITY] += COUNT_FLOOR
    np.log(out[_POPULARITY], out=out[_POPULARITY])
    return out


def contributions(given: Components, weights: BlendWeights, history_length: int) -> Float32Array:
    """Split each served score into its features' parts, float32, shape (8, n): what an answer gives as reasons."""
    parts: Float32Array = features(given) * weights.of(history_length)[:, None]
    return parts


def merge(given: Components, weights: BlendWeights, history_length: int) -> Blended:
    """Merge components into served scores; pure.

    Parameters
    ----------
    history_length : items in the user's history; picks the set of weights
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        scored = features(given)
    scores = np.empty(scored.shape[1], np.float32)
    weighted_sum(weights.of(history_length), scored, scores)
    broken = np.isnan(scores)
    scores[broken] = -np.inf
    return Blended(scores, int(broken.sum()))

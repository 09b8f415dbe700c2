"""Ranking of videos for a context: candidates, then the blended score with current vectors.

A catalogue of up to EXACT_BELOW videos is scored whole: on one core that is as fast as finding candidates first. Above it,
candidates come from the graph index, the neighbour tables, each popularity and the newest; they are scored again here, so a
stale index costs recall, never correctness.
"""

from typing import NamedTuple

import numpy as np

from online_models.base import Context
from online_models.blend import BlendWeights, Models, components, merge
from state.engine import Engine
from state.index import EXACT_BELOW
from state.types import BoolArray, Float32Array, Int32Array

#: Candidates by source.
FROM_INDEX = 200
FROM_NEIGHBOURS = 100
FROM_POPULARITY = 50

WEIGHTS = BlendWeights()


class Scored(NamedTuple):
    """The best of the candidates, best first.

    Attributes
    ----------
    rows : int32, shape (m,)
    scores : float32, shape (m,); finite
    """

    rows: Int32Array
    scores: Float32Array


def score_rows(engine: Engine, context: Context, allowed: BoolArray, n: int, exact_below: int = EXACT_BELOW) -> Scored:
    """The best `n` allowed rows.

    Parameters
    ----------
    allowed : bool, shape (rows,); what may be in the list
    """
    models = Models(engine.popularity, engine.covisitation, engine.markov, engine.mf, engine.content)
    count = len(allowed)
    candidates = None if count <= exact_below else find_candidates(engine, context, allowed)
    given = components(models, context, count, candidates)
    scores = merge(given, WEIGHTS, len(context.history)).scores
    if candidates is None:
        found = best(np.where(allowed, scores, -np.inf), n)
        return Scored(found, scores[found])
    places = best(scores, n)
    return Scored(candidates[places], scores[places])


def find_candidates(engine: Engine, context: Context, allowed: BoolArray) -> Int32Array:
    """Allowed rows that some source proposes, ascending; int32."""
    count = len(allowed)
    plays = engine.popularity.columns["plays"]
    factors = engine.mf.columns
    z = engine.mf.user_vector(context.p, context.history)
    found = [engine.index.search(z, FROM_INDEX, factors["q"], factors["b"])]
    scores = np.empty(count, np.float32)
    for model in (engine.covisitation, engine.markov):
        model.scores(context.history, plays, context.ticks, scores)
        found.append(best(np.where(allowed & (scores > 0), scores, -np.inf), FROM_NEIGHBOURS))
    found += [
        best(np.where(allowed, level, -np.inf), FROM_POPULARITY)
        for level in engine.popularity.levels(context.ticks, count).T
    ]
    found.append(engine.new_rows())
    rows = np.unique(np.concatenate(found)).astype(np.int32)
    return rows[allowed[rows]]


def best(scores: Float32Array, n: int) -> Int32Array:
    """Places of the `n` largest finite scores, best first; ties go to the lower place. NaN is left out."""
    usable = np.flatnonzero(np.isfinite(scores))
    if len(usable) > n:
        usable = usable[np.argpartition(-scores[usable], n - 1)[:n]]
    return usable[np.argsort(-scores[usable], kind="stable")].astype(np.int32)

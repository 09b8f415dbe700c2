"""Ranking of videos for a context: candidates from every model, their features, the ranker's scores.

Flows in: an engine, a user's context and what may be listed. Flows out: the best rows, or the candidates with their features for
a lesson. What is served and what is learned from call the same `find`. Pure reads of the engine.

Candidates are scored here with current vectors, so a stale index costs recall, never correctness.
"""

from typing import NamedTuple

import numpy as np

from online_models.base import Context
from online_models.features import Described, Votes, describe
from state.engine import Engine
from state.index import EXACT_BELOW
from state.types import BoolArray, Float32Array, Int32Array
from topics.evidence import SHOWN

#: Candidates by source. The catalogue is searched for factors exactly up to EXACT_BELOW videos: on one core that is as fast.
FROM_FACTORS = 100
FROM_NEIGHBOURS = 100
FROM_POPULARITY = 50
FROM_NEW = 30


class Candidates(NamedTuple):
    """What may be listed, as the ranker sees it.

    Attributes
    ----------
    rows : int32, shape (m,); ascending
    described : their features
    """

    rows: Int32Array
    described: Described


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
    found = find(engine, context, allowed, exact_below, n)
    scores = engine.ranker.scores(found.described, len(context.history))
    places = best(scores, n)
    return Scored(found.rows[places], scores[places])


def find(
    engine: Engine, context: Context, allowed: BoolArray, exact_below: int = EXACT_BELOW, n: int = 0
) -> Candidates:
    """Allowed rows that some source proposes, at least `n` if there are as many, with their features."""
    count = len(allowed)
    votes = Votes.of(engine.models, context, count)
    factors = engine.mf.columns
    z = engine.mf.user_vector(context.p, context.history)
    if count <= exact_below:
        scores = np.empty(count, np.float32)
        engine.mf.scores(z, scores)
        found = [best(np.where(allowed, scores, -np.inf), max(FROM_FACTORS, n))]
    else:
        found = [engine.index.search(z, max(2 * FROM_FACTORS, n), factors["q"], factors["b"])]
    found += [_named(each, allowed) for each in votes]
    found += [_first(each, allowed, max(FROM_POPULARITY, n)) for each in engine.charts.most]
    found.append(engine.new_rows()[-FROM_NEW:])
    rows = np.unique(np.concatenate(found)).astype(np.int32)
    # A chart, or the index, may know a row that has come since the list of what is allowed was made.
    rows = rows[rows < count]
    return _described(engine, context, rows[allowed[rows]], votes)


def with_chosen(engine: Engine, context: Context, found: Candidates, row: int, allowed: BoolArray) -> Candidates:
    """The candidates and one row more."""
    rows = np.unique(np.append(found.rows, np.int32(row))).astype(np.int32)
    return _described(engine, context, rows, Votes.of(engine.models, context, len(allowed)))


def _described(engine: Engine, context: Context, rows: Int32Array, votes: Votes) -> Candidates:
    replica = engine.replica
    rate = engine.play_rate
    return Candidates(
        rows, describe(engine.models, context, rows, votes, replica.counts, SHOWN, engine.ticks_per_ms, rate)
    )


def _named(votes: Float32Array, allowed: BoolArray) -> Int32Array:
    """The allowed rows with most votes."""
    rows = np.flatnonzero(votes)
    rows = rows[allowed[rows]]
    if len(rows) > FROM_NEIGHBOURS:
        rows = rows[np.argpartition(-votes[rows], FROM_NEIGHBOURS - 1)[:FROM_NEIGHBOURS]]
    return rows.astype(np.int32)


def _first(chart: Int32Array, allowed: BoolArray, n: int) -> Int32Array:
    """The first `n` allowed rows of a chart."""
    chart = chart[chart < len(allowed)]
    return chart[allowed[chart]][:n]


def best(scores: Float32Array, n: int) -> Int32Array:
    """Places of the `n` largest finite scores, best first; ties go to the lower place. NaN is left out."""
    usable = np.flatnonzero(np.isfinite(scores))
    if len(usable) > n:
        usable = usable[np.argpartition(-scores[usable], n - 1)[:n]]
    return usable[np.argsort(-scores[usable], kind="stable")].astype(np.int32)

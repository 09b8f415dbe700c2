"""Ranking of videos for a context: candidates from every model, their features, the ranker's scores.

Flows in: an engine, a user's context and what may be listed. Flows out: the best rows, or the candidates with their features for
a lesson. What is served and what is learned from call the same `find`. Pure reads of the engine.

Candidates are scored here with current vectors, so a stale index costs recall, never correctness.
"""

from typing import NamedTuple

import numpy as np

from online_models.base import Context
from online_models.features import Described, Votes, describe
from online_models.selection import mark_first, mark_largest
from state.engine import Engine
from state.index import EXACT_BELOW
from state.objective import Objective
from state.prediction import inputs_of
from state.stages import Stages
from state.types import BoolArray, Float32Array, Int32Array
from topics.evidence import SHOWN

#: Candidates by source. The catalogue is searched for factors exactly up to EXACT_BELOW videos: on one core that is as fast.
FROM_FACTORS = 100
FROM_NEIGHBOURS = 100
FROM_POPULARITY = 50
FROM_NEW = 30
#: Rows that tell whether a row can be among the best by the factors.
SAMPLE = 250


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
    """Candidates with their scores: all of them, or the best, which are finite, best first.

    Attributes
    ----------
    rows : int32, shape (m,)
    scores : float32, shape (m,)
    described : their features; None where they were not kept
    """

    rows: Int32Array
    scores: Float32Array
    described: Described | None = None


def score_rows(engine: Engine, context: Context, allowed: BoolArray, n: int, exact_below: int = EXACT_BELOW) -> Scored:
    """The best `n` allowed rows.

    Parameters
    ----------
    allowed : bool, shape (rows,); what may be in the list
    """
    return best_of(score_candidates(engine, context, allowed, n, exact_below), n)


def score_candidates(
    engine: Engine,
    context: Context,
    allowed: BoolArray,
    n: int,
    exact_below: int = EXACT_BELOW,
    *,
    objective: Objective | None = None,
    without: tuple[str, ...] = (),
    stages: Stages | None = None,
) -> Scored:
    """All candidates of a list of `n` in ascending order of rows, with their scores; of a broken one it is minus infinity.

    Parameters
    ----------
    objective : what they are ordered by; None: the engine's
    without : features that the ranker does without
    stages : told of `candidates` and `rank`
    """
    rows, votes = propose(engine, context, allowed, exact_below, n)
    if stages is not None:
        stages.mark("candidates")
    found = described(engine, context, rows, votes)
    scores = engine.ranker.scores(found, len(context.history), without)
    objective = objective or engine.options.objective
    if objective.needs_heads:
        scores = objective.combine(scores, engine.heads.logits(inputs_of(engine, rows, context.behaviour, found)))
    if stages is not None:
        stages.mark("rank")
    return Scored(rows, scores, found)


def best_of(scored: Scored, n: int) -> Scored:
    """The best `n` of them, best first."""
    places = best(scored.scores, n)
    return Scored(scored.rows[places], scored.scores[places])


def find(
    engine: Engine, context: Context, allowed: BoolArray, exact_below: int = EXACT_BELOW, n: int = 0
) -> Candidates:
    """Allowed rows that some source proposes, at least `n` if there are as many, with their features."""
    proposed, votes = propose(engine, context, allowed, exact_below, n)
    return Candidates(proposed, described(engine, context, proposed, votes))


def propose(
    engine: Engine, context: Context, allowed: BoolArray, exact_below: int = EXACT_BELOW, n: int = 0
) -> tuple[Int32Array, Votes]:
    """The rows of `find`, and the votes that their features need."""
    votes, proposed = _proposed_by_others(engine, context, allowed, n)
    _propose_by_factors(engine, context, allowed, proposed, exact_below, n)
    return np.flatnonzero(proposed).astype(np.int32), votes


def propose_with(engine: Engine, context: Context, allowed: BoolArray, row: int) -> tuple[Int32Array, Votes] | None:
    """`propose`, if `row` is among what it proposes; None else, and sooner where it plainly is not."""
    votes, proposed = _proposed_by_others(engine, context, allowed, 0)
    if not proposed[row] and _is_far(engine, context, allowed, row):
        return None
    _propose_by_factors(engine, context, allowed, proposed, engine.options.exact_below, 0)
    return (np.flatnonzero(proposed).astype(np.int32), votes) if proposed[row] else None


def _proposed_by_others(engine: Engine, context: Context, allowed: BoolArray, n: int) -> tuple[Votes, BoolArray]:
    """The votes, and marks at what all sources but the factors propose."""
    votes = Votes.of(engine.models, context, len(allowed))
    proposed = np.zeros(len(allowed), np.bool_)
    for scores in votes:
        mark_largest(proposed, scores, allowed, FROM_NEIGHBOURS, above=0.0)
    for chart in engine.charts.most:
        mark_first(proposed, chart, allowed, max(FROM_POPULARITY, n))
    mark_first(proposed, engine.new_rows()[-FROM_NEW:], allowed, FROM_NEW)
    return votes, proposed


def _propose_by_factors(
    engine: Engine, context: Context, allowed: BoolArray, proposed: BoolArray, exact_below: int, n: int
) -> None:
    most = max(FROM_FACTORS, n)
    if len(allowed) <= exact_below:
        scores = np.empty(len(allowed), np.float32)
        engine.mf.scores(engine.mf.user_vector(context.p, context.history), scores)
        mark_largest(proposed, scores, allowed, most)
        return
    if np.count_nonzero(allowed) <= exact_below:
        # Few are wanted of many: what the index finds would hardly be among them.
        rows = np.flatnonzero(allowed).astype(np.int32)
        proposed[rows[best(engine.mf.score_many(context, rows), most)]] = True
        return
    columns = engine.mf.columns
    z = engine.mf.user_vector(context.p, context.history)
    rows = engine.index.search(z, max(2 * FROM_FACTORS, n), columns["q"], columns["b"])
    # The index may know a row that has come since the list of what is allowed was made.
    mark_first(proposed, rows, allowed, len(allowed))


def _is_far(engine: Engine, context: Context, allowed: BoolArray, row: int) -> bool:
    """Whether many more rows have a larger score by the factors than these propose, as far as a sample tells.

    Of the sampled rows about `expected` are above the last one proposed; that many times three, and ten more, are above `row` by
    chance in less than one of a million cases in which it is proposed.
    """
    rows = np.append(np.arange(0, len(allowed), max(1, len(allowed) // SAMPLE)), row).astype(np.int32)
    scores = engine.mf.score_many(context, rows)
    above = int((scores[:-1] > scores[-1])[allowed[rows[:-1]]].sum())
    expected = 2 * FROM_FACTORS * (len(rows) - 1) / len(allowed)
    return above > 3.0 * expected + 10.0


def described(engine: Engine, context: Context, rows: Int32Array, votes: Votes) -> Described:
    """Features of rows (int32, shape (m,))."""
    counts, ticks_per_ms, rate = engine.replica.counts, engine.ticks_per_ms, engine.play_rate
    return describe(engine.models, context, rows, votes, counts, SHOWN, ticks_per_ms, rate)


def best(scores: Float32Array, n: int) -> Int32Array:
    """Places of the `n` largest finite scores, best first; ties go to the lower place. NaN is left out."""
    usable = np.flatnonzero(np.isfinite(scores))
    if len(usable) > n:
        usable = usable[np.argpartition(-scores[usable], n - 1)[:n]]
    return usable[np.argsort(-scores[usable], kind="stable")].astype(np.int32)

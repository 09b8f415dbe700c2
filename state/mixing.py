"""Variety: which of the best candidates make a list that is not more of the same.

Flows in: candidates, best first. Flows out: those that are listed, in their order. Always holds: a cap is kept, even if the list is
shorter for it; with no diversity and no cap the order is the candidates' own.

Diversity is maximal marginal relevance (Carbonell and Goldstein 1998): each place goes to the candidate with the largest
(1 - diversity) * relevance - diversity * (largest cosine with what stands above it), relevance being its score between the worst
candidate's 0 and the best one's 1.
"""

from collections import defaultdict

import numpy as np

from state.engine import Engine
from state.ranking import Scored
from state.tuning import Tuning
from state.types import Float32Array, Int32Array
from topics.catalog import Video

#: Candidates that are looked at for a list of n: so many a place, and at least.
POOL_A_PLACE, POOL = 3, 100


def pool_of(n: int) -> int:
    """How many candidates a list of `n` is made of."""
    return max(POOL, POOL_A_PLACE * n)


def mixed(engine: Engine, scored: Scored, n: int, tuning: Tuning) -> Scored:
    """A list of at most `n` of the candidates (best first)."""
    count = len(scored.rows)
    worst, best = float(scored.scores.min(initial=np.inf)), float(scored.scores.max(initial=-np.inf))
    relevance = (scored.scores - worst) / max(best - worst, 1e-9)
    vectors = _directions(engine, scored.rows) if tuning.diversity > 0.0 else None
    alike = np.zeros(count, np.float32)
    capped = _capped(engine, scored.rows, tuning)
    used: defaultdict[tuple[str, str], int] = defaultdict(int)
    free = np.ones(count, np.bool_)
    chosen: list[int] = []
    while len(chosen) < n and free.any():
        value = (1.0 - tuning.diversity) * relevance - tuning.diversity * alike
        place = int(np.argmax(np.where(free, value, -np.inf)))
        chosen.append(place)
        free[place] = False
        if vectors is not None:
            np.maximum(alike, vectors @ vectors[place], out=alike)
        for name, (most, members) in capped.items():
            if place in members:
                used[name] += 1
                if used[name] >= most:
                    free[members] = False
    return Scored(scored.rows[chosen], scored.scores[chosen])


def _directions(engine: Engine, rows: Int32Array) -> Float32Array:
    """Unit vectors of the rows: of their content, where they have any, else of their factors; those are at right angles."""
    content = engine.content.columns["content"][rows].astype(np.float32)
    factors = engine.mf.columns["q"][rows].copy()
    factors[content.any(axis=1)] = 0.0
    both = np.concatenate([content, factors], axis=1)
    unit: Float32Array = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-9)
    return unit


def _capped(engine: Engine, rows: Int32Array, tuning: Tuning) -> dict[tuple[str, str], tuple[int, list[int]]]:
    """Groups of which only so many may be listed: the number, and the places of their members."""
    groups: dict[tuple[str, str], tuple[int, list[int]]] = {}
    for what, most in (("author", tuning.max_per_author), ("category", tuning.max_per_category)):
        if most is None:
            continue
        for place, row in enumerate(rows.tolist()):
            video = engine.replica.video(row)
            name = None if video is None else _name(video, what)
            if name is not None:
                groups.setdefault((what, name.casefold()), (most, []))[1].append(place)
    return {name: group for name, group in groups.items() if len(group[1]) > group[0]}


def _name(video: Video, what: str) -> str | None:
    if what == "author":
        return video.author
    return video.categories[0] if video.categories else None

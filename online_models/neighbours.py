"""Neighbour lists: which items are chosen by the same people, together or one after the other.

In: a user's recent items and the item chosen next. Out: for each item a bounded list of neighbours with decayed
weights. `COVISITATION` links both ways over the last 20 items, `MARKOV` only forward over the last 2. A row's weights
are sums of `2^((t - weight_at) / half_life)`, so that an addition needs no pass over the row (forward decay, Cormode
et al. 2009): while slots are free, additions commute. The row is rescaled before the growth can overflow float32. A
full row replaces its least weight as in space-saving (Metwally et al. 2005). A row's used slots are always its first
ones.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from online_models.base import (
    EMPTY,
    HISTORY,
    BoolArray,
    ColumnSpec,
    Context,
    Float32Array,
    Float64Array,
    Int32Array,
    ItemModel,
    ModelError,
    accepted,
)
from online_models.kernel import boolean, f32, f64, i32, i64, kernel, part, read, void, write
from online_models.popularity import Popularity

MAX_GROWTH = 16.0
"""Half-lives that a row's increments may grow before it is rescaled: 2^16 leaves float32 (2^127) ample room."""

TINY = 1e-30
"""Weights below it become 0 when a row is rescaled: denormal floats would slow every later scan a hundredfold."""


@dataclass(frozen=True)
class NeighbourRule:
    """What tells one neighbour model from another.

    Attributes
    ----------
    name : name of the model
    slots : neighbours kept an item
    half_life : ticks
    lags : newest items of the history that are linked with a new one
    lag_decay : weight of lag r is `lag_decay ** r`
    both_ways : link the new item to the history's too
    scored : newest items of the history that vote
    scored_decay : the vote of lag r counts `scored_decay ** r`
    from_shift, from_power : a vote is divided by `(plays of the voter + from_shift) ** from_power`
    to_shift, to_power : and by `(plays of the scored item + to_shift) ** to_power`: popular items co-occur by chance
    """

    name: str
    slots: int
    half_life: float
    lags: int
    lag_decay: float
    both_ways: bool
    scored: int
    scored_decay: float
    from_shift: float
    from_power: float
    to_shift: float
    to_power: float

    def __post_init__(self) -> None:
        if not (self.slots > 0 and self.half_life > 0 and 0 < self.lags <= HISTORY and 0 < self.scored <= HISTORY):
            raise ModelError(f"{self.name}: slots, half_life, lags and scored must be positive, lags at most {HISTORY}")


COVISITATION = NeighbourRule(
    name="covisitation",
    slots=200,
    half_life=30_000.0,
    lags=20,
    lag_decay=0.9,
    both_ways=True,
    scored=10,
    scored_decay=0.7,
    from_shift=20.0,
    from_power=1.0,
    to_shift=20.0,
    to_power=0.2,
)
MARKOV = NeighbourRule(
    name="markov",
    slots=100,
    half_life=3_000.0,
    lags=2,
    lag_decay=0.6,
    both_ways=False,
    scored=3,
    scored_decay=0.5,
    from_shift=1.0,
    from_power=0.8,
    to_shift=1.0,
    to_power=0.1,
)


class Additions(NamedTuple):
    """Links to add, one a place; what the user's side sends to the owners of `source`.

    Attributes
    ----------
    source : int32, shape (a,); rows whose lists grow
    target : int32, shape (a,); the neighbours
    weight : float32, shape (a,)
    ticks : float64, shape (a,)
    """

    source: Int32Array
    target: Int32Array
    weight: Float32Array
    ticks: Float64Array


@kernel(i64, read(i32, 2), read(i32), read(f64), i64, f64, boolean, write(i32), write(i32), write(f32), write(f64))
def _additions(
    histories: Int32Array,
    rows: Int32Array,
    ticks: Float64Array,
    lags: int,
    lag_decay: float,
    both_ways: bool,
    source: Int32Array,
    target: Int32Array,
    weight: Float32Array,
    at: Float64Array,
) -> int:
    if not histories.shape[0] == rows.shape[0] == ticks.shape[0]:
        return -1
    used = 0
    for e in range(rows.shape[0]):
        share = 1.0
        for lag in range(min(lags, histories.shape[1])):
            held = histories[e, lag]
            if held < 0:
                break
            if held != rows[e]:
                source[used], target[used], weight[used], at[used] = held, rows[e], share, ticks[e]
                used += 1
                if both_ways:
                    source[used], target[used], weight[used], at[used] = rows[e], held, share, ticks[e]
                    used += 1
            share *= lag_decay
    return used


@part
def _add(
    neighbour: Int32Array,
    weight: Float32Array,
    weight_at: Float64Array,
    row: int,
    wanted: int,
    added: float,
    ticks: float,
    half_life: float,
    max_growth: float,
    tiny: float,
) -> None:
    slots = neighbour.shape[1]
    links = neighbour[row]
    weights = weight[row]
    if links[0] < 0:
        weight_at[row] = ticks
    growth = (ticks - weight_at[row]) / half_life
    if growth > max_growth:
        scale = np.float32(2.0**-growth)
        for s in range(slots):
            scaled = weights[s] * scale
            weights[s] = scaled if scaled > tiny else np.float32(0.0)
        weight_at[row] = ticks
        growth = 0.0
    increment = np.float32(added * 2.0**growth)
    # Passes over the whole row, without a way out and in numbers of one width: such loops become vector instructions.
    none = np.int32(slots)
    place = none
    for s in range(slots):
        fits = (links[s] == wanted) | (links[s] < 0)
        place = min(place, np.int32(s) if fits else none)
    if place < none:
        weights[place] += increment
        links[place] = wanted
        return
    # The first of the least weights. Weights are not negative, so their bits have their order, and the lesser of two integers
    # is a vector instruction.
    bits = weights.view(np.int32)
    lowest = bits[0]
    for s in range(1, slots):
        lowest = min(lowest, bits[s])
    least = none
    for s in range(slots):
        least = min(least, np.int32(s) if bits[s] == lowest else none)
    weights[least] -= increment
    if weights[least] < increment:
        weights[least] = increment
        links[least] = wanted


@kernel(i64, write(i32, 2), write(f32, 2), write(f64), read(i32), read(i32), read(f32), read(f64), f64, f64, f64)
def _apply(
    neighbour: Int32Array,
    weight: Float32Array,
    weight_at: Float64Array,
    source: Int32Array,
    target: Int32Array,
    added: Float32Array,
    ticks: Float64Array,
    half_life: float,
    max_growth: float,
    tiny: float,
) -> int:
    n = neighbour.shape[0]
    if not source.shape[0] == target.shape[0] == added.shape[0] == ticks.shape[0]:
        return 4
    for a in range(source.shape[0]):
        if not (0 <= source[a] < n and 0 <= target[a] < n):
            return 1
        if not np.isfinite(ticks[a]):
            return 2
        if not 0.0 < added[a] < np.inf:
            return 3
    for a in range(source.shape[0]):
        _add(neighbour, weight, weight_at, source[a], target[a], added[a], ticks[a], half_life, max_growth, tiny)
    return 0


@kernel(
    i64,
    write(i32, 2),
    write(f32, 2),
    write(f64),
    write(boolean),
    read(i32, 2),
    read(i32),
    read(f64),
    read(i32),
    read(boolean),
    read(boolean),
    i64,
    f64,
    boolean,
    f64,
    f64,
    f64,
)
def _learn_links(
    neighbour: Int32Array,
    weight: Float32Array,
    weight_at: Float64Array,
    linked: BoolArray,
    histories: Int32Array,
    items: Int32Array,
    ticks: Float64Array,
    rows: Int32Array,
    alive: BoolArray,
    mine: BoolArray,
    lags: int,
    lag_decay: float,
    both_ways: bool,
    half_life: float,
    max_growth: float,
    tiny: float,
) -> int:
    n = neighbour.shape[0]
    named = rows.shape[0]
    if not (histories.shape[0] == items.shape[0] == ticks.shape[0] and alive.shape[0] == mine.shape[0] == named):
        return 4
    for place in range(named):
        if not 0 <= rows[place] < n:
            return 1
    for e in range(items.shape[0]):
        if not 0 <= items[e] < named:
            return 1
        if not np.isfinite(ticks[e]):
            return 2
        for lag in range(histories.shape[1]):
            if histories[e, lag] >= named:
                return 1
    # All additions to one row together, in the order of the events: a row is 1.6 KB, and is read from memory once a block
    # instead of once an addition. Rows have nothing to do with each other, so the result is the same.
    longest = min(lags, histories.shape[1])
    begins = np.zeros(named + 1, np.int64)
    for e in range(items.shape[0]):
        item = items[e]
        for lag in range(longest):
            held = histories[e, lag]
            if held < 0:
                break
            if held != item and alive[item] and alive[held]:
                begins[held + 1] += mine[held]
                begins[item + 1] += both_ways and mine[item]
    for place in range(named):
        linked[place] = begins[place + 1] > 0
        begins[place + 1] += begins[place]
    ends = begins[:-1].copy()
    event = np.empty(begins[named], np.int32)
    other = np.empty(begins[named], np.int32)
    shares = np.empty(begins[named], np.float32)
    for e in range(items.shape[0]):
        item = items[e]
        decayed = 1.0
        for lag in range(longest):
            held = histories[e, lag]
            if held < 0:
                break
            if held != item and alive[item] and alive[held]:
                if mine[held]:
                    event[ends[held]], other[ends[held]], shares[ends[held]] = e, rows[item], decayed
                    ends[held] += 1
                if both_ways and mine[item]:
                    event[ends[item]], other[ends[item]], shares[ends[item]] = e, rows[held], decayed
                    ends[item] += 1
            decayed *= lag_decay
    for place in range(named):
        for a in range(begins[place], ends[place]):
            share, at = float(shares[a]), ticks[event[a]]
            _add(neighbour, weight, weight_at, rows[place], other[a], share, at, half_life, max_growth, tiny)
    return 0


@kernel(i64, write(f32), read(i32, 2), read(f32, 2), read(f64), read(i32), read(f64), read(f64), f64)
def _scores(
    out: Float32Array,
    neighbour: Int32Array,
    weight: Float32Array,
    weight_at: Float64Array,
    history: Int32Array,
    plays: Float64Array,
    rule: Float64Array,
    ticks: float,
) -> int:
    if plays.shape[0] < max(out.shape[0], neighbour.shape[0]):
        return 1
    for lag in range(history.shape[0]):
        if history[lag] >= neighbour.shape[0]:
            return 1
    if not np.isfinite(ticks):
        return 2
    half_life, scored_decay, from_shift, from_power, to_shift, to_power = (
        rule[0],
        rule[1],
        rule[2],
        rule[3],
        rule[4],
        rule[5],
    )
    out[:] = np.float32(0.0)
    share = 1.0
    for lag in range(history.shape[0]):
        held = history[lag]
        # False for NaN: one broken item of the history must not break all its neighbours.
        if held >= 0 and plays[held] >= 0.0:
            elapsed = max(ticks - weight_at[held], 0.0)
            vote = np.float32(share * 2.0 ** (-elapsed / half_life) / (plays[held] + from_shift) ** from_power)
            for s in range(neighbour.shape[1]):
                to = neighbour[held, s]
                if to < 0:
                    break
                if to < out.shape[0]:
                    out[to] += vote * weight[held, s]
        share *= scored_decay
    for lag in range(history.shape[0]):
        held = history[lag]
        if held >= 0:
            for s in range(neighbour.shape[1]):
                to = neighbour[held, s]
                if to < 0:
                    break
                # Negative marks "already divided": a power costs more than the whole of the rest.
                if to < out.shape[0] and out[to] > np.float32(0.0):
                    out[to] = np.float32(-out[to] / (plays[to] + to_shift) ** to_power)
    for i in range(out.shape[0]):
        out[i] = abs(out[i])
    return 0


@kernel(void, write(i32, 2), write(f32, 2), read(boolean))
def _purge(neighbour: Int32Array, weight: Float32Array, gone: BoolArray) -> None:
    for row in range(neighbour.shape[0]):
        kept = 0
        for s in range(neighbour.shape[1]):
            to = neighbour[row, s]
            if to < 0:
                break
            if gone[row] or gone[to]:
                neighbour[row, s] = -1
                continue
            if kept < s:
                neighbour[row, kept] = to
                weight[row, kept] = weight[row, s]
                neighbour[row, s] = -1
            kept += 1
        weight[row, kept:] = np.float32(0.0)


class Neighbours(ItemModel):
    """Neighbour lists of one rule.

    Columns:

    - `neighbour` int32 (n, slots): rows, `EMPTY` behind the last one
    - `weight` float32 (n, slots): as of `weight_at`, 0 where empty
    - `weight_at` float64 (n,): ticks

    Parameters
    ----------
    capacity : rows
    rule : see `NeighbourRule`
    popularity : whose `plays` normalise `score_many`, of at least as many rows; None: as if nothing was played
    """

    references = frozenset({"neighbour"})

    def __init__(self, capacity: int, rule: NeighbourRule, popularity: Popularity | None = None) -> None:
        super().__init__(
            capacity,
            {
                "neighbour": ColumnSpec(np.int32, (rule.slots,), EMPTY),
                "weight": ColumnSpec(np.float32, (rule.slots,)),
                "weight_at": ColumnSpec(np.float64),
            },
        )
        self.rule = rule
        self.name = rule.name  # type: ignore[misc]  # two models share this class, each with its own name
        self._popularity = popularity
        self._scoring = np.array(
            [rule.half_life, rule.scored_decay, rule.from_shift, rule.from_power, rule.to_shift, rule.to_power]
        )

    def additions(self, histories: Int32Array, rows: Int32Array, ticks: Float64Array) -> Additions:
        """Links that events make; pure.

        Parameters
        ----------
        histories : int32, shape (m, 20); each user's items before the event, newest first, padded with `EMPTY`
        rows : int32, shape (m,); the chosen items
        ticks : float64, shape (m,)
        """
        most = len(rows) * self.rule.lags * (2 if self.rule.both_ways else 1)
        made = Additions(
            np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.float32), np.empty(most, np.float64)
        )
        used = _additions(histories, rows, ticks, self.rule.lags, self.rule.lag_decay, self.rule.both_ways, *made)
        accepted(4 if used < 0 else 0)
        return Additions(made.source[:used], made.target[:used], made.weight[:used], made.ticks[:used])

    def apply(self, additions: Additions) -> None:
        """Add links to the lists of `additions.source`, in order.

        Raises
        ------
        ModelError
            A row, weight or time is out of range; nothing was changed.
        """
        c = self.columns
        lists = c["neighbour"], c["weight"], c["weight_at"]
        source, target, weight, ticks = additions
        accepted(_apply(*lists, source, target, weight, ticks, self.rule.half_life, MAX_GROWTH, TINY))

    def learn_links(
        self,
        histories: Int32Array,
        items: Int32Array,
        ticks: Float64Array,
        rows: Int32Array,
        alive: BoolArray,
        mine: BoolArray,
    ) -> BoolArray:
        """Make the additions of events and add those to rows that are the caller's, without writing them down.

        Parameters
        ----------
        histories, items : int32, shapes (m, h) and (m,); as for `additions`, but places in `rows`
        ticks : float64, shape (m,)
        rows : int32, shape (r,)
        alive, mine : bool, shape (r,); whether the row may be linked, and whether its list may grow

        Returns
        -------
        bool, shape (r,); whose lists grew

        Raises
        ------
        ModelError
            A row, place or time is out of range; nothing was changed.
        """
        c = self.columns
        linked = np.zeros(len(rows), np.bool_)
        rule = self.rule
        lists = c["neighbour"], c["weight"], c["weight_at"], linked
        events = np.ascontiguousarray(histories), items, ticks
        accepted(
            _learn_links(
                *lists,
                *events,
                rows,
                alive,
                mine,
                rule.lags,
                rule.lag_decay,
                rule.both_ways,
                rule.half_life,
                MAX_GROWTH,
                TINY,
            )
        )
        return linked

    def scores(self, history: Int32Array, plays: Float64Array, ticks: float, out: Float32Array) -> None:
        """Score the first `len(out)` rows for a history; writes `out` only.

        Parameters
        ----------
        history : int32, shape (h,); newest first
        plays : float64, shape (>= capacity,); all-time positives of each row, see `popularity`
        ticks : weights are read as of then
        out : float32, shape (n,); receives scores, 0 for rows that no neighbour list names
        """
        c = self.columns
        lists = c["neighbour"], c["weight"], c["weight_at"]
        accepted(_scores(out, *lists, history[: self.rule.scored], plays, self._scoring, ticks))

    def score_many(self, context: Context, rows: Int32Array) -> Float32Array:
        """Score `rows` by the votes of the history's neighbour lists; 0 or more."""
        out = np.empty(self.capacity, np.float32)
        plays = np.zeros(self.capacity) if self._popularity is None else self._popularity.columns["plays"]
        self.scores(context.history, plays, context.ticks, out)
        return out[rows]

    def learn_one(self, context: Context, row: int, ticks: float) -> None:
        """Link `row` with the user's history."""
        histories = np.full((1, HISTORY), EMPTY, np.int32)
        recent = context.history[:HISTORY]
        histories[0, : len(recent)] = recent
        self.apply(self.additions(histories, np.array([row], np.int32), np.array([ticks])))

    def forget(self, rows: Int32Array) -> None:
        """Empty the lists of `rows` and take `rows` out of all others. Cost: one pass over all lists."""
        gone = np.zeros(self.capacity, np.bool_)
        gone[rows] = True
        _purge(self.columns["neighbour"], self.columns["weight"], gone)
        super().forget(rows)

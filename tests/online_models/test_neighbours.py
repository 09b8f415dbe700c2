"""Neighbour lists against a dictionary that does the same slowly."""

import dataclasses

import numpy as np
import pytest

from online_models.base import EMPTY, HISTORY, Float32Array, Float64Array, Int32Array, ModelError
from online_models.neighbours import COVISITATION, MARKOV, Additions, NeighbourRule, Neighbours

SMALL = dataclasses.replace(COVISITATION, slots=6, half_life=50.0)
RULES = [COVISITATION, MARKOV, SMALL]


def stream(n: int, items: int, seed: int, spread: float = 0.0) -> tuple[Int32Array, Int32Array, Float64Array]:
    """Histories, rows and ticks of `n` events of one user; `spread` shuffles time."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, items, n).astype(np.int32)
    histories = np.full((n, HISTORY), EMPTY, np.int32)
    for e in range(n):
        recent = rows[max(0, e - HISTORY) : e][::-1]
        histories[e, : len(recent)] = recent
    return histories, rows, np.arange(n) + rng.normal(0, 1, n) * spread


class Slow:
    """Space-saving lists with weights as of time 0, in Python floats."""

    def __init__(self, rule: NeighbourRule) -> None:
        self.rule = rule
        self.lists: dict[int, dict[int, float]] = {}

    def learn(self, histories: Int32Array, rows: Int32Array, ticks: Float64Array) -> None:
        for history, row, at in zip(histories.tolist(), rows.tolist(), ticks.tolist(), strict=True):
            for lag, held in enumerate(history[: self.rule.lags]):
                if held < 0 or held == row:
                    continue
                added = self.rule.lag_decay**lag * 2.0 ** (at / self.rule.half_life)
                self.add(held, row, added)
                if self.rule.both_ways:
                    self.add(row, held, added)

    def add(self, source: int, target: int, added: float) -> None:
        links = self.lists.setdefault(source, {})
        if target in links or len(links) < self.rule.slots:
            links[target] = links.get(target, 0.0) + added
            return
        least = min(links, key=links.__getitem__)
        links[least] -= added
        if links[least] < added:
            del links[least]
            links[target] = added

    def scores(self, history: Int32Array, plays: Float64Array, ticks: float, n: int) -> Float64Array:
        out = np.zeros(n)
        rule = self.rule
        for lag, held in enumerate(history[: rule.scored].tolist()):
            for target, weight in self.lists.get(held, {}).items():
                vote = rule.scored_decay**lag * weight * 2.0 ** (-ticks / rule.half_life)
                vote /= (plays[held] + rule.from_shift) ** rule.from_power
                out[target] += vote / (plays[target] + rule.to_shift) ** rule.to_power
        return out


def scores(model: Neighbours, history: Int32Array, plays: Float64Array, ticks: float) -> Float32Array:
    out = np.full(len(plays), np.nan, np.float32)
    model.scores(history, plays, ticks, out)
    return out


@pytest.mark.parametrize("rule", RULES, ids=["covisitation", "markov", "small"])
@pytest.mark.parametrize("spread", [0.0, 30.0], ids=["ordered", "unordered"])
def test_lists_and_scores_equal_the_slow_ones(rule: NeighbourRule, spread: float) -> None:
    events = stream(400, 15, seed=3, spread=spread)
    model, slow = Neighbours(15, rule), Slow(rule)
    model.apply(model.additions(*events))
    slow.learn(*events)
    plays = np.bincount(events[1], minlength=15).astype(np.float64)
    history = events[1][::-1][:HISTORY].copy()
    np.testing.assert_allclose(scores(model, history, plays, 500.0), slow.scores(history, plays, 500.0, 15), rtol=2e-3)


def test_a_batch_equals_its_events_one_by_one() -> None:
    histories, rows, ticks = stream(300, 12, seed=4, spread=5.0)
    batch, single = Neighbours(12, SMALL), Neighbours(12, SMALL)
    batch.apply(batch.additions(histories, rows, ticks))
    for e in range(300):
        single.apply(single.additions(histories[e : e + 1], rows[e : e + 1], ticks[e : e + 1]))
    for name, column in batch.columns.items():
        np.testing.assert_array_equal(single.columns[name], column, err_msg=name)


def test_additions_commute_while_slots_are_free() -> None:
    forward, backward = Neighbours(15, COVISITATION), Neighbours(15, COVISITATION)
    made = forward.additions(*stream(200, 15, seed=5, spread=1e5))
    forward.apply(made)
    backward.apply(Additions(*(np.ascontiguousarray(column[::-1]) for column in made)))  # type: ignore[arg-type]  # mixed dtypes
    plays = np.zeros(15)
    history = np.arange(10, dtype=np.int32)
    expected = scores(forward, history, plays, 5e5)
    assert expected.max() > 0
    np.testing.assert_allclose(scores(backward, history, plays, 5e5), expected, rtol=1e-3, atol=1e-20)


@pytest.mark.parametrize("at", [-1e300, -1e9, 1e9, 1e300])
def test_extreme_times_neither_overflow_nor_make_nan(at: float) -> None:
    model = Neighbours(3, SMALL)
    pair = np.array([0, 1], np.int32), np.array([1, 2], np.int32), np.ones(2, np.float32)
    for ticks in (0.0, at, 0.0, at, 1.0):
        model.apply(Additions(*pair, np.full(2, ticks)))
    assert np.isfinite(model.columns["weight"]).all()
    for read in (at, 0.0, -at):
        assert np.isfinite(scores(model, np.array([0, 1], np.int32), np.zeros(3), read)).all()


def test_steady_growth_over_thousands_of_half_lives_stays_finite() -> None:
    model = Neighbours(2, SMALL)
    for ticks in np.arange(0.0, 200_000.0, 300.0):
        model.apply(Additions(np.zeros(1, np.int32), np.ones(1, np.int32), np.ones(1, np.float32), np.array([ticks])))
    got = scores(model, np.zeros(1, np.int32), np.zeros(2), 199_800.0)
    expected = sum(2.0 ** (-300.0 * step / 50.0) for step in range(10)) / 20.0 / 20.0**0.2
    assert got[1] == pytest.approx(expected, rel=1e-4)


def test_forgetting_purges_references_and_keeps_the_rest() -> None:
    model = Neighbours(6, COVISITATION)
    model.apply(model.additions(*stream(100, 6, seed=6)))
    history = np.array([0, 1], np.int32)
    before = scores(model, history, np.zeros(6), 100.0)
    model.forget(np.array([2, 4], np.int32))
    assert not np.isin(model.columns["neighbour"], [2, 4]).any()
    assert (model.columns["neighbour"][[2, 4]] == EMPTY).all()
    assert (model.columns["weight"][model.columns["neighbour"] == EMPTY] == 0).all()
    after = scores(model, history, np.zeros(6), 100.0)
    np.testing.assert_allclose(after[[0, 1, 3, 5]], before[[0, 1, 3, 5]])
    assert after[[2, 4]].tolist() == [0.0, 0.0]


def test_markov_links_forward_only() -> None:
    model = Neighbours(2, MARKOV)
    made = model.additions(np.array([[0] + [EMPTY] * 19], np.int32), np.array([1], np.int32), np.zeros(1))
    assert (made.source.tolist(), made.target.tolist(), made.weight.tolist()) == ([0], [1], [1.0])


def test_scores_of_fewer_rows_ignore_the_others() -> None:
    model = Neighbours(15, COVISITATION)
    events = stream(100, 15, seed=7)
    model.apply(model.additions(*events))
    history = np.arange(3, dtype=np.int32)
    short = np.empty(9, np.float32)
    model.scores(history, np.zeros(15), 100.0, short)
    np.testing.assert_array_equal(short, scores(model, history, np.zeros(15), 100.0)[:9])


@pytest.mark.parametrize(
    ("source", "target", "ticks", "weight"),
    [(9, 0, 0.0, 1.0), (0, -1, 0.0, 1.0), (0, 1, np.inf, 1.0), (0, 1, 0.0, -1.0)],
)
def test_bad_additions_are_refused(source: int, target: int, ticks: float, weight: float) -> None:
    model = Neighbours(3, SMALL)
    sources, targets = np.array([0, source], np.int32), np.array([1, target], np.int32)
    with pytest.raises(ModelError):
        model.apply(Additions(sources, targets, np.array([1, weight], np.float32), np.array([0.0, ticks])))
    assert (model.columns["neighbour"] == EMPTY).all()


@pytest.mark.parametrize("rule", RULES, ids=["covisitation", "markov", "small"])
def test_links_learned_by_owners_are_the_additions_of_all(rule: NeighbourRule) -> None:
    """Two owners learn the same links, each for its own rows; some rows may not be linked at all."""
    rng = np.random.default_rng(8)
    n, m = 30, 400
    items = rng.integers(0, n, m).astype(np.int32)
    histories = np.full((m, 20), EMPTY, np.int32)
    for e, length in enumerate(rng.integers(0, 21, m)):
        histories[e, :length] = rng.permutation(n)[:length]
    ticks = np.sort(rng.uniform(0, 50_000, m))
    alive = rng.random(n) < 0.9
    # Places in the block are not rows.
    rows = rng.permutation(n).astype(np.int32)

    split, whole = Neighbours(n, rule), Neighbours(n, rule)
    owned = rng.random(n) < 0.5
    grown = np.zeros(n, np.bool_)
    for mine in (owned & alive, ~owned & alive):
        linked = split.learn_links(histories, items, ticks, rows, alive, mine)
        assert not (linked & ~mine).any()
        grown |= linked
    renamed = np.where(histories >= 0, rows[histories], EMPTY).astype(np.int32)
    made = whole.additions(renamed, rows[items], ticks)
    place = np.argsort(rows)
    kept = alive[place[made.source]] & alive[place[made.target]]
    whole.apply(Additions(*(np.ascontiguousarray(column[kept]) for column in made)))  # type: ignore[arg-type]  # mixed dtypes
    assert set(rows[grown].tolist()) == set(made.source[kept].tolist())
    for name in ("neighbour", "weight", "weight_at"):
        np.testing.assert_array_equal(split.columns[name], whole.columns[name])


def test_links_out_of_range_are_refused_and_change_nothing() -> None:
    model = Neighbours(3, COVISITATION)
    history, item, ticks = np.zeros((1, 20), np.int32), np.ones(1, np.int32), np.zeros(1)
    rows, all_ = np.arange(2, dtype=np.int32), np.ones(2, np.bool_)
    for h, i, t, r in (
        (history + 2, item, ticks, rows),
        (history, item + 1, ticks, rows),
        (history, item, ticks + np.inf, rows),
        (history, item, ticks, rows + 2),
        (history, item[:0], ticks, rows),
    ):
        with pytest.raises(ModelError):
            model.learn_links(h, i, t, r, all_, all_)
    assert (model.columns["neighbour"] == EMPTY).all()

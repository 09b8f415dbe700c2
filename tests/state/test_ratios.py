"""Intervals of users: they hold the truth as often as they say, where intervals of single lists do not."""

import math
from typing import NamedTuple

import numpy as np
import pytest

from state import ratios
from state.experiment import BUCKETS
from state.ratios import FIGURES, LEAST_BUCKETS, LEAST_NONZERO, Ratio, difference, figures, probability, quantile, ratio
from state.tally import MEASURES
from state.types import Float64Array, Int64Array


@pytest.mark.parametrize(
    ("freedom", "share", "t"),
    # Tables of Student's t.
    [(30, 0.975, 2.0423), (40, 0.975, 2.0211), (60, 0.975, 2.0003), (120, 0.975, 1.9799), (30, 0.995, 2.7500), (60, 0.9, 1.2958)],
)  # fmt: skip
def test_quantiles_are_those_of_tables(freedom: int, share: float, t: float) -> None:
    assert quantile(share, freedom) == pytest.approx(t, abs=2e-4)
    assert quantile(1.0 - share, freedom) == pytest.approx(-t, abs=2e-4)
    assert probability(t, freedom) == pytest.approx(share, abs=2e-4)
    assert probability(-t, freedom) == pytest.approx(1.0 - share, abs=2e-4)


class Audience(NamedTuple):
    """Users of an arm: how many lists each had and how many of them were hits."""

    lists: Int64Array
    hits: Int64Array
    buckets: Int64Array

    @classmethod
    def drawn(cls, rng: np.random.Generator, users: int, rate: float) -> "Audience":
        """Users who differ much: some have a hundred lists, some hit nearly always."""
        lists = 1 + rng.lognormal(0.8, 1.0, users).astype(np.int64)
        each = rng.beta(5.0 * rate, 5.0 * (1.0 - rate), users)
        return cls(lists, rng.binomial(lists, each), rng.integers(0, BUCKETS, users))

    def ratio(self) -> Ratio:
        over, under = (np.bincount(self.buckets, each, BUCKETS).astype(np.float64) for each in (self.hits, self.lists))
        return ratio(over, under, under)

    def of_lists(self) -> tuple[float, float]:
        """The rate, and its variance if each list was on its own."""
        rate = self.hits.sum() / self.lists.sum()
        return float(rate), float(rate * (1.0 - rate) / self.lists.sum())


@pytest.mark.parametrize(("users", "least"), [(60, 0.915), (400, 0.93), (3_000, 0.93)])
def test_intervals_hold_the_truth_in_95_of_100_experiments(users: int, least: float) -> None:
    truth, effect = 0.3, 0.02
    rounds, held, held_by_lists, rejected = 1_000, [], [], []
    for seed in range(rounds):
        rng = np.random.default_rng([users, seed])
        control, other = Audience.drawn(rng, users, truth), Audience.drawn(rng, users, truth + effect)
        found = control.ratio()
        more = difference(other.ratio(), found)
        if found.interval is None or more is None:
            # Sixty users are sometimes in too few buckets.
            continue
        held.append((found.interval[0] <= truth <= found.interval[1], more.low <= effect <= more.high))
        (one, one_variance), (two, two_variance) = control.of_lists(), other.of_lists()
        held_by_lists.append(abs(two - one - effect) <= 1.96 * math.sqrt(one_variance + two_variance))
        rejected.append(more.p_value < 0.05)
        if abs(more.p_value - 0.05) > 1e-4:
            assert (more.p_value < 0.05) == (not more.low <= 0.0 <= more.high)
    shares = np.mean(held, axis=0)
    assert len(held) > 0.9 * rounds
    assert (shares > least).all(), shares
    assert (shares < 0.975).all(), shares
    # Lists of one user are alike: as if each were on its own, the interval is far too narrow.
    assert np.mean(held_by_lists) < 0.9
    if users == 3_000:
        assert np.mean(rejected) > 0.5, "an effect that is there is seen"


def test_the_interval_is_as_wide_as_that_of_the_users_themselves() -> None:
    rng = np.random.default_rng(7)
    audience = Audience.drawn(rng, 5_000, 0.3)
    by_users = ratio(audience.hits.astype(np.float64), audience.lists.astype(np.float64), audience.lists.astype(float))
    widths = [audience._replace(buckets=rng.integers(0, BUCKETS, 5_000)).ratio().error for _ in range(50)]
    assert np.mean(widths) == pytest.approx(by_users.error, rel=0.05)


def test_a_difference_says_how_likely_it_is() -> None:
    control, other = Ratio(0.30, 0.01, 63.0), Ratio(0.33, 0.01, 63.0)
    more = difference(other, control)
    assert more is not None
    assert more.value == pytest.approx(0.03)
    assert more.high - more.value == pytest.approx(1.979 * 0.01 * math.sqrt(2), rel=1e-3)
    assert more.p_value == pytest.approx(0.0358, abs=3e-4)  # Student's t of 2.121 with 126 degrees of freedom
    assert more.larger == pytest.approx(1.0 - more.p_value / 2.0)
    less = difference(control, other)
    assert less is not None
    assert (less.low, less.high) == pytest.approx((-more.high, -more.low))
    assert less.larger == pytest.approx(1.0 - more.larger)


def some(buckets: int, nonzero: int) -> tuple[Float64Array, Float64Array]:
    under = np.zeros(BUCKETS)
    under[:buckets] = np.arange(buckets) % 5 + 1.0
    over = np.zeros(BUCKETS)
    over[:nonzero] = 1.0
    return over, under


def test_nothing_is_said_of_how_sure_it_is_before_there_are_users_enough() -> None:
    for buckets, nonzero, known in (
        (LEAST_BUCKETS, LEAST_NONZERO, True),
        (LEAST_BUCKETS - 1, LEAST_NONZERO, False),
        (BUCKETS, LEAST_NONZERO - 1, False),
    ):
        over, under = some(buckets, nonzero)
        found = ratio(over, under, under)
        assert found.value == pytest.approx(over.sum() / under.sum())
        assert (found.interval is not None) is known
        assert (difference(found, Ratio(0.1, 0.1, 63.0)) is not None) is known
        assert (difference(Ratio(0.1, 0.1, 63.0), found) is not None) is known
    nothing = ratio(np.zeros(BUCKETS), np.zeros(BUCKETS), np.zeros(BUCKETS))
    assert math.isnan(nothing.value)
    assert nothing.interval is None
    # All alike: that there is no spread is not known from this.
    assert ratio(np.ones(BUCKETS), np.ones(BUCKETS), np.ones(BUCKETS)).interval is None


def test_figures_are_made_of_the_measures_that_they_are_named_for() -> None:
    rng = np.random.default_rng(1)
    sums = rng.integers(1, 50, (3, BUCKETS, len(MEASURES))).astype(np.float64)
    totals = sums.sum(axis=1)
    found = figures(sums)
    for arm in range(3):
        lists, hits, shown, clicks, positives, watch_ms = totals[arm].tolist()
        values = {name: one.value for name, one in found[arm].items()}
        assert values == pytest.approx(
            {
                "hit_rate": hits / lists,
                "ctr": clicks / shown,
                "positives_per_list": positives / lists,
                "watch_seconds_per_list": watch_ms / 1000 / lists,
            }
        )
        assert all(one.interval is not None for one in found[arm].values())
    assert set(FIGURES) == set(found[0])
    assert ratios.LEVEL == 0.95

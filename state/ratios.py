"""Ratios of sums, how sure they are, and how they differ: the figures of an experiment.

Flows in: sums by arm, bucket of users and measure. Flows out: ratios with intervals, and differences to the first arm. Always holds:
what is random is the user. What follows the lists of one user is alike, so an interval of single lists would be far too narrow; here
users are dealt out to buckets by a hash, and buckets are compared.

A ratio of sums over buckets has the variance of the delta method, K / (K - 1) * sum(e ** 2) / sum(d) ** 2 with e = n - ratio * d, over
the K buckets that have anything; intervals are Student's with K - 1 degrees of freedom, of differences Welch's.

Source: Deng, Knoblich and Lu 2018, "Applying the delta method in metric analytics"; Kohavi, Tang and Xu 2020, "Trustworthy online
controlled experiments", chapter 18; buckets: Chamandy et al. 2012, "Estimating uncertainty for massive data streams". The quantile and
the tail are Abramowitz and Stegun 26.7.5 and 26.7.8.
"""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import NamedTuple

from state.tally import MEASURES
from state.types import Float64Array

LEVEL = 0.95
#: Buckets of users that have lists, below which nothing is said of how sure a figure is: about 45 users. There intervals of a skewed
#: figure hold the truth in 93 of 100 cases, from some hundred users on in 95.
LEAST_BUCKETS = 32
#: Buckets in which there is anything to count: where it is rarer, the spread is not known either.
LEAST_NONZERO = 10

FIGURES: Mapping[str, tuple[str, str, float]] = {
    "hit_rate": ("hits", "lists", 1.0),
    "ctr": ("clicks", "shown", 1.0),
    "positives_per_list": ("positives", "lists", 1.0),
    "watch_seconds_per_list": ("watch_ms", "lists", 1e-3),
}
"""By name: which sum over which, times what."""

_NORMAL = NormalDist()


class Ratio(NamedTuple):
    """A ratio.

    Attributes
    ----------
    value : of the sums; NaN where the lower one is 0
    error : its standard error; NaN while too little is known
    freedom : degrees of freedom
    """

    value: float
    error: float
    freedom: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """Bounds within which the truth is with a probability of LEVEL; None while too little is known."""
        if math.isnan(self.error):
            return None
        half = quantile(0.5 + LEVEL / 2.0, self.freedom) * self.error
        return self.value - half, self.value + half


class Difference(NamedTuple):
    """How much larger a ratio is than the control's.

    Attributes
    ----------
    value, low, high : the difference and its interval
    p_value : of as large a difference, either way, if there were none
    larger : probability that it is larger, if nothing was known before
    """

    value: float
    low: float
    high: float
    p_value: float
    larger: float


def ratio(over: Float64Array, under: Float64Array, used: Float64Array) -> Ratio:
    """Ratio of two sums over buckets.

    Parameters
    ----------
    over, under : float64, shape (buckets,)
    used : float64, shape (buckets,); above 0 for buckets that have users
    """
    whole = float(under.sum())
    if whole <= 0.0:
        return Ratio(math.nan, math.nan, math.nan)
    value = float(over.sum()) / whole
    buckets = int((used > 0.0).sum())
    errors = over - value * under
    squares = float((errors**2).sum())
    if buckets < LEAST_BUCKETS or int((over > 0.0).sum()) < LEAST_NONZERO or squares <= 0.0:
        return Ratio(value, math.nan, math.nan)
    return Ratio(value, math.sqrt(buckets / (buckets - 1) * squares) / whole, buckets - 1.0)


def difference(one: Ratio, control: Ratio) -> Difference | None:
    """`one` less the control, of other users; None while too little is known of either."""
    if math.isnan(one.error) or math.isnan(control.error):
        return None
    variances = one.error**2, control.error**2
    error = math.sqrt(sum(variances))
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / one.freedom + variances[1] ** 2 / control.freedom)
    value = one.value - control.value
    half = quantile(0.5 + LEVEL / 2.0, freedom) * error
    larger = probability(value / error, freedom)
    return Difference(value, value - half, value + half, 2.0 * min(larger, 1.0 - larger), larger)


def figures(sums: Float64Array) -> list[dict[str, Ratio]]:
    """The `FIGURES` of each arm; sums are float64, shape (arms, buckets, measures)."""
    by_name = {name: sums[..., place] for place, name in enumerate(MEASURES)}
    return [
        {
            name: ratio(factor * by_name[over][arm], by_name[under][arm], by_name["lists"][arm])
            for name, (over, under, factor) in FIGURES.items()
        }
        for arm in range(len(sums))
    ]


def quantile(share: float, freedom: float) -> float:
    """What a Student's t stays below in this share of cases; to 0.001 for 30 or more degrees of freedom."""
    z = _NORMAL.inv_cdf(share)
    terms = (
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def probability(t: float, freedom: float) -> float:
    """Share of cases in which a Student's t is below this; to 0.001 for 30 or more degrees of freedom."""
    return _NORMAL.cdf(t * (1.0 - 1.0 / (4.0 * freedom)) / math.sqrt(1.0 + t * t / (2.0 * freedom)))

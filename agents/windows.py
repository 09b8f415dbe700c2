"""The latest scored positives, and every figure made of them.

Flows in: one `Sample` a scored positive. Flows out: means over the latest 1,000 and 10,000 of them, and totals since the start. Always
holds: memory is fixed; all arms have the same targets, so that their difference is one of pairs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from state.arms import ABSENT
from state.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array

#: Scored positives of a window: the first shows a change soon, the second small differences.
WINDOWS = (1_000, 10_000)
#: Fewer say nothing about which arm is better.
LEAST_SCORED = 500
#: So many standard errors of the paired difference below a baseline count as below, and so many no longer do: between the two
#: nothing changes, or one sample more or less would raise the alarm again and again.
BELOW_ERRORS, CLEAR_ERRORS = 2.0, 1.0


class Sample(NamedTuple):
    """What was found of one positive.

    Attributes
    ----------
    places : the target's place in each arm's list, from 0, ABSENT for none
    listed : int32, shape (m,), m <= k; rows of the served list
    novelty_bits : mean of -log2 of the listed videos' shares of all positives
    predicted : the ranker's probability that the target is among its best k; NaN where the target was no candidate
    found : whether it was
    loss : of the target among the candidates, nats; NaN likewise
    own_lag : events before the target's that what is known of the user did not hold, as `headrace evaluate --lag` counts them
    shared_lag : those that what all users share did not hold
    """

    places: Mapping[str, int]
    listed: Int32Array
    novelty_bits: float
    predicted: float
    found: bool
    loss: float
    own_lag: float
    shared_lag: float


class Windows:
    """A ring of the latest samples.

    Parameters
    ----------
    arms : names; `served` is one of them
    k : length of the lists, at most 127
    """

    def __init__(self, arms: Sequence[str], k: int) -> None:
        self.arms = tuple(arms)
        self.k = k
        self.scored = 0
        #: Since the start, by arm: targets listed, and the sum of their gains, 1 / log2(place + 2).
        self.hits = dict.fromkeys(arms, 0)
        self.gains = dict.fromkeys(arms, 0.0)
        #: The sums of all lags, own and shared.
        self.own_lags = self.shared_lags = 0.0
        size = max(WINDOWS)
        self._places = np.full((len(self.arms), size), ABSENT, np.int8)
        self._listed = np.full((size, k), -1, np.int32)
        self._bits = np.zeros(size, np.float32)
        self._predicted = np.zeros(size, np.float32)
        self._found = np.zeros(size, np.bool_)
        self._loss = np.zeros(size, np.float32)
        self._own_lag = np.zeros(size, np.float32)
        self._shared_lag = np.zeros(size, np.float32)

    def add(self, sample: Sample) -> None:
        """One more, in place of the oldest."""
        at = self.scored % self._places.shape[1]
        for a, arm in enumerate(self.arms):
            place = sample.places[arm]
            self._places[a, at] = place
            if place != ABSENT:
                self.hits[arm] += 1
                self.gains[arm] += 1.0 / float(np.log2(place + 2.0))
        self._listed[at] = -1
        self._listed[at, : len(sample.listed)] = sample.listed
        self._bits[at], self._predicted[at], self._found[at] = sample.novelty_bits, sample.predicted, sample.found
        self._loss[at], self._own_lag[at], self._shared_lag[at] = sample.loss, sample.own_lag, sample.shared_lag
        self.own_lags += sample.own_lag
        self.shared_lags += sample.shared_lag
        self.scored += 1

    def _latest(self, window: int) -> Int64Array:
        """Where the samples of a window are, oldest first."""
        n = min(window, self.scored)
        latest: Int64Array = np.arange(self.scored - n, self.scored) % self._places.shape[1]
        return latest

    def hits_of(self, arm: str, window: int) -> BoolArray:
        """Whether each target of the window was in the arm's list; bool, shape (n,)."""
        found: BoolArray = self._places[self.arms.index(arm)][self._latest(window)] != ABSENT
        return found

    def recalls(self, window: int) -> dict[str, float]:
        """Share of the window's targets that each arm listed."""
        found = (self._places[:, self._latest(window)] != ABSENT).sum(axis=1) / max(min(window, self.scored), 1)
        return dict(zip(self.arms, found.tolist(), strict=True))

    def errors_below(self, baselines: Sequence[str], window: int) -> float:
        """By how many standard errors of the paired difference `served` is below the best of `baselines`; 0 for too few."""
        if min(window, self.scored) < LEAST_SCORED:
            return 0.0
        recalls = self.recalls(window)
        best = max(baselines, key=lambda arm: recalls[arm])
        difference = self.hits_of(best, window).astype(np.float64) - self.hits_of("served", window)
        error = float(difference.std() / np.sqrt(len(difference)))
        return float(difference.mean()) / error if error > 0.0 else 0.0

    def figures(self, window: int, active: int) -> dict[str, Any]:
        """Means over a window; `active` is how many videos there are to list."""
        at = self._latest(window)
        places = self._places[:, at]
        gains = np.where(places != ABSENT, 1.0 / np.log2(np.maximum(places, 0) + 2.0), 0.0)
        among = np.isfinite(self._loss[at])
        listed = self._listed[at]
        exposures = np.bincount(listed[listed >= 0])
        exposures = exposures[exposures > 0]
        observed = int(self._found[at][among].sum())
        return {
            "n": len(at),
            "recall": self.recalls(window),
            "ndcg": dict(zip(self.arms, (gains.sum(axis=1) / max(len(at), 1)).tolist(), strict=True)),
            "candidate_ratio": float(among.mean()) if len(at) else 0.0,
            "log_loss": _mean(self._loss[at][among]),
            "calibration_ratio": float(self._predicted[at][among].sum()) / observed if observed else float("nan"),
            "coverage_ratio": len(exposures) / max(active, 1),
            "gini": gini(exposures, active),
            "novelty_bits": _mean(self._bits[at]),
            "own_lag_events": _mean(self._own_lag[at]),
            "shared_lag_events": _mean(self._shared_lag[at]),
        }


def _mean(values: Float32Array) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")


def gini(exposures: Int64Array, videos: int) -> float:
    """Gini coefficient of how often each of `videos` was listed: 0 where all are alike, near 1 where few have all.

    Parameters
    ----------
    exposures : int64, shape (m,); of those that were listed at all
    """
    n = max(videos, len(exposures))
    total = float(exposures.sum())
    if not total:
        return 0.0
    # Those that were never listed come first in the order, and add nothing to its sum.
    ranks: Float64Array = np.arange(n - len(exposures) + 1, n + 1, dtype=np.float64)
    return float(2.0 * (ranks * np.sort(exposures)).sum() / (n * total) - (n + 1) / n)

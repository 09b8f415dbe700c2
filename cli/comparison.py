"""What the lists of two configurations say of them: metrics of each, their paired differences, and a verdict.

Flows in: the places of the same targets in the lists of both. Flows out: figures, a verdict, JSON. Always holds: differences are of
pairs, target by target; what is random is the user, as positives of one user are alike: a standard error is of users, not of targets.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from agents.scoring import K
from agents.trial import Target
from cli.positions import Positions
from state.ratios import Ratio
from state.types import BoolArray, Float64Array, Int64Array

#: Users with a target below which nothing is said of how sure a difference is: Student's t holds for means of about so many.
LEAST_USERS = 30
#: The metric that the verdict is of, which was chosen before anything was seen.
DECIDES = f"recall@{K}"
METRICS = (DECIDES, f"ndcg@{K}", "mrr")
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "no difference seen", "too few users to tell"


@dataclass(frozen=True)
class Comparison:
    """Two configurations on one log.

    Attributes
    ----------
    targets : first positives that lists were made for
    positions : their places under "live" and "candidate"
    coverage : share of the videos that may be listed at the end which were in any of the lists, by configuration
    refused : targets whose events the candidate refused, for want of room: misses
    """

    targets: Sequence[Target]
    positions: Positions
    coverage: Mapping[str, float]
    refused: int = 0

    @cached_property
    def groups(self) -> dict[str, BoolArray]:
        """Which targets are of all users, of cold and warm ones, and of young videos; groups that nobody is in are left out."""
        cold, young = (np.array(each, np.bool_) for each in (self.positions.cold, self.positions.young))
        found = {"all": np.ones(len(cold), np.bool_), "cold": cold, "warm": ~cold, "young": young}
        return {name: chosen for name, chosen in found.items() if chosen.any()}

    def difference(self, metric: str, group: str = "all") -> Ratio:
        """How much larger the candidate's is; its error is NaN where too few users tell."""
        chosen = self.groups[group]
        gains = [gained(np.array(self.positions.arms[arm], np.int64)[chosen], metric) for arm in ("live", "candidate")]
        users = np.array([target.user for target in self.targets], np.uint64)[chosen]
        return mean_of_users(gains[1] - gains[0], users)

    @property
    def verdict(self) -> str:
        """Better or worse where the interval of the difference in recall says so."""
        interval = self.difference(DECIDES).interval
        if interval is None:
            return UNKNOWN
        return BETTER if interval[0] > 0.0 else WORSE if interval[1] < 0.0 else SAME

    def to_json(self) -> dict[str, Any]:
        """The documented shape."""
        made = {}
        for group, chosen in self.groups.items():
            differences = {metric: _told(self.difference(metric, group)) for metric in METRICS}
            made[group] = {**self.positions.group(chosen), "difference": differences}
        everyone = made.pop("all")
        return {
            "verdict": self.verdict,
            **everyone,
            "users": len({target.user for target in self.targets}),
            "coverage": {arm: round(share, 5) for arm, share in self.coverage.items()},
            "new_video_n": sum(self.positions.new),
            "refused": self.refused,
            **made,
        }


def compared(
    targets: Sequence[Target], places: Mapping[str, list[int]], coverage: Mapping[str, float], refused: int = 0
) -> Comparison:
    """Put two trials beside each other."""
    positions = Positions(K, {arm: [] for arm in places})
    for number, target in enumerate(targets):
        where = {arm: found[number] for arm, found in places.items()}
        positions.add(target.at_ms, target.cold, target.new, target.young, where)
    return Comparison(targets, positions, coverage, refused)


def gained(places: Int64Array, metric: str) -> Float64Array:
    """What each target adds to the mean that is the metric; one relevant video a list, so NDCG's ideal is 1."""
    found, at = places >= 0, np.maximum(places, 0)
    if metric.startswith("recall"):
        return found.astype(np.float64)
    return np.where(found, 1.0 / (np.log2(at + 2.0) if metric.startswith("ndcg") else at + 1.0), 0.0)


def mean_of_users(values: Float64Array, users: Any) -> Ratio:
    """Mean of values (float64, shape (n,)) of users (uint64, shape (n,)), with the standard error of a mean of clusters.

    Source: Deng, Knoblich and Lu 2018, as `state.ratios`, with each user a bucket.
    """
    value = float(values.mean())
    _, numbers = np.unique(users, return_inverse=True)
    errors = np.bincount(numbers, values - value)
    count = len(errors)
    if count < LEAST_USERS:
        return Ratio(value, math.nan, math.nan)
    error = math.sqrt(count / (count - 1) * float((errors**2).sum())) / len(values)
    return Ratio(value, error, count - 1.0)


def _told(difference: Ratio) -> dict[str, float | None]:
    low, high = difference.interval or (math.nan, math.nan)
    found = {"value": difference.value, "se": difference.error, "low": low, "high": high}
    return {name: None if math.isnan(each) else round(each, 6) for name, each in found.items()}

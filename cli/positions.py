"""What an evaluation counts: the place of each target in the list of each arm, and every number made of them.

Flows in: one place an arm and ranked positive. Flows out: means with their standard errors, by group, over time and over seeds.
Always holds: all arms have the same targets in the same order, so their difference is one of pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from state.types import BoolArray, Float64Array, Int32Array, Int64Array


@dataclass
class Positions:
    """Places of the ranked targets, from 0, in the lists of k of each arm.

    Attributes
    ----------
    at_ms : event times of the ranked positives
    cold : whether the user had fewer than 3 events before
    new : whether the video was not known yet
    young : whether it was known, and had had fewer than 5 plays
    """

    k: int
    arms: dict[str, list[int]]
    at_ms: list[int] = field(default_factory=list)
    cold: list[bool] = field(default_factory=list)
    new: list[bool] = field(default_factory=list)
    young: list[bool] = field(default_factory=list)

    def add(self, at_ms: int, cold: bool, new: bool, young: bool, positions: Mapping[str, int]) -> None:
        """One more target, with its place in each arm's list."""
        self.at_ms.append(at_ms)
        self.cold.append(cold)
        self.new.append(new)
        self.young.append(young)
        for arm, places in self.arms.items():
            places.append(positions[arm])

    def __len__(self) -> int:
        return len(self.at_ms)

    def metrics(self, arm: str, chosen: BoolArray | None = None) -> dict[str, float]:
        """Means over the targets, or over the chosen ones; `se` is recall's standard error.

        One relevant video an event, so that NDCG's ideal is 1 and recall is the hit rate.
        """
        places = np.array(self.arms[arm], np.int64)
        if chosen is not None:
            places = places[chosen]
        return metrics(places, self.k)

    def group(self, chosen: BoolArray) -> dict[str, object]:
        """`n` and each arm's metrics over the chosen targets."""
        return {"n": int(chosen.sum()), "arms": {arm: self.metrics(arm, chosen) for arm in self.arms}}

    def hits(self, arm: str) -> Float64Array:
        """1 where the target was in the list, else 0; float64, shape (n,)."""
        return (np.array(self.arms[arm], np.int64) >= 0).astype(np.float64)

    def ratio(self, arm: str, other: str) -> tuple[float, float]:
        """Ratio of two arms' recalls and its standard error, of pairs (delta method); NaN where the other never hits."""
        a, b = self.hits(arm), self.hits(other)
        if not b.any():
            return float("nan"), float("nan")
        ratio = a.mean() / b.mean()
        return float(ratio), float((a - ratio * b).std() / b.mean() / np.sqrt(len(a)))

    def curve(self, arm: str, points: int = 40) -> tuple[Int64Array, Float64Array]:
        """Recall of consecutive stretches of the targets: their last event times (int64, ms) and means (float64)."""
        hits = self.hits(arm)
        ends = np.unique(np.linspace(0, len(hits), min(points, len(hits)) + 1).astype(np.int64))[1:]
        starts = np.concatenate([[0], ends[:-1]])
        totals = np.concatenate([[0.0], np.cumsum(hits)])
        return np.array(self.at_ms, np.int64)[ends - 1], (totals[ends] - totals[starts]) / (ends - starts)


def metrics(places: Int64Array | Int32Array, k: int) -> dict[str, float]:
    """Means of places (integers, shape (n,), ABSENT for none) in lists of k."""
    n = max(len(places), 1)
    found = places[places >= 0].astype(np.float64)
    recall = len(found) / n
    return {
        f"recall@{k}": round(recall, 5),
        f"ndcg@{k}": round(float((1.0 / np.log2(found + 2.0)).sum()) / n, 5),
        "mrr": round(float((1.0 / (found + 1.0)).sum()) / n, 5),
        f"precision@{k}": round(recall / k, 6),
        "se": round(float(np.sqrt(recall * (1.0 - recall) / n)), 5),
    }


def over_seeds(runs: Sequence[Mapping[str, float]], k: int) -> dict[str, float]:
    """Means over runs with different seeds; `se` adds the variance of targets and that of seeds, `seed_sd` is the latter's root."""
    names = list(runs[0])
    mean = {name: round(float(np.mean([run[name] for run in runs])), 6) for name in names}
    recalls = [run[f"recall@{k}"] for run in runs]
    sd = float(np.std(recalls, ddof=1)) if len(runs) > 1 else 0.0
    mean["se"] = round(float(np.hypot(mean["se"], sd / np.sqrt(len(runs)))), 5)
    mean["seed_sd"] = round(sd, 5)
    return mean

"""The experiment's figures as metrics. Flows in: the tally. Flows out: gauges; what too little is known of is NaN there."""

import math
from collections.abc import Iterable

from infra import metrics
from state.ratios import difference, figures
from state.tally import MEASURES, WATCH, Tally


def publish(tally: Tally, owned: Iterable[int]) -> None:
    """Bring the gauges up to date: counts of the `owned` shards, which a sum over workers makes whole, and figures of all."""
    counts = tally.sums(owned).sum(axis=1)
    found = figures(tally.sums())
    for place, arm in enumerate(tally.experiment.arms):
        for measure, count in zip(MEASURES[:WATCH], counts[place, :WATCH].tolist(), strict=True):
            metrics.EXPERIMENT_COUNT.labels(arm.name, measure).set(count)
        metrics.EXPERIMENT_COUNT.labels(arm.name, "watch_seconds").set(counts[place, WATCH] / 1000.0)
        for name, one in found[place].items():
            low, high = one.interval or (math.nan, math.nan)
            for bound, value in (("value", one.value), ("low", low), ("high", high)):
                metrics.EXPERIMENT_FIGURE.labels(arm.name, name, bound).set(value)
            if place:
                more = difference(one, found[0][name])
                metrics.EXPERIMENT_PROBABILITY.labels(arm.name, name).set(math.nan if more is None else more.larger)
    for reason, count in (("late", tally.late), ("short", tally.short)):
        metrics.EXPERIMENT_INCOMPLETE.labels(reason).set(count)

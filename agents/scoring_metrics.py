"""The scorer's figures as metrics. Flows in: `Scorer.figures`. Flows out: gauges; a mean of nothing is NaN there, too."""

from collections.abc import Mapping
from typing import Any

from infra import metrics


def publish(figures: Mapping[str, Any]) -> None:
    """Bring the gauges up to date."""
    metrics.ONLINE_SCORED.set(figures["scored"])
    metrics.ONLINE_POSITIVES.set(figures["positives"])
    metrics.ONLINE_FAILED.set(figures["failed"])
    metrics.ONLINE_SAMPLED.set(figures["sampled_ratio"])
    metrics.ONLINE_CPU_SECONDS.set(figures["cpu_seconds"])
    metrics.ONLINE_CPU.set(figures["cpu_ratio"])
    for part in ("own", "shared"):
        metrics.ONLINE_LAGS.labels(part).set(figures[f"{part}_lags"])
    for direction, count in figures["drifts"].items():
        metrics.ONLINE_DRIFTS.labels(direction).set(count)
    metrics.SERVED_BELOW_BASELINES.set(figures["below_baselines"])
    for gauge, name in ((metrics.ONLINE_HITS, "hits"), (metrics.ONLINE_GAIN, "gains")):
        for arm, total in figures[name].items():
            gauge.labels(arm).set(total)
    for window, found in figures["windows"].items():
        for gauge, name in ((metrics.ONLINE_RECALL, "recall"), (metrics.ONLINE_NDCG, "ndcg")):
            for arm, mean in found[name].items():
                gauge.labels(arm, window).set(mean)
        for gauge, name in (
            (metrics.ONLINE_CANDIDATES, "candidate_ratio"),
            (metrics.ONLINE_LOG_LOSS, "log_loss"),
            (metrics.ONLINE_CALIBRATION, "calibration_ratio"),
            (metrics.ONLINE_COVERAGE, "coverage_ratio"),
            (metrics.ONLINE_GINI, "gini"),
            (metrics.ONLINE_NOVELTY, "novelty_bits"),
        ):
            gauge.labels(window).set(found[name])
        for part in ("own", "shared"):
            metrics.ONLINE_LAG.labels(part, window).set(found[f"{part}_lag_events"])

"""Rates from progress: pure arithmetic, the same for every contender."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

#: Of the events, or of the time limit, whichever is over first: caches fill, a JVM compiles, a group is joined.
WARM_UP_SHARE = 1 / 3


class TooShort(ValueError):
    """There is no steady part to measure: too few events, or too little time."""


class Sample(NamedTuple):
    """How many events were done at a time of a monotonic clock."""

    at_s: float
    done: int


def is_warm(sample: Sample, first: Sample, events: int, limit_s: float) -> bool:
    """Whether the warm-up is over at `sample`."""
    return sample.done >= events * WARM_UP_SHARE or sample.at_s - first.at_s >= limit_s * WARM_UP_SHARE


def steady_rate(samples: Sequence[Sample], events: int, limit_s: float) -> float:
    """Events/s from the end of the warm-up to the last sample.

    Parameters
    ----------
    samples : in order of time
    events : how many there are to do
    limit_s : how long a contender may take from its first sample on

    Raises
    ------
    TooShort
        No sample lies behind the end of the warm-up.
    """
    warm = next((sample for sample in samples if is_warm(sample, samples[0], events, limit_s)), None)
    if warm is None or samples[-1].at_s <= warm.at_s or samples[-1].done <= warm.done:
        raise TooShort(f"nothing to measure after the warm-up in {len(samples)} samples: take more events")
    return (samples[-1].done - warm.done) / (samples[-1].at_s - warm.at_s)


def ratios(rates: Mapping[str, Sequence[float]], ours: str, others: Sequence[str]) -> dict[str, float]:
    """Our median rate over that of each of the others that was measured; empty if ours was not."""
    if ours not in rates:
        return {}
    return {name: round(median(rates[ours]) / median(rates[name]), 3) for name in others if name in rates}

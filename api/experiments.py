"""Answer of `GET /v1/experiments`: what has followed the lists of each arm, and how the arms differ.

Flows in: the tally. Flows out: structs that travel. Always holds: where too little is known to say how sure a figure is, it stands
without an interval, and no difference is told.
"""

import math

import msgspec

from state.ratios import Ratio, difference, figures
from state.tally import LISTS, MEASURES, WATCH, Tally
from state.types import Float64Array


class Figure(msgspec.Struct):
    """A figure with its 95% interval of users; null where there is nothing to count, or too little is known."""

    value: float | None
    low: float | None
    high: float | None


class Comparison(msgspec.Struct):
    """How much larger a figure is than the control's, with its 95% interval.

    `p_value`: how likely as large a difference, either way, would be if there were none; `larger`: how likely it is larger, if nothing
    was known before. Both are for one look at a time that was set before.
    """

    difference: float
    low: float
    high: float
    p_value: float
    larger: float


class ArmReport(msgspec.Struct):
    """An arm: what was counted, the figures made of it, and how they differ from the control's, where enough is known.

    `lists` are those that were logged, of which `waiting` are still before their users; `buckets` is how many of 64 groups of users
    have had any; `hits` are lists with a click; `shown`, `clicks` and `positives` are places.
    """

    name: str
    share: float
    buckets: int
    lists: int
    waiting: int
    hits: int
    shown: int
    clicks: int
    positives: int
    watch_seconds: float
    figures: dict[str, Figure]
    to_control: dict[str, Comparison] | None


class ExperimentReport(msgspec.Struct):
    """Answer of `/v1/experiments`; `experiment` is null where there is none.

    `definition` names all that was configured: with another one, counts begin at zero. The first arm is the control. `late` lists do
    not count, for they were read long after what could have followed them; `short` ones do, with what had followed them when their
    worker ended.
    """

    experiment: str | None
    definition: str | None
    as_of_ms: int
    late: int
    short: int
    arms: list[ArmReport]


def report(tally: Tally | None, as_of_ms: int) -> ExperimentReport:
    """What is known now, of all shards."""
    if tally is None:
        return ExperimentReport(None, None, as_of_ms, 0, 0, [])
    experiment, sums, waiting = tally.experiment, tally.sums(), tally.waiting()
    found = figures(sums)
    shares = sum(arm.share for arm in experiment.arms)
    arms = [
        ArmReport(
            name=arm.name,
            share=round(arm.share / shares, 6),
            buckets=int((sums[place, :, LISTS] > 0.0).sum()),
            waiting=int(waiting[place]),
            **_counts(sums[place].sum(axis=0)),
            watch_seconds=float(sums[place, :, WATCH].sum()) / 1000.0,
            figures={name: _figure(one) for name, one in found[place].items()},
            to_control=_compared(found[place], found[0]) if place else None,
        )
        for place, arm in enumerate(experiment.arms)
    ]
    return ExperimentReport(experiment.name, f"{experiment.id:014x}", as_of_ms, tally.late, tally.short, arms)


def _counts(sums: Float64Array) -> dict[str, int]:
    return {name: int(count) for name, count in zip(MEASURES[:WATCH], sums[:WATCH].tolist(), strict=True)}


def _figure(one: Ratio) -> Figure:
    low, high = one.interval or (None, None)
    return Figure(None if math.isnan(one.value) else _rounded(one.value), _rounded(low), _rounded(high))


def _compared(arm: dict[str, Ratio], control: dict[str, Ratio]) -> dict[str, Comparison]:
    differences = {name: difference(one, control[name]) for name, one in arm.items()}
    return {
        name: Comparison(round(more.value, 6), *(round(number, 6) for number in more[1:]))
        for name, more in differences.items()
        if more is not None
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 6)

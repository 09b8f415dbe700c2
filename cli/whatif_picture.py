"""The picture of a comparison: recall of both configurations over the log, and what the difference has added up to.

Flows in: a comparison. Flows out: a PNG with its text. Always holds: it depends on nothing else, however matplotlib is set up.
"""

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cli.comparison import DECIDES, Comparison, mean_of_users
from cli.pictures import COLOURS, QUIET, SERVED, STEPS, STRETCHES, STYLE, WIDTH, Picture, as_picture, short_date

#: Points of the lower curve, and targets before the first of them: with fewer its interval would be wider than the picture.
POINTS, FIRST = 40, 200


def draw(found: Comparison) -> Picture:
    """Draw it."""
    with style.context(["default", STYLE]):
        return _draw(found)


def _draw(found: Comparison) -> Picture:
    n, at_ms = len(found.targets), found.positions.at_ms
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    figure.suptitle(
        f"{DECIDES} of stretches of the log, and the difference so far", x=0.022, horizontalalignment="left"
    )
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    stretches = min(STRETCHES[1], max(n // FIRST, 1))
    for arm, colour in (("live", SERVED), ("candidate", COLOURS[0])):
        _, means = found.positions.curve(arm, stretches)
        middles = (np.arange(len(means)) + 0.5) * n / len(means)
        upper.plot(middles, means, color=colour, linewidth=2.0, marker="o", markersize=3, label=arm)
    upper.set_ylim(bottom=0.0)
    upper.grid(axis="y")
    upper.legend(loc="lower right", ncols=2)
    gains = found.positions.hits("candidate") - found.positions.hits("live")
    users = np.array([target.user for target in found.targets], np.uint64)
    so_far = np.unique(np.linspace(min(FIRST, n), n, POINTS).astype(np.int64))
    ratios = [mean_of_users(gains[:end], users[:end]) for end in so_far.tolist()]
    values = np.array([ratio.value for ratio in ratios])
    bounds = np.array([ratio.interval or (np.nan, np.nan) for ratio in ratios])
    lower.axhline(0.0, color=QUIET, linewidth=1.0)
    lower.fill_between(so_far, bounds[:, 0], bounds[:, 1], color=COLOURS[0], alpha=0.2, linewidth=0.0)
    lower.plot(so_far, values, color=COLOURS[0], linewidth=2.0)
    lower.grid(axis="y")
    lower.set_ylabel("candidate - live")
    lower.set_xlim(0, n)
    for axes in (upper, lower):
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    lower.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10), integer=True))
    span_ms = max(at_ms) - min(at_ms)
    lower.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{int(x):,}\n{short_date(at_ms[min(max(int(x), 0), n - 1)], span_ms)}")
    )
    lower.set_xlabel("lists, and when (UTC); band: 95% interval of users")
    low, high = ratios[-1].interval or (float("nan"), float("nan"))
    live, candidate = (found.positions.hits(arm).mean() for arm in ("live", "candidate"))
    alt = (
        f"Lines of {DECIDES} over {n:,} lists: live {live:.4f}, candidate {candidate:.4f}. Below, the difference so far: "
        f"{values[-1]:+.4f} at the end, from {low:+.4f} to {high:+.4f}."
    )
    return as_picture("compare.png", figure, alt)

"""The pictures of a study: recall over the log, and bars of arms, of cold and warm users, and of what was left out.

Flows in: a study that has run. Flows out: PNGs with their text. Always holds: `served` has a colour that nothing else has, and
a picture depends on nothing but the study, however matplotlib is set up.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cli.study import Study
from state.types import Float64Array, Int64Array

#: Standard errors to either side that hold 95% of a normal distribution.
Z95 = 1.96
#: Stretches of a curve, and positives in each if the curve then still has the least number: with fewer in a stretch its noise
#: hides the way that recall goes.
STRETCHES = (8, 24)
STRETCH = 1000
#: Inches. Wider, and text is too small to read where the picture is scaled down to a phone.
WIDTH = 5.6
DPI = 220
#: Of axes: multiples of these are read at a glance.
STEPS = (1, 2, 5, 10)

# Okabe and Ito 2008, "Color Universal Design": told apart with any colour vision. Their yellow is too light for lines on white.
SERVED = "#0072B2"
COLOURS = ("#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
#: Again with dashes once the colours are used up.
LINES = tuple((colour, dashes) for dashes in ("-", "--", ":") for colour in COLOURS)
COLD, WARM = "#56B4E9", "#E69F00"
QUIET = "#9AA3AD"
INK = "#30363D"

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.dpi": DPI,
    "figure.titlesize": 10.5,
    "font.size": 10.5,
    "grid.color": "#E3E6EA",
    "legend.fontsize": 10.0,
    "legend.frameon": False,
    "savefig.dpi": DPI,
    "text.color": INK,
    "xtick.color": INK,
    "xtick.major.size": 0.0,
    "ytick.color": INK,
    "ytick.major.size": 0.0,
}


class Picture(NamedTuple):
    """A picture, and what it shows for somebody who does not see it.

    Attributes
    ----------
    name : of the file
    png : its bytes
    size : pixels, width and height
    alt : its numbers
    """

    name: str
    png: bytes
    size: tuple[int, int]
    alt: str


def draw(study: Study) -> list[Picture]:
    """Draw all pictures that a study has: recall, arms, cold, and ablation if something was left out."""
    with style.context(["default", STYLE]):
        made = [_recall(study), _arms(study), _cold(study)]
        return [*made, _ablation(study)] if study.ablations else made


def curve(study: Study, arm: str) -> tuple[Int64Array, Float64Array, Float64Array]:
    """Recall of consecutive stretches of the targets, over the seeds that ran the arm.

    Returns
    -------
    ends : int64, shape (s,); targets up to the end of each stretch
    means : float64, shape (s,)
    errors : float64, shape (s,); standard errors, of targets and of seeds
    """
    runs = [run for run in study.runs if arm in run.positions.arms]
    points = min(max(runs[0].n // STRETCH, STRETCHES[0]), STRETCHES[1])
    curves = np.array([run.positions.curve(arm, points)[1] for run in runs])
    ends = np.linspace(0, runs[0].n, curves.shape[1] + 1).astype(np.int64)
    means = curves.mean(axis=0)
    of_seeds = curves.std(axis=0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else 0.0
    return ends[1:], means, np.hypot(np.sqrt(means * (1.0 - means) / np.diff(ends)), of_seeds)


def date(at_ms: int) -> str:
    """Write the day of an event time, in UTC."""
    at = _time(at_ms)
    return at.strftime(f"{at.day} %b %Y")


def short_date(at_ms: int, span_ms: int) -> str:
    """Write an event time, in UTC, as exactly as one of a log of this length must be."""
    at, days = _time(at_ms), span_ms / 86_400_000
    return at.strftime("%b %Y" if days > 300 else f"{at.day} %b" if days > 3 else f"{at.day} %b %H:%M")


def _time(at_ms: int) -> datetime:
    # A file may hold times up to the year 287396, a datetime up to 9999.
    return datetime.fromtimestamp(min(at_ms / 1000.0, 253_402_300_799.0), UTC)


def _recall(study: Study) -> Picture:
    at_ms = study.runs[0].positions.at_ms
    n, span_ms = len(at_ms), at_ms[-1] - at_ms[0]
    ends, served, _ = curve(study, "served")
    title = f"recall@{study.k} of stretches of {n // len(ends):,} positives; band: ± standard error"
    figure, axes = _figure(4.4, title)
    others = [name for name in study.names if name != "served"]
    names = _best_first(study)
    for arm in names:
        ends, means, errors = curve(study, arm)
        middles = (ends + np.concatenate([[0], ends[:-1]])) / 2.0
        if arm == "served":
            axes.fill_between(middles, means - errors, means + errors, color=SERVED, alpha=0.18, linewidth=0.0)
            axes.plot(middles, means, color=SERVED, linewidth=2.6, marker="o", markersize=3.5, zorder=3, label=arm)
        else:
            colour, dashes = LINES[others.index(arm) % len(LINES)]
            axes.plot(
                middles, means, color=colour, linestyle=dashes, linewidth=1.3, marker="o", markersize=2, label=arm
            )
    axes.set_xlim(0, n)
    axes.set_ylim(bottom=0.0)
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10), integer=True))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{int(x):,}\n{short_date(at_ms[min(max(int(x), 0), n - 1)], span_ms)}")
    )
    period = f"from {date(at_ms[0])} to {date(at_ms[-1])}"
    axes.set_xlabel(f"ranked positives, and when: {period} (UTC)")
    figure.legend(loc="outside lower left", ncols=3)
    alt = (
        f"Lines of recall@{study.k} over {n:,} ranked positives, {period}. Served has {served[0]:.4f} in the first stretch "
        f"and {served[-1]:.4f} in the last; best on the whole is {names[0]}."
    )
    return as_picture("recall.png", figure, alt)


def _arms(study: Study) -> Picture:
    recall, arms, names = f"recall@{study.k}", study.arms(), _best_first(study)
    figure, axes = _figure(1.1 + 0.36 * len(names), f"{recall}, with 95% intervals")
    values = [arms[name][recall] for name in names]
    errors = [Z95 * arms[name]["se"] for name in names]
    axes.barh(names, values, height=0.66, color=[SERVED if name == "served" else QUIET for name in names])
    _whiskers(axes, values, errors, range(len(names)))
    for place, (value, error) in enumerate(zip(values, errors, strict=True)):
        end, white = value + error, {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.annotate(f"{value:.4f}", (end, place), (5, 0), textcoords="offset points", va="center", bbox=white)
    # Room for the longest bar's number.
    axes.set_xlim(0.0, 1.15 * (max(np.add(values, errors)) or 1.0))
    _rows(axes, names)
    return as_picture("arms.png", figure, f"Bars of {recall}: {_listed(arms, names, recall)}.")


def _cold(study: Study) -> Picture:
    recall, names = f"recall@{study.k}", _best_first(study)
    figure, axes = _figure(1.4 + 0.52 * len(names), f"{recall} of cold and warm users, with 95% intervals")
    cold = int(sum(study.runs[0].positions.cold))
    alt = [f"Bars of {recall}."]
    for group, n, colour, shift in (("cold", cold, COLD, -0.18), ("warm", study.runs[0].n - cold, WARM, 0.18)):
        if not n:
            continue
        arms, places = study.arms(group), [row + shift for row in range(len(names))]
        values = [arms[name][recall] for name in names]
        axes.barh(places, values, height=0.34, color=colour, label=f"{group} users (n = {n:,})")
        _whiskers(axes, values, [Z95 * arms[name]["se"] for name in names], places)
        alt.append(f"{group.capitalize()} users: {_listed(arms, names, recall)}.")
    axes.set_xlim(left=0.0)
    _rows(axes, names)
    figure.legend(loc="outside lower left", ncols=2)
    return as_picture("cold.png", figure, " ".join(alt))


def _ablation(study: Study) -> Picture:
    rows = study.ablated()
    figure, axes = _figure(1.6 + 0.3 * len(rows), f"recall@{study.k} of served without a part, minus that with all")
    axes.axvline(0.0, color=INK, linewidth=1.0)
    for place, (_, _, difference, error) in enumerate(rows):
        colour = SERVED if abs(difference) > Z95 * error else QUIET
        axes.errorbar(difference, place, xerr=Z95 * error, fmt="o", color=colour, elinewidth=1.8)
    axes.margins(x=0.08)
    _rows(axes, [row[0] for row in rows])
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=STEPS))
    axes.set_xlabel("left of 0: the part helps\nlines: 95% intervals, grey where 0 is within")
    told = ", ".join(f"{name} {difference:+.4f}" for name, _, difference, _ in rows)
    return as_picture("ablation.png", figure, f"Differences of recall@{study.k} without a part: {told}.")


def _best_first(study: Study) -> list[str]:
    arms = study.arms()
    return sorted(arms, key=lambda name: -arms[name][f"recall@{study.k}"])


def _listed(arms: Mapping[str, Mapping[str, float]], names: Sequence[str], metric: str) -> str:
    return ", ".join(f"{name} {arms[name][metric]:.4f}" for name in names)


def _figure(height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.022, horizontalalignment="left")
    return figure, figure.add_subplot()


def _whiskers(axes: Axes, values: Sequence[float], errors: Sequence[float], places: Sequence[float]) -> None:
    axes.errorbar(values, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=1.1, capsize=2.5)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of bars, from the top, and leave nothing else on the axes that says nothing."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    for label in axes.get_yticklabels():
        if label.get_text() == "served":
            label.set_fontweight("bold")


def as_picture(name: str, figure: Figure, alt: str) -> Picture:
    """The figure as a PNG, with the text for who does not see it."""
    buffer = BytesIO()
    # Without the software's name and address the same study makes the same file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return Picture(name, buffer.getvalue(), figure.canvas.get_width_height(), alt)

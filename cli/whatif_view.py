"""What `headrace replay --compare` prints: a table of both configurations, and one sentence with the verdict."""

import math
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.comparison import BETTER, DECIDES, METRICS, SAME, UNKNOWN, WORSE, Comparison
from state.ratios import Ratio

#: Groups of targets beside all of them, and what they are called.
GROUPS = {"cold": "cold users", "warm": "warm users", "young": "young videos"}


def show(console: Console, found: Comparison, changed: Mapping[str, Any]) -> None:
    """Print it."""
    table = Table(title="prequential, whole unseen catalogue", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for name in ("live", "candidate", "difference", "95% interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    n = len(found.targets)
    for metric in METRICS:
        _row(table, metric + (" (hit rate)" if metric == DECIDES else ""), found, metric, "all", n)
    for group, name in GROUPS.items():
        if group in found.groups:
            _row(table, f"{DECIDES}, {name}", found, DECIDES, group, int(found.groups[group].sum()))
    shares = [found.coverage[arm] for arm in ("live", "candidate")]
    table.add_row("videos listed", *(f"{share:.1%}" for share in shares), f"{shares[1] - shares[0]:+.1%}", "", "")
    console.print(table)
    if found.refused:
        console.print(
            f"{found.refused:,} events that lists were made for had no room in the candidate: misses", soft_wrap=True
        )
    console.print(f"Candidate: {_written(changed)}", soft_wrap=True)
    console.print(_sentence(found), soft_wrap=True)


def _row(table: Table, name: str, found: Comparison, metric: str, group: str, n: int) -> None:
    chosen = found.groups[group]
    values = [found.positions.metrics(arm, chosen)[metric] for arm in ("live", "candidate")]
    difference = found.difference(metric, group)
    table.add_row(
        name, *(f"{value:.4f}" for value in values), f"{difference.value:+.4f}", _interval(difference), f"{n:,}"
    )


def _interval(difference: Ratio) -> str:
    interval = difference.interval
    return "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def _written(changed: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in changed.items()) or "nothing is changed"


def _sentence(found: Comparison) -> str:
    difference, users = found.difference(DECIDES), len({target.user for target in found.targets})
    said = {
        BETTER: "Better: the candidate would have listed more of what users came to like.",
        WORSE: "Worse: the candidate would have listed less of what users came to like.",
        SAME: "No difference seen.",
        UNKNOWN: f"Too few users to tell ({users}): give it more of the log.",
    }[found.verdict]
    error = "" if math.isnan(difference.error) else f" ± {difference.error:.4f} (standard error, of users)"
    n = len(found.targets)
    return f"{said} {DECIDES}: {difference.value:+.4f}{error}; n = {n:,} lists of {users:,} users"

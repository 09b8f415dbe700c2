"""The dashboard as a picture, without Grafana: each panel's queries asked of a Prometheus, and drawn with matplotlib.

    python -m infra.grafana.render http://127.0.0.1:9090 docs/dashboard.png --minutes 10

The dashboard's JSON and a Prometheus flow in, a PNG flows out. What always holds: every query is the one that Grafana would send, with
the variables filled in; a panel whose queries give nothing says "no data" and is counted.
"""

import argparse
import json
import math
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parent / "dashboards" / "headrace.json"
#: Grafana's least for a scrape every 5 s is 20 s; four samples more are smoother, and the picture covers minutes.
RATE_INTERVAL = "1m"
STEPS = 240
TIMEOUT_S = 20.0
#: Inches of one unit of Grafana's grid.
UNIT_W, UNIT_H = 0.8, 0.34
NAMES_OF_UNITS = {"s": "s", "bytes": "B", "currencyUSD": "$", "percentunit": "%", "reqps": "/s"}


@dataclass(frozen=True)
class Series:
    """One line: its name, times in seconds since 1970, and values."""

    name: str
    at_s: list[float]
    values: list[float]


def fill_in(query: str, variables: dict[str, str]) -> str:
    """The query with `$name` replaced, longest names first."""
    for name in sorted(variables, key=len, reverse=True):
        query = query.replace(f"${name}", variables[name])
    return query


def variables_of(dashboard: dict[str, Any]) -> dict[str, str]:
    """What Grafana would fill in where nothing is chosen."""
    values = {"__rate_interval": RATE_INTERVAL}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "textbox":
            values[variable["name"]] = variable["query"]
        elif variable.get("includeAll"):
            values[variable["name"]] = variable["allValue"]
    return values


def legend(pattern: str, labels: dict[str, str]) -> str:
    """The name of a line: `{{label}}` replaced."""
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern


def ask(url: str, query: str, begin_s: float, end_s: float) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    """Prometheus' answer over a range: labels, and times with values, of each series. Raises OSError, ValueError."""
    step = max((end_s - begin_s) / STEPS, 1.0)
    asked = urllib.parse.urlencode({"query": query, "start": begin_s, "end": end_s, "step": step})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{asked}", timeout=TIMEOUT_S) as answer:  # noqa: S310 - the operator's URL
        told = json.load(answer)
    return [
        (series["metric"], [(float(at), float(value)) for at, value in series["values"]])
        for series in told["data"]["result"]
    ]


def lines_of(panel: dict[str, Any], url: str, variables: dict[str, str], begin_s: float, end_s: float) -> list[Series]:
    """What the panel shows; series of nothing but NaN are left out, as Grafana does."""
    lines = []
    for target in panel["targets"]:
        for labels, points in ask(url, fill_in(target["expr"], variables), begin_s, end_s):
            if not all(math.isnan(value) for _, value in points):
                name = legend(target["legendFormat"], labels)
                lines.append(Series(name, [at for at, _ in points], [value for _, value in points]))
    return lines


def shown(value: float, unit: str, decimals: int | None) -> str:
    """A number as the panel's unit has it."""
    if unit == "percentunit":
        return f"{100 * value:.{2 if decimals is None else decimals}f} %"
    if unit == "bytes":
        return f"{value / 1e9:.1f} GB"
    text = f"{value:,.{2 if decimals is None else decimals}f}"
    return f"$ {text}" if unit == "currencyUSD" else f"{text} {NAMES_OF_UNITS.get(unit, '')}".strip()


def render(url: str, out: Path, minutes: float, dashboard: dict[str, Any], end_s: float | None = None) -> list[str]:
    """Write the picture of the minutes up to `end_s` (None: now); returns the titles of panels without data."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    end_s = time.time() if end_s is None else end_s
    variables = variables_of(dashboard)
    panels = dashboard["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure: Figure = plt.figure(figsize=(24 * UNIT_W, height * UNIT_H), dpi=64, facecolor="#f4f5f5")
    empty = []
    for panel in panels:
        at = panel["gridPos"]
        left, top = at["x"] / 24, 1 - at["y"] / height
        if panel["type"] == "row":
            figure.text(left + 0.005, top - 0.7 / height, panel["title"], fontsize=14, weight="bold", va="center")
            continue
        lines = lines_of(panel, url, variables, end_s - 60 * minutes, end_s)
        if not lines:
            empty.append(panel["title"])
        bottom = top - at["h"] / height
        axes = figure.add_axes(
            (left + 0.024, bottom + 1.3 / height, at["w"] / 24 - 0.032, (at["h"] - 2.5) / height), facecolor="white"
        )
        axes.set_title(panel["title"], fontsize=9, loc="left", pad=3)
        unit = panel["fieldConfig"]["defaults"].get("unit", "")
        if panel["type"] == "stat":
            axes.axis("off")
            decimals = panel["fieldConfig"]["defaults"].get("decimals")
            told = shown(lines[0].values[-1], unit, decimals) if lines else "no data"
            axes.text(0.5, 0.45, told, fontsize=19, ha="center", va="center", transform=axes.transAxes)
            continue
        _draw(axes, lines, unit, stacked=panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal")
    figure.savefig(out)
    plt.close(figure)
    return empty


def _draw(axes: Any, lines: list[Series], unit: str, *, stacked: bool) -> None:
    """Lines over minutes before now; stacked ones upon each other where all have the same times."""
    if not lines:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes, color="grey")
    factor = 100.0 if unit == "percentunit" else 1e-6 if unit == "bytes" else 1.0
    last_s = max((line.at_s[-1] for line in lines), default=0.0)
    below: dict[float, float] = {}
    for line in lines:
        minutes = [(at - last_s) / 60 for at in line.at_s]
        values = [value * factor for value in line.values]
        if stacked:
            floor = [below.get(at, 0.0) for at in line.at_s]
            values = [value + base for value, base in zip(values, floor, strict=True)]
            axes.fill_between(minutes, floor, values, alpha=0.25)
            below |= dict(zip(line.at_s, values, strict=True))
        axes.plot(minutes, values, linewidth=1, label=line.name)
    if any(line.name for line in lines):
        axes.legend(fontsize=6, loc="upper left", ncols=2, framealpha=0.6, borderpad=0.2, handlelength=1)
    if unit != "none" and lines:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("MB" if unit == "bytes" else NAMES_OF_UNITS.get(unit, ""), fontsize=7, labelpad=1)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description="Draw the dashboard from a Prometheus.")
    parser.add_argument("prometheus", help="for example http://127.0.0.1:9090")
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--minutes", type=float, default=10.0, help="that are shown")
    parser.add_argument("--until", type=float, help="seconds since 1970; by default now")
    asked = parser.parse_args()
    empty = render(
        asked.prometheus.rstrip("/"), asked.out, asked.minutes, json.loads(DASHBOARD.read_text()), asked.until
    )
    print(f"{asked.out}: {len(empty)} panels without data{': ' if empty else ''}{', '.join(empty)}")  # noqa: T201 - its result


if __name__ == "__main__":
    main()

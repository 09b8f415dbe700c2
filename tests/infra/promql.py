"""Queries of the dashboard, the rules and the adapter; and what of metrics they name."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

INFRA = Path(__file__).parents[2] / "infra"
DASHBOARD = INFRA / "grafana" / "dashboards" / "headrace.json"
RULES = INFRA / "prometheus" / "rules" / "headrace.yml"
ADAPTER = INFRA / "kubernetes" / "prometheus-adapter-values.yaml"
_SELECTOR = re.compile(r'\b((?:headrace|process)_\w+)(?:\{((?:[^"}]|"[^"]*")*)\})?')
_MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")
_LABEL_IN_LEGEND = re.compile(r"\{\{(\w+)\}\}")


def dashboard() -> dict[str, Any]:
    """What Grafana reads."""
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def panels() -> list[dict[str, Any]]:
    """Those that ask something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str, str]]:
    """Where each query stands, the query, and the legend that goes with it."""
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']!r}", target["expr"], target["legendFormat"]
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"], ""
    for rule in yaml.safe_load(ADAPTER.read_text(encoding="utf-8"))["rules"]["custom"]:
        yield "adapter", rule["seriesQuery"], ""


def selected(query: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each metric of the query, and what its labels have to be: name, operator, value."""
    for name, matchers in _SELECTOR.findall(query):
        yield name, _MATCHER.findall(matchers)


def grouped(query: str, legend: str) -> set[str]:
    """Labels that the query groups by, or that its legend shows."""
    names = {name.strip() for group in _GROUPING.findall(query) for name in group.split(",")}
    return names | set(_LABEL_IN_LEGEND.findall(legend))

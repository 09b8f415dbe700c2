"""The dashboard as a picture: each panel's queries are asked as Grafana would, and a panel without data is named."""

import json
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from infra.grafana.render import fill_in, legend, render, shown, variables_of
from tests.infra.promql import dashboard, panels

EMPTY = "headrace_index_recall_ratio"


@pytest.fixture
def prometheus() -> Iterator[tuple[str, list[str]]]:
    """A server that gives every query one series, but for those that name EMPTY; and the queries."""
    queries: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            [query], [start] = asked["query"], asked["start"]
            queries.append(query)
            values = [[float(start) + 5 * step, "NaN" if EMPTY in query else str(step)] for step in range(3)]
            body = json.dumps({"data": {"result": [{"metric": {"instance": "w1"}, "values": values}]}}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", queries
        server.shutdown()


def test_a_picture_is_drawn_and_what_has_no_data_is_named(prometheus: tuple[str, list[str]], tmp_path: Path) -> None:
    url, queries = prometheus
    two = dashboard()
    wanted = ("State behind", "Candidates and index", "Disk")
    two["panels"] = [panel for panel in panels() if panel["title"] in wanted]
    # Without its other line, a panel of nothing but NaN.
    [candidates] = [panel for panel in two["panels"] if panel["title"] == "Candidates and index"]
    candidates["targets"] = [target for target in candidates["targets"] if EMPTY in target["expr"]]
    out = tmp_path / "dashboard.png"
    assert render(url, out, 5, two) == ["Candidates and index"]
    with Image.open(out) as picture:
        assert picture.width > 1000
    assert len(queries) == 3
    assert not any("$" in query for query in queries)


def test_variables_are_filled_in_longest_first() -> None:
    variables = variables_of(dashboard())
    assert variables["instance"] == ".*"
    assert fill_in('x{instance=~"$instance"}[$__rate_interval] * $price_gb_hour', variables) == (
        'x{instance=~".*"}[1m] * 0.005'
    )
    assert fill_in("$ab $a", {"a": "1", "ab": "2"}) == "2 1"


def test_names_and_numbers_are_shown_as_grafana_shows_them() -> None:
    assert legend("p99 {{agent}}", {"agent": "users", "le": "1"}) == "p99 users"
    assert [shown(0.0123, "percentunit", None), shown(2.5e9, "bytes", 1), shown(1234.5, "currencyUSD", 2)] == [
        "1.23 %",
        "2.5 GB",
        "$ 1,234.50",
    ]

"""Rules and dashboard: what Prometheus' own tool says of them, and where their runbooks lead."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from infra.grafana.render import fill_in, variables_of
from tests.infra.markdown import leads_somewhere
from tests.infra.promql import RULES, dashboard, panels, queries, rules

ROOT = Path(__file__).parents[2]
RULES_TEST = ROOT / "infra" / "prometheus" / "tests" / "headrace_test.yml"


def promtool(*arguments: object) -> str:
    """What it prints; skips where it is not installed, fails where it fails."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (on Debian and Ubuntu: prometheus)")
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_rules_are_well_formed() -> None:
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", RULES)


def test_alerts_fire_when_they_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", RULES_TEST)


def test_every_alert_has_a_test_that_it_fires_in() -> None:
    tests = yaml.safe_load(RULES_TEST.read_text(encoding="utf-8"))["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules()}


def test_the_scrape_configuration_is_well_formed() -> None:
    promtool("check", "config", "--syntax-only", ROOT / "infra" / "prometheus" / "prometheus.yml")


def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    """Each as a recording rule, for that is what the tool reads."""
    variables = variables_of(dashboard())
    recorded = [
        {"record": f"query:{number}", "expr": fill_in(query, variables)}
        for number, (where, query, _) in enumerate(queries())
        if where.startswith("panel")
    ]
    assert len(recorded) >= len(panels())
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in promtool("check", "rules", file)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_leads_to_a_runbook(rule: dict[str, dict[str, str]]) -> None:
    path, _, fragment = rule["annotations"]["runbook"].partition("#")
    assert fragment
    assert leads_somewhere(ROOT / "README.md", path, fragment), rule["annotations"]["runbook"]
    assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_dashboard_answers_four_questions_and_every_panel_says_what_it_shows() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["Are we fresh?", "Are we good?", "Are we healthy?", "What does it cost?"]
    assert all(panel["description"] and panel["targets"] for panel in panels())
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)


def test_panels_do_not_lie_on_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]

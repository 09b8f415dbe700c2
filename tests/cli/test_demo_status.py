"""The demo's counts: only what this run has brought about, and lag that never goes below nothing."""

import pytest

from cli.demo_status import Status


def test_outcomes_are_those_of_this_run() -> None:
    status = Status()
    status.baseline = {"learned": 5, "ignored": 1, "duplicate": 0, "dead": 2}
    status.totals = {"learned": 8, "ignored": 1, "duplicate": 4, "dead": 2}
    assert status.outcomes() == {"learned": 3, "ignored": 0, "duplicate": 4, "dead": 0}
    assert status.applied() == 7


def test_lag_counts_everything_sent() -> None:
    status = Status(replayed=10, probed=2, liked=1)
    status.totals = {"learned": 4, "ignored": 0, "duplicate": 0, "dead": 0}
    assert status.lag() == 9
    status.totals = {"learned": 20, "ignored": 0, "duplicate": 0, "dead": 0}
    assert status.lag() == 0  # somebody else has sent events too


def test_rates() -> None:
    status = Status(began=100.0, ended=104.0, history=[(100.0, 0), (102.0, 10), (103.0, 40)])
    status.totals = {"learned": 40, "ignored": 0, "duplicate": 0, "dead": 0}
    assert status.rate() == pytest.approx(10.0)
    assert status.recent_rate() == pytest.approx(40 / 3)


def test_samples() -> None:
    status = Status()
    assert status.freshness(0.5) is None
    assert status.hit_rates() == (0, 0.0, 0.0)
    status.freshness_ms = [10.0, 20.0, 30.0]
    status.hits = [(True, False), (True, True), (False, False), (False, True)]
    assert status.freshness(0.5) == 20.0
    assert status.hit_rates() == (4, 0.5, 0.5)

"""Lessons are rationed by the stream's time."""

import pytest

from state.quota import DAY_MS, Quota


def test_at_first_the_burst_then_the_ration() -> None:
    quota = Quota(per_day=240.0, burst=10.0)
    begin = 1_600_000_000_000
    assert quota.take(begin, 100) == 10
    assert quota.take(begin, 100) == 0
    assert quota.take(begin + DAY_MS // 24, 100) == 10, "an hour's"
    assert quota.take(begin + DAY_MS // 24 + DAY_MS // 48, 3) == 3
    assert quota.left(begin + DAY_MS // 24 + DAY_MS // 48) == 2


def test_no_more_is_saved_up_than_the_burst() -> None:
    quota = Quota(per_day=240.0, burst=10.0)
    assert quota.take(DAY_MS, 100) == 10
    assert quota.take(100 * DAY_MS, 100) == 10


def test_time_that_runs_backwards_grants_nothing() -> None:
    quota = Quota(per_day=240.0, burst=10.0)
    assert quota.take(DAY_MS, 10) == 10
    assert quota.take(0, 10) == 0
    assert quota.take(DAY_MS + DAY_MS // 240, 10) == 1, "and what comes after is counted from the latest"


@pytest.mark.parametrize("step_ms", [1, 1_000, 3_600_000])
def test_what_is_granted_does_not_depend_on_how_often_it_is_asked(step_ms: int) -> None:
    quota = Quota(per_day=100.0, burst=5.0)
    quota.take(DAY_MS, 5)
    granted = sum(quota.take(DAY_MS + t, 1_000) for t in range(0, 10 * 3_600_000 + 1, step_ms))
    # With steps of hours no more than the burst is kept between two.
    assert granted in (41, 40)


def test_none_at_all() -> None:
    assert Quota(0.0, 0.0).take(DAY_MS, 5) == 0

"""Token buckets of one worker."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.limits import RateLimits


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    limits = RateLimits(rate=10, burst=5, clock=clock)
    assert [limits.allow("a") for _ in range(5)] == [0.0] * 5
    assert limits.allow("a") == pytest.approx(0.1)
    assert limits.allow("b") == 0.0  # others have their own
    clock.now_s += 0.05
    assert limits.allow("a") == pytest.approx(0.05)
    clock.now_s += 0.05
    assert limits.allow("a") == 0.0
    assert limits.allow("a") > 0
    clock.now_s += 100  # a bucket holds a burst, however long nobody asks
    assert [limits.allow("a") > 0 for _ in range(6)] == [False] * 5 + [True]


def test_the_wait_it_names_is_enough_and_not_too_long() -> None:
    clock = Clock()
    limits = RateLimits(rate=3, burst=7, clock=clock)
    while not (wait_s := limits.allow("a", 2)):
        pass
    clock.now_s += wait_s * 0.99
    assert limits.allow("a", 2) > 0
    clock.now_s += wait_s * 0.01
    assert limits.allow("a", 2) == 0.0


def test_a_refusal_costs_nothing() -> None:
    clock = Clock()
    limits = RateLimits(rate=1, burst=1, clock=clock)
    limits.allow("a")
    for _ in range(100):
        assert limits.allow("a") == pytest.approx(1)
    clock.now_s += 1
    assert limits.allow("a") == 0.0
    assert limits.take_spent() == {"a": 2}


def test_what_costs_more_than_a_burst_needs_a_full_bucket_and_is_paid_back() -> None:
    clock = Clock()
    limits = RateLimits(rate=10, burst=5, clock=clock)
    limits.allow("a")
    assert limits.allow("a", 100) == pytest.approx(0.1)
    clock.now_s += 0.1
    assert limits.allow("a", 100) == 0.0
    assert limits.allow("a") == pytest.approx(9.6)


@given(st.floats(0.1, 1e4), st.integers(1, 100), st.integers(0, 2**32))
def test_over_any_time_a_client_gets_a_burst_and_the_rate_at_most(rate: float, burst: int, seed: int) -> None:
    rng, clock = random.Random(seed), Clock()
    limits = RateLimits(rate, burst, clock=clock)
    granted: list[tuple[float, int]] = []
    for _ in range(300):
        clock.now_s += rng.expovariate(1) * rng.choice((0.1, 1, 10)) / rate
        cost = rng.randint(1, burst)
        if not limits.allow("a", cost):
            granted.append((clock.now_s, cost))
    assert granted
    for begin in range(0, len(granted), 7):
        total = 0
        for at_s, cost in granted[begin:]:
            total += cost
            assert total <= burst + rate * (at_s - granted[begin][0]) + 1e-3


def test_clients_in_memory_are_bounded_and_the_one_that_asks_is_kept() -> None:
    limits = RateLimits(rate=1, burst=1, most=100, clock=Clock())
    assert limits.allow("busy") == 0.0
    for number in range(1_000):
        limits.allow(f"c{number}")
        assert limits.allow("busy") > 0
    spent = limits.take_spent()
    assert len(limits._paid_at) == 100
    assert len(spent) == 100
    assert limits.allow("c999") > 0
    assert limits.allow("c0") == 0.0  # begins anew


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (float("nan"), 1), (1, 0.5), (1, 0)])
def test_a_limit_that_allows_nothing_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="rate must be above 0"):
        RateLimits(rate, burst)


def test_what_is_given_back_may_be_spent_again_unless_others_were_told() -> None:
    clock = Clock()
    limits = RateLimits(rate=1, burst=2, clock=clock)
    assert [limits.allow("a") for _ in range(2)] == [0.0, 0.0]
    limits.give_back("a", 1)
    assert limits.allow("a") == 0.0
    assert limits.allow("a") > 0
    assert limits.take_spent() == {"a": 2}
    limits.give_back("a", 1)  # they have counted it by now
    assert limits.allow("a") > 0
    assert limits.take_spent() == {}
    limits.give_back("nobody", 1)
    clock.now_s += 100
    assert [limits.allow("a") > 0 for _ in range(3)] == [False, False, True]

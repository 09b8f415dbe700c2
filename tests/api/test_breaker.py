"""When a breaker opens, tries and closes."""

import asyncio
from collections.abc import Callable

import pytest

from api.breaker import Breaker, BreakerOpen, State
from infra import metrics


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Refused(Exception):
    pass


class Service:
    """Succeeds, or raises what it is told to; counts its calls."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.calls


def breaker(clock: Callable[[], float], name: str = "test") -> Breaker:
    return Breaker(name, answers=(Refused,), failures=3, pause_s=1.0, longest_pause_s=5.0, clock=clock)


def gauge(name: str = "test") -> float | None:
    return metrics.REGISTRY.get_sample_value("headrace_breaker_state", {"service": name})


async def fail(guard: Breaker, service: Service, times: int) -> None:
    service.error = ConnectionError()
    for _ in range(times):
        with pytest.raises(ConnectionError):
            await guard.call(service, 1)


async def test_it_opens_after_failures_in_a_row_and_then_asks_nobody() -> None:
    guard, service = breaker(Clock()), Service()
    await fail(guard, service, 2)
    service.error = None
    assert await guard.call(service, 1) == 3
    await fail(guard, service, 2)
    assert (guard.state, gauge()) == (State.CLOSED, 0)
    await fail(guard, service, 1)
    assert (guard.state, gauge()) == (State.OPEN, 2)
    with pytest.raises(BreakerOpen):
        await guard.call(service, 1)
    assert service.calls == 6


async def test_pauses_grow_up_to_the_longest_and_a_success_closes_it() -> None:
    clock, service = Clock(), Service()
    guard = breaker(clock)
    await fail(guard, service, 3)
    for pause_s in (1, 2, 4, 5, 5):
        clock.now_s += pause_s - 0.01
        with pytest.raises(BreakerOpen):
            await guard.call(service, 1)
        clock.now_s += 0.02
        await fail(guard, service, 1)
    clock.now_s += 5.01
    service.error = None
    await guard.call(service, 1)
    assert (guard.state, gauge()) == (State.CLOSED, 0)
    await fail(guard, service, 3)
    clock.now_s += 1.01  # the first pause again
    service.error = None
    await guard.call(service, 1)


async def test_one_call_at_a_time_is_let_through_to_try() -> None:
    clock, service = Clock(), Service()
    guard, answered = breaker(clock), asyncio.Event()
    await fail(guard, service, 3)
    clock.now_s += 1.01
    trial = asyncio.create_task(guard.call(answered.wait, 1))
    await asyncio.sleep(0)
    assert (guard.state, gauge()) == (State.HALF_OPEN, 1)
    with pytest.raises(BreakerOpen):
        await guard.call(service, 1)
    answered.set()
    assert await trial
    assert guard.state == State.CLOSED


async def test_a_timeout_is_a_failure() -> None:
    guard = breaker(Clock())
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await guard.call(lambda: asyncio.sleep(5), 0.01)
    assert guard.state == State.OPEN


async def test_an_error_as_an_answer_is_a_success() -> None:
    clock, service = Clock(), Service()
    guard = breaker(clock)
    await fail(guard, service, 3)
    clock.now_s += 1.01
    service.error = Refused()
    for _ in range(5):
        with pytest.raises(Refused):
            await guard.call(service, 1)
    assert guard.state == State.CLOSED


@pytest.mark.parametrize("waited_s", [0.1, 0.6])
async def test_a_trial_whose_caller_goes_away_does_not_keep_others_out(waited_s: float) -> None:
    clock, service = Clock(), Service()
    guard = breaker(clock)
    await fail(guard, service, 3)
    clock.now_s += 1.01
    trial = asyncio.create_task(guard.call(lambda: asyncio.sleep(5), 1))
    await asyncio.sleep(0)
    clock.now_s += waited_s
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert guard.state == State.OPEN
    service.error = None
    if waited_s > 0.5:  # of its 1 s: that was a time-out in all but name, and is followed by a pause
        with pytest.raises(BreakerOpen):
            await guard.call(service, 1)
        clock.now_s += 2.01
    await guard.call(service, 1)
    assert gauge() == 0


async def test_callers_who_gave_up_before_the_timeout_open_it_too() -> None:
    clock = Clock()
    guard = breaker(clock)
    for _ in range(3):
        call = asyncio.create_task(guard.call(lambda: asyncio.sleep(5), 1))
        await asyncio.sleep(0)
        clock.now_s += 0.9
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert guard.state == State.OPEN

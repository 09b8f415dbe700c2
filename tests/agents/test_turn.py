"""Turns of the loop: short where others wait, longer for what has fallen behind, and never without end."""

import asyncio

import pytest

from agents.turn import LATE_SHARE, LEAST_S, MOST_S, Turn


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("agents.turn.time.perf_counter", made)
    return made


async def rounds_of(clock: Clock, work_s: float, late_s: float, times: int) -> int:
    """How often another task gets its turn while pieces of work are done."""
    seen = 0

    async def other() -> None:
        nonlocal seen
        while True:
            seen += 1
            await asyncio.sleep(0)

    watching = asyncio.create_task(other())
    mine = Turn()
    for _ in range(times):
        clock.now_s += work_s
        await mine.pause(late_s)
    watching.cancel()
    assert mine.end() == pytest.approx(work_s * times)
    return seen


@pytest.mark.parametrize(("late_s", "hold_s"), [(0.0, LEAST_S), (0.15, 0.15 * LATE_SHARE), (60.0, MOST_S)])
async def test_a_turn_is_as_long_as_what_is_late_needs(clock: Clock, late_s: float, hold_s: float) -> None:
    piece_s, times = 0.0005, 480
    # A turn ends with the piece with which it is long enough.
    expected = times * piece_s / hold_s
    assert await rounds_of(clock, piece_s, late_s, times) == pytest.approx(expected, rel=0.15)


async def test_a_long_piece_ends_the_turn_each_time(clock: Clock) -> None:
    assert await rounds_of(clock, 2 * MOST_S, 60.0, 10) == 10


async def test_what_the_others_took_is_not_ones_own(clock: Clock) -> None:
    mine = Turn()

    async def other() -> None:
        clock.now_s += 5.0

    waiting = asyncio.create_task(other())
    clock.now_s += LEAST_S
    await mine.pause()
    await waiting
    clock.now_s += 0.001
    assert mine.end() == pytest.approx(LEAST_S + 0.001)

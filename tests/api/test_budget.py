"""Time-outs on a loop that turns, and on one that is held."""

import asyncio
import time

import pytest

from api.budget import within


async def held(loop_s: float) -> None:
    """Another task, which holds the loop as a micro-batch does."""
    await asyncio.sleep(0)
    time.sleep(loop_s)  # noqa: ASYNC251 - to hold it is the point


async def test_a_budget_ends_what_waits_and_nothing_else() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with within(0.5):
            await asyncio.sleep(5)
    assert 0.5 <= time.monotonic() - began < 0.95
    async with within(0.02):
        await asyncio.sleep(0)
    await asyncio.sleep(0.03)  # a timer that was left would fire now


async def test_an_answer_that_came_while_the_loop_was_held_counts() -> None:
    """It takes two turns of the loop from the bytes to the answer, and each is held for longer than the budget."""
    reader, writer = asyncio.Queue[int](), asyncio.Queue[int]()

    async def hop() -> None:
        await writer.put(await reader.get())

    hopping = asyncio.create_task(hop())
    holding = asyncio.create_task(held(0.05))
    asyncio.get_running_loop().call_later(0.01, reader.put_nowait, 7)
    async with within(0.02):
        assert await writer.get() == 7
    await asyncio.gather(hopping, holding)


async def test_a_held_loop_gives_one_more_budget_and_no_third() -> None:
    holding = asyncio.create_task(held(0.05))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with within(0.02):
            await asyncio.sleep(5)
    assert 0.07 <= time.monotonic() - began < 0.3
    await holding


async def test_what_computes_is_not_interrupted() -> None:
    async with within(0.001):
        time.sleep(0.01)  # noqa: ASYNC251 - as a ranking does
        computed = True
    assert computed


async def test_a_callers_cancellation_stays_one() -> None:
    async def waits() -> None:
        async with within(5):
            await asyncio.sleep(5)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

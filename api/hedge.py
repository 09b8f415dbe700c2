"""Asking a second time before the first answer is there (Dean and Barroso 2013, "The tail at scale").

A question that may be asked twice flows in, the first answer flows out. Always holds: at most two are under way, whichever is not
needed is cancelled, and the second begins when the first has failed or has not answered for a while, never before.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def hedged(
    ask: Callable[[], Coroutine[Any, Any, T]],
    after_s: float,
    final: tuple[type[Exception], ...] = (),
    second: Callable[[], None] = lambda: None,
) -> T:
    """The first answer.

    Parameters
    ----------
    ask : asks once
    after_s : until it is asked again
    final : errors that are answers: asking again would change nothing
    second : told that it is asked again

    Raises
    ------
    Exception
        A final one at once, else that of the attempt that failed last.
    """
    waiting = {asyncio.create_task(ask())}
    tried_twice = False
    try:
        while True:
            done, waiting = await asyncio.wait(
                waiting, timeout=None if tried_twice else after_s, return_when=asyncio.FIRST_COMPLETED
            )
            # All are looked at, or one that failed beside another's answer would be complained about later.
            failures = [task.exception() for task in done]
            for task, failure in zip(done, failures, strict=True):
                if failure is None:
                    return task.result()
            for failure in failures:
                if failure is not None and (isinstance(failure, final) or (tried_twice and not waiting)):
                    raise failure
            if not tried_twice:
                tried_twice = True
                second()
                waiting.add(asyncio.create_task(ask()))
    finally:
        await _cancelled(waiting)


async def _cancelled(tasks: set[asyncio.Task[T]]) -> None:
    """End them, and look at what they end with."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()

"""A time-out that blames whom it waits for, and not a loop that was held meanwhile.

A worker learns on the loop that answers, so a micro-batch may hold it for longer than a whole budget. An ordinary time-out would then
fire although the answer has arrived and nobody has looked. Always holds: what is under way inside is cancelled after its budget if
the loop turned, and else after one more budget, in which it turned or not.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: A timer of an idle loop is late by well under a millisecond; one that is later than this was kept from firing.
LATE_S = 0.005


@asynccontextmanager
async def within(budget_s: float) -> AsyncIterator[None]:
    """Raise TimeoutError into what is awaited inside once `budget_s` are over, after one more budget if the loop was held.

    What never awaits cannot be interrupted: it ends as if there were no budget.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:

        def over(due: float) -> None:
            now = loop.time()
            limit.reschedule(now + budget_s if now - due > LATE_S else now)

        due = loop.time() + budget_s
        timer = loop.call_at(due, over, due)
        try:
            yield
        finally:
            timer.cancel()

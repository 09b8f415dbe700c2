"""How long a coroutine may hold the loop before it gives others their turn.

Flows in: the time, and how late what it does is. Flows out: pauses. Always holds: what goes on for longer than `MOST_S` lets the loop
go round. Where the loop is full, one round of it takes as long as all that wait for their turn, so a coroutine that gave it back
after each small thing would get little done; and one that falls behind takes longer turns, until it does not any more.
"""

import asyncio
import time

#: Seconds; an answer that waits does so for this, and for the thing that is under way.
LEAST_S, MOST_S = 0.004, 0.012
#: Of the time by which it is late, the share that a turn may take.
LATE_SHARE = 0.05


class Turn:
    """The time since a coroutine was last given the loop."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        #: Seconds for which the loop was held, up to the last pause.
        self.held_s = 0.0

    def begin(self) -> None:
        """The loop has just been round."""
        self._began = time.perf_counter()

    async def pause(self, late_s: float = 0.0) -> None:
        """Let the loop go round, if it was held for long enough for what is `late_s` late."""
        held_s = time.perf_counter() - self._began
        if held_s >= min(max(LATE_SHARE * late_s, LEAST_S), MOST_S):
            self.held_s += held_s
            await asyncio.sleep(0)
            self.begin()

    def end(self) -> float:
        """What was begun is done; returns the seconds for which the loop was held in all."""
        self.held_s += time.perf_counter() - self._began
        return self.held_s

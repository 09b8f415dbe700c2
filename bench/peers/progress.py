"""What a contender says on standard output: `progress SECONDS COUNT` while it counts, `stopped COUNT` at its clean end.

Imports nothing beyond the standard library: Quix Streams runs it in an environment of its own.
"""

import time

#: Events between two lines: 0.3 s of stock Faust, and too few to be felt by the fastest.
EVERY = 500


class Progress:
    """Counts events and says so.

    Parameters
    ----------
    events : how many there are; the last one is always told
    """

    def __init__(self, events: int) -> None:
        self.count = 0
        self._events = events
        self._due = 1

    def add(self, n: int = 1) -> None:
        """Count `n` events that are done."""
        self.count += n
        if self.count >= self._due or self.count == self._events:
            self._due = self.count + EVERY
            print(f"progress {time.monotonic():.6f} {self.count}", flush=True)

    def stopped(self) -> None:
        """Tell the count at the end, when what was done is flushed."""
        print(f"stopped {self.count}", flush=True)

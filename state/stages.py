"""Where the time of one answer goes, stage by stage."""

import time


class Stages:
    """A stopwatch that is told what was just done.

    Attributes
    ----------
    seconds : by stage, in order
    """

    __slots__ = ("_last", "seconds")

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []
        self._last = time.perf_counter()

    def mark(self, stage: str) -> None:
        """What was done since the last mark is `stage`."""
        now = time.perf_counter()
        self.seconds.append((stage, now - self._last))
        self._last = now

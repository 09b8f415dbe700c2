"""Keys that were looked for in vain a moment ago, so that nobody asks again at once (negative caching).

Always holds: bounded; what is in it was absent `ttl_s` ago at the earliest.
"""

import time
from collections.abc import Callable


class Absent:
    """A short memory.

    Parameters
    ----------
    ttl_s : for which a key is remembered
    most : keys; the oldest make room
    clock : seconds, monotonic
    """

    def __init__(self, ttl_s: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s, self._most, self._clock = ttl_s, most, clock
        self._until: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, key: bytes) -> bool:
        until = self._until.get(key)
        return until is not None and self._clock() < until

    def add(self, key: bytes) -> None:
        """Remember it from now on."""
        self._until.pop(key, None)  # the order is that of the times
        if len(self._until) >= self._most:
            del self._until[next(iter(self._until))]
        self._until[key] = self._clock() + self._ttl_s

    def discard(self, key: bytes) -> None:
        """Forget it, if it is there."""
        self._until.pop(key, None)

"""How many lessons a shard may take: a ration by the stream's own time.

Flows in: the stream's time and how many ask. Flows out: how many may. Always holds: what is spent is what was granted, at most the
burst plus the ration of the time that has passed; live, replayed and on any machine alike.
"""

DAY_MS = 86_400_000


class Quota:
    """A token bucket (Turner 1986) over event time.

    Parameters
    ----------
    per_day : granted a day of the stream
    burst : most that are saved up, and granted at first
    """

    def __init__(self, per_day: float, burst: float) -> None:
        self._per_ms = per_day / DAY_MS
        self._burst = burst
        self._left = burst
        self._at_ms = 0

    def left(self, now_ms: int) -> int:
        """How many would be granted at `now_ms`; a time before the latest one counts as it."""
        if now_ms > self._at_ms:
            self._left = min(self._burst, self._left + (now_ms - self._at_ms) * self._per_ms)
            self._at_ms = now_ms
        return int(self._left)

    def take(self, now_ms: int, asked: int) -> int:
        """Spend up to `asked`; returns how many are granted."""
        granted = min(asked, self.left(now_ms))
        self._left -= granted
        return granted
